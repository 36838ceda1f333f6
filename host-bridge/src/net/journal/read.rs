//! The reading end: which runs there are, and what their files say.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::Path,
};

use rustix::fs::FlockOperation;

use super::{Line, Place, VERSION};
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
        let mut lines = match read(&self.place.full()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            lines => lines?,
        };
        lines.extend(read(&self.place.current())?);
        Ok(lines)
    }
}

fn read(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    let lines = BufReader::new(File::open(path)?).split(b'\n');
    lines.collect()
}

/// `None` for what is no line of this version.
pub(crate) fn parse(line: &[u8]) -> Option<Line> {
    match serde_json::from_slice(line).ok()? {
        Line::Start(start) if start.version != VERSION => None,
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
}

/// From the end of what was read: `skip` lines of its file are known already.
pub(crate) fn follow(run: &Run) -> io::Result<Follower> {
    Ok(Follower {
        file: BufReader::new(File::open(run.place.current())?),
        run: run.clone(),
        partial: Vec::new(),
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
            lines.extend(self.rest()?);
        }
        Ok(lines)
    }

    fn rest(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let mut lines = Vec::new();
        while self.file.read_until(b'\n', &mut self.partial)? > 0 {
            if self.partial.pop_if(|last| *last == b'\n').is_none() {
                break;
            }
            lines.push(std::mem::take(&mut self.partial));
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
