//! The writing end: a thread, so that a slow disk holds up nobody.

use std::{io, path::Path, thread};

use egress_policy::{EgressPolicy, control::Spent};
use tokio::sync::{mpsc, oneshot};

use super::{
    Entry, Line, Note, Policy,
    file::{BoundedFile, MAX_FILE, prune},
};
use crate::{Result, SessionName, error::Context, output, paths::make_private, state::unix_ms};

/// Lines waiting for the disk. More are lost, and counted.
const WAITING: usize = 4096;

/// Takes lines for the file of a run. What cannot be written is lost; the session goes on.
#[derive(Clone, Debug)]
pub(crate) struct Recorder(mpsc::Sender<Option<Line>>);

/// The file itself.
#[derive(Debug)]
pub(crate) struct Journal {
    done: oneshot::Receiver<()>,
}

impl Journal {
    /// For the file of a run, which is made with the first line. A disk that is full then is like one that gets full
    /// later.
    pub(crate) fn begin(
        directory: &Path,
        session: &SessionName,
        spent: Spent,
    ) -> Result<(Recorder, Journal)> {
        let (sender, lines) = mpsc::channel(WAITING);
        let (tell, done) = oneshot::channel();
        let (directory, session) = (directory.to_owned(), session.clone());
        let work = move || {
            write_all(&directory, &session, spent, lines);
            // Nobody may be waiting.
            let _ = tell.send(());
        };
        thread::Builder::new()
            .name("net-journal".to_owned())
            .spawn(work)
            .act("thread cannot be started")?;
        Ok((Recorder(sender), Journal { done }))
    }

    /// Waits until all is written that was recorded before [`Recorder::end`].
    pub(crate) async fn written(self) {
        let _ = self.done.await;
    }
}

impl Recorder {
    pub(crate) async fn entry(&self, entry: Entry) {
        self.line(Line::Entry(Box::new(entry))).await;
    }

    pub(crate) async fn note(&self, note: String) {
        let unix_ms = unix_ms();
        self.line(Line::Note(Note { unix_ms, note })).await;
    }

    pub(crate) async fn policy(&self, policy: EgressPolicy) {
        let unix_ms = unix_ms();
        self.line(Line::Policy(Policy { unix_ms, policy })).await;
    }

    /// What is recorded after this is lost.
    pub(crate) async fn end(&self) {
        let _ = self.0.send(None).await;
    }

    /// Waits for room: a disk that is slow slows the reading of events, and never a flow.
    async fn line(&self, line: Line) {
        // The thread is gone only after the end.
        let _ = self.0.send(Some(line)).await;
    }
}

fn write_all(directory: &Path, session: &SessionName, spent: Spent, mut lines: mpsc::Receiver<Option<Line>>) {
    let mut writer = Writer {
        directory,
        session,
        spent,
        file: None,
        policy: None,
        lost: 0,
        told: false,
    };
    while let Some(Some(line)) = lines.blocking_recv() {
        writer.write(&line);
    }
}

struct Writer<'a> {
    directory: &'a Path,
    session: &'a SessionName,
    spent: Spent,
    /// Made with the first line, and tried again with the next while it cannot be.
    file: Option<BoundedFile>,
    /// The one in force, which a file must begin with.
    policy: Option<Line>,
    lost: u64,
    told: bool,
}

impl Writer<'_> {
    fn write(&mut self, line: &Line) {
        if let Line::Policy(_) = line {
            self.policy = Some(line.clone());
        }
        if let Err(error) = self.try_write(line) {
            self.lost = self.lost.saturating_add(1);
            if !std::mem::replace(&mut self.told, true) {
                output::note(&format!(
                    "network: records cannot be written, the session goes on without: {error}"
                ));
            }
        }
    }

    /// Says before the next line that is written how many were not.
    fn try_write(&mut self, line: &Line) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = self.file.insert(open(self.directory, self.session, self.spent)?);
                if let Some(policy) = self.policy.as_ref().filter(|policy| *policy != line) {
                    file.append(policy)?;
                }
                file
            }
        };
        if self.lost > 0 {
            let note = format!("{} records could not be written before this", self.lost);
            let unix_ms = unix_ms();
            file.append(&Line::Note(Note { unix_ms, note }))?;
            self.lost = 0;
        }
        file.append(line)
    }
}

fn open(directory: &Path, session: &SessionName, spent: Spent) -> io::Result<BoundedFile> {
    make_private(directory).map_err(|error| io::Error::other(error.line()))?;
    // What cannot be removed now is removed the next time.
    let _ = prune(directory);
    BoundedFile::create(directory, session, spent, MAX_FILE)
}
