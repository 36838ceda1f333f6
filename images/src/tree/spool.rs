//! Where the bytes of files wait until the file system is written: one nameless file, only appended to.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::Context;
use crate::{Error, Result};

/// More than any image a laptop has room for; it bounds what a small archive may grow to.
pub(crate) const MAX_BYTES: u64 = 64 << 30;
const BUFFER_BYTES: usize = 128 * 1024;

/// Bytes of the spool that are one file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(super) offset: u64,
    pub(crate) length: u64,
}

#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    path: PathBuf,
    length: u64,
    buffer: Vec<u8>,
}

impl Spool {
    /// The file loses its name at once, so that nothing is left behind whatever happens.
    pub(super) fn new(directory: &Path) -> Result<Self> {
        let path = directory.join(format!("spool-{:x}", next_number()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        let file = file.context("create", &path)?;
        std::fs::remove_file(&path).context("remove", &path)?;
        Ok(Self {
            file,
            path,
            length: 0,
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// Takes in everything `reader` gives.
    pub(super) fn append(&mut self, mut reader: impl Read) -> Result<Extent> {
        let offset = self.length;
        loop {
            let n = match reader.read(&mut self.buffer) {
                Ok(0) => {
                    return Ok(Extent {
                        offset,
                        length: self.length - offset,
                    });
                }
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(Error::Archive {
                        archive: "the content of a file".into(),
                        source,
                    });
                }
            };
            if self.length + n as u64 > MAX_BYTES {
                return Err(Error::OverLimit {
                    what: "bytes of files",
                    limit: MAX_BYTES,
                });
            }
            self.file
                .write_all(&self.buffer[..n])
                .context("write", &self.path)?;
            self.length += n as u64;
        }
    }

    pub(super) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.file
            .read_exact_at(buffer, offset)
            .context("read", &self.path)
    }
}

/// Two trees may live in one directory for a moment.
fn next_number() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
