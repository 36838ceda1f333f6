//! The file in the root of the device through which it hears what is watched and tells what has happened.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::PathBuf,
};

/// Not in the listing.
pub(super) const NAME: &str = ".coffer-events";

/// What the device says at once, at most: so much is one request, wherever the buffer begins. A read that
/// the kernel cuts in two would lose what the second half brings.
const MAX_READ: usize = 64 * 1024;

/// From here on there may be more to say than had room.
const NEARLY_FULL: usize = MAX_READ / 2;

/// Opened anew for each use, and never kept.
#[derive(Debug)]
pub(super) struct EventsFile(PathBuf);

impl EventsFile {
    pub(super) fn new(path: PathBuf) -> Self {
        EventsFile(path)
    }

    /// In one piece, which is how the device tells a whole set from a part of one.
    pub(super) fn publish(&self, text: &[u8]) -> io::Result<()> {
        let file = self.open(OpenOptions::new().write(true), 0)?;
        let written = file.write_at(text, 0)?;
        if written < text.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(())
    }

    /// Past the page cache: what was read before is of no use to anyone. Whether there may be more.
    pub(super) fn read(&self, buffer: &mut Vec<u8>) -> io::Result<bool> {
        let file = self.open(OpenOptions::new().read(true), libc::O_DIRECT)?;
        buffer.resize(MAX_READ, 0);
        let read = file.read_at(buffer, 0);
        buffer.truncate(read.as_ref().copied().unwrap_or(0));
        read.map(|count| count >= NEARLY_FULL)
    }

    fn open(&self, options: &mut OpenOptions, flags: i32) -> io::Result<File> {
        options.custom_flags(libc::O_NOFOLLOW | flags).open(&self.0)
    }
}
