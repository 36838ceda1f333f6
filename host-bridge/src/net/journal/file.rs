//! A file of lines that does not grow without end, and a directory that does not either.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use egress_policy::control::Spent;
use rustix::fs::FlockOperation;

use super::{
    Line, Place, Start, VERSION,
    read::{is_live, runs},
};
use crate::{SessionName, net::account::Account, state::unix_ms};

/// Some ten thousands of flows. A run keeps this much twice: the file that is written and the full one before it.
pub(super) const MAX_FILE: u64 = 8 << 20;
/// Runs of sessions that are remembered, the latest.
const MAX_RUNS: usize = 200;
/// Nobody asks what a session did longer ago.
const MAX_AGE: Duration = Duration::from_secs(60 * 24 * 60 * 60);

pub(super) struct BoundedFile {
    place: Place,
    start: Start,
    file: File,
    len: u64,
    /// What is said at its head is not counted: however much that is, there is room for as many lines.
    head: u64,
    max: u64,
    /// Said again at the head of the next file, which must make sense without the one before.
    policy: Option<Vec<u8>>,
    account: Account,
}

impl BoundedFile {
    pub(super) fn create(
        directory: &Path,
        session: &SessionName,
        spent: Spent,
        max: u64,
    ) -> io::Result<Self> {
        let start = Start {
            version: VERSION,
            session: session.clone(),
            started_unix_ms: unix_ms(),
            spent,
            file: 0,
            repeats: 0,
        };
        let place = Place::new(directory, session, start.started_unix_ms);
        let mut file = BoundedFile {
            file: create(&place.current())?,
            place,
            start,
            len: 0,
            head: 0,
            max,
            policy: None,
            account: Account::default(),
        };
        file.put_head()?;
        Ok(file)
    }

    pub(super) fn append(&mut self, line: &Line) -> io::Result<()> {
        let bytes = encoded(line)?;
        if matches!(line, Line::Policy(_)) {
            self.policy = Some(bytes.clone());
        }
        let lines = self.len.saturating_sub(self.head);
        if lines.saturating_add(bytes.len() as u64) > self.max {
            self.turn()?;
        }
        // Not there where the disk was full.
        if self.len == 0 {
            self.put_head()?;
        }
        self.put(&bytes)?;
        self.account.add(line);
        Ok(())
    }

    /// The file is full: it takes the place of the one that was full before.
    fn turn(&mut self) -> io::Result<()> {
        let current = self.place.current();
        match fs::rename(&current, self.place.full()) {
            // Somebody removed it.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.file = create(&current)?;
        (self.len, self.head) = (0, 0);
        Ok(())
    }

    fn put_head(&mut self) -> io::Result<()> {
        let mut repeats: Vec<Vec<u8>> = self.policy.iter().cloned().collect();
        for total in self.account.totals() {
            repeats.push(encoded(&total)?);
        }
        let start = Start {
            file: self.start.file.saturating_add(1),
            repeats: repeats.len(),
            ..self.start.clone()
        };
        let head = [encoded(&Line::Start(start.clone()))?, repeats.concat()].concat();
        self.put(&head)?;
        self.start = start;
        self.head = self.len;
        Ok(())
    }

    /// All of it or, as far as it is in our hands, nothing.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(bytes) {
            // Where even this fails, a reader skips the broken line.
            let _ = self.file.set_len(self.len);
            return Err(error);
        }
        self.len = self.len.saturating_add(bytes.len() as u64);
        Ok(())
    }
}

fn encoded(line: &Line) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The lock is ours before anybody can have looked: nobody else locks for longer than a moment.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.append(true).create_new(true).mode(0o600).open(path)?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

/// Removes the oldest runs beyond what is kept. One that still runs stays.
pub(super) fn prune(directory: &Path) -> io::Result<()> {
    prune_to(directory, MAX_RUNS, unix_ms().saturating_sub(millis(MAX_AGE)))
}

pub(super) fn prune_to(directory: &Path, max_runs: usize, oldest_unix_ms: u64) -> io::Result<()> {
    let mut runs = runs(directory)?;
    runs.sort_by_key(|run| std::cmp::Reverse(run.started_unix_ms));
    for (index, run) in runs.iter().enumerate() {
        if index < max_runs && run.started_unix_ms >= oldest_unix_ms {
            continue;
        }
        if is_live(&run.place.current()) {
            continue;
        }
        let _ = fs::remove_file(run.place.full());
        fs::remove_file(run.place.current())?;
    }
    Ok(())
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
