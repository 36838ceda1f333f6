//! Where files for a guest are read: beneath one open directory, by single names, following nothing.
//!
//! What is copied may lie in a folder that a guest works in. What it puts in the place of a directory, once we have
//! looked at that, must not become what is read.

use std::{
    ffi::OsStr,
    fs::File,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::{
    fs::{CWD, Dir, FileType, Mode, OFlags, RawMode, fstat, openat, readlinkat},
    path::Arg,
};

use crate::{Error, Result, error::Context};

/// What a name stood for when it was looked at, held open.
#[derive(Debug)]
pub(super) enum Source {
    File(File, u32),
    Directory(Listing, u32),
    Link(Vec<u8>),
    Other,
}

impl Source {
    /// What the user named; the way there is theirs to say.
    pub(super) fn open(path: &Path) -> Result<Self> {
        Self::look(CWD, path.as_os_str(), path)
    }

    fn look(directory: impl AsFd, name: impl Arg + Copy, path: &Path) -> Result<Self> {
        const ACT: &str = "file cannot be read";
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let held = openat(&directory, name, flags, Mode::empty()).context(ACT, path)?;
        let mode = fstat(&held).context(ACT, path)?.st_mode;
        Ok(match FileType::from_raw_mode(mode) {
            FileType::Directory => Source::Directory(Listing::of(&held, path)?, permissions(mode)),
            FileType::Symlink => {
                let text = readlinkat(&held, "", Vec::new()).context("link cannot be read", path)?;
                Source::Link(text.into_bytes())
            }
            FileType::RegularFile => file(directory, name, path)?,
            _ => Source::Other,
        })
    }
}

/// Anew, since what is only looked at is not open for reading.
fn file(directory: impl AsFd, name: impl Arg, path: &Path) -> Result<Source> {
    const ACT: &str = "file cannot be read";
    // Not a FIFO that took its place meanwhile, which would hold us up.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(directory, name, flags, Mode::empty()).context(ACT, path)?;
    let mode = fstat(&file).context(ACT, path)?.st_mode;
    if FileType::from_raw_mode(mode) != FileType::RegularFile {
        return Err(Error::Copy {
            what: "file changed while it was copied",
            path: path.to_owned(),
        });
    }
    Ok(Source::File(file.into(), permissions(mode)))
}

fn permissions(mode: RawMode) -> u32 {
    mode & 0o777
}

/// An open directory and how far it was listed.
#[derive(Debug)]
pub(super) struct Listing(Dir);

impl Listing {
    fn of(held: &OwnedFd, path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(held, ".", flags, Mode::empty()).and_then(Dir::new);
        Ok(Listing(opened.context(LIST, path)?))
    }

    /// The next name and what it stands for; `path` is the directory's, for messages only.
    pub(super) fn next(&mut self, path: &Path) -> Result<Option<(Vec<u8>, Source)>> {
        while let Some(entry) = self.0.read() {
            let entry = entry.context(LIST, path)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let path = path.join(OsStr::from_bytes(name.to_bytes()));
            let directory = self.0.fd().context(LIST, &path)?;
            let source = Source::look(directory, name, &path)?;
            return Ok(Some((name.to_bytes().to_vec(), source)));
        }
        Ok(None)
    }
}

const LIST: &str = "directory cannot be listed";
