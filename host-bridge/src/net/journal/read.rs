//! The reading end: which runs there are, and what their files say.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::Path,
};

use rustix::fs::FlockOperation;

use super::{FIRST_VERSION, Line, Place, Start, VERSION};
use crate::SessionName;

/// One run of a session, as its file's name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) session: SessionName,
    pub(crate) started_unix_ms: u64,
    pub(crate) place: Place,
}

impl Run {
    fn of(directory: &Path, file: &str) -> Option<Self> {
        let (session, started) = file.strip_suffix(".jsonl")?.rsplit_once('-')?;
        let session: SessionName = session.parse().ok()?;
        let started_unix_ms = started.parse().ok()?;
        Some(Run {
            place: Place::new(directory, &session, started_unix_ms),
            session,
            started_unix_ms,
        })
    }

    pub(crate) fn is_live(&self) -> bool {
        is_live(&self.place.current())
    }

    /// What is in its files, the older first. A line that cannot be read is none of ours or was cut off by a crash.
    pub(crate) fn lines(&self) -> io::Result<Vec<Vec<u8>>> {
        // In this order: a file that takes the other's place meanwhile is read twice, which can be told.
        let current = read(&self.place.current())?;
        joined(read(&self.place.full())?, current)
    }
}

/// Nothing of a file that is not there.
fn read(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        file => BufReader::new(file?).split(b'\n').collect(),
    }
}

fn joined(mut full: Vec<Vec<u8>>, mut current: Vec<Vec<u8>>) -> io::Result<Vec<Vec<u8>>> {
    match (start_of(&full)?, start_of(&current)?) {
        (Some(before), Some(start)) if before.file.saturating_add(1) == start.file => {
            full.extend(current.drain(repeated(&start, current.len())..));
        }
        // Not the one before: what this one repeats is all that is known.
        (_, Some(start)) if start.file > 0 => return Ok(current),
        _ => full.extend(current),
    }
    Ok(full)
}

fn repeated(start: &Start, lines: usize) -> usize {
    start.repeats.saturating_add(1).min(lines)
}

/// What the first line says. An error where it is of a version that nobody here knows.
fn start_of(lines: &[Vec<u8>]) -> io::Result<Option<Start>> {
    let start = |line: &Vec<u8>| serde_json::from_slice::<Start>(line).ok();
    match lines.first().and_then(start) {
        Some(start) if !is_known(&start) => Err(io::Error::other(format!(
            "they are of version {}, and this coffer knows {FIRST_VERSION} to {VERSION}",
            start.version
        ))),
        start => Ok(start),
    }
}

fn is_known(start: &Start) -> bool {
    (FIRST_VERSION..=VERSION).contains(&start.version)
}

/// `None` for what is no line of a version that is known.
pub(crate) fn parse(line: &[u8]) -> Option<Line> {
    match serde_json::from_slice(line).ok()? {
        Line::Start(start) if !is_known(&start) => None,
        line => Some(line),
    }
}

/// Every run that is remembered, in no order. Without the directory there is none.
pub(crate) fn runs(directory: &Path) -> io::Result<Vec<Run>> {
    let listed = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed?,
    };
    let run = |entry: io::Result<fs::DirEntry>| Run::of(directory, entry.ok()?.file_name().to_str()?);
    Ok(listed.filter_map(run).collect())
}

/// The latest run, of this session or of any.
pub(crate) fn run_of(directory: &Path, session: Option<&SessionName>) -> io::Result<Option<Run>> {
    let mut runs = runs(directory)?;
    runs.retain(|run| session.is_none_or(|session| run.session == *session));
    Ok(runs.into_iter().max_by_key(|run| run.started_unix_ms))
}

/// Whether somebody still writes it.
pub(super) fn is_live(path: &Path) -> bool {
    let locked = |file: File| rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err();
    File::open(path).is_ok_and(locked)
}

/// A file that is still written, read as it grows.
#[derive(Debug)]
pub(crate) struct Follower {
    run: Run,
    file: BufReader<File>,
    /// The beginning of a line whose end is not yet there.
    partial: Vec<u8>,
    /// The next line is the first of a file that came after another.
    at_start: bool,
    /// Lines to come that say again what was told.
    repeats: usize,
}

/// From the beginning of the file that is written now.
pub(crate) fn follow(run: &Run) -> io::Result<Follower> {
    let mut file = BufReader::new(File::open(run.place.current())?);
    let mut first = Vec::new();
    file.read_until(b'\n', &mut first)?;
    start_of(&[first])?;
    file.rewind()?;
    Ok(Follower {
        file,
        run: run.clone(),
        partial: Vec::new(),
        at_start: false,
        repeats: 0,
    })
}

impl Follower {
    /// The lines that are there now and were not told before.
    pub(crate) fn more(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let mut lines = self.rest()?;
        if self.was_replaced()? {
            // What was written between the two looks.
            lines.extend(self.rest()?);
            self.file = BufReader::new(File::open(self.run.place.current())?);
            self.partial.clear();
            self.at_start = true;
            lines.extend(self.rest()?);
        }
        Ok(lines)
    }

    fn was_told(&mut self, line: &[u8]) -> bool {
        if std::mem::take(&mut self.at_start) {
            let start = serde_json::from_slice::<Start>(line);
            self.repeats = start.as_ref().map_or(0, |start| start.repeats);
            return start.is_ok();
        }
        let told = self.repeats > 0;
        self.repeats = self.repeats.saturating_sub(1);
        told
    }

    fn rest(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let mut lines = Vec::new();
        while self.file.read_until(b'\n', &mut self.partial)? > 0 {
            if self.partial.pop_if(|last| *last == b'\n').is_none() {
                break;
            }
            let line = std::mem::take(&mut self.partial);
            if !self.was_told(&line) {
                lines.push(line);
            }
        }
        // Cut back by a writer that could not end its line.
        let (at, len) = (
            self.file.stream_position()?,
            self.file.get_ref().metadata()?.len(),
        );
        if at > len {
            self.file.seek(SeekFrom::Start(len))?;
            self.partial.clear();
        }
        Ok(lines)
    }

    fn was_replaced(&self) -> io::Result<bool> {
        match fs::metadata(self.run.place.current()) {
            Ok(found) => Ok(found.ino() != self.file.get_ref().metadata()?.ino()),
            // In the middle of it, or removed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}
