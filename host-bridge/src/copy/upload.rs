use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use agent_protocol::Request;
use rustix::stdio::stdin;

use super::{
    GuestFiles, MAX_DEPTH, is_directory, joined,
    source::{Listing, Source},
};
use crate::{Error, Host, Result, output};

/// What a file made of our standard input is.
const STDIN_MODE: u32 = 0o644;

impl<H: Host> GuestFiles<'_, H> {
    /// Copies `from` on the host to `to` in the guest: into it if it is a directory, else under its name.
    pub fn upload(&mut self, from: &Path, to: &[u8]) -> Result<()> {
        let source = Source::open(from)?;
        let existing = self.stat(to)?;
        let to = if !is_directory(existing.as_ref()) {
            to.to_vec()
        } else {
            match from.file_name() {
                Some(name) => joined(to, name.as_bytes()),
                // `.` or `/`: what is in it.
                None => to.to_vec(),
            }
        };
        self.send(source, from, &to, 0)
    }

    /// Standard input into one file.
    pub fn upload_from_stdin(&mut self, to: &[u8]) -> Result<()> {
        if is_directory(self.stat(to)?.as_ref()) {
            return Err(Error::Copy {
                what: "destination in the sandbox is a directory",
                path: Path::new(OsStr::from_bytes(to)).to_owned(),
            });
        }
        self.write_file(to, STDIN_MODE, |room| output::read(stdin(), room))
    }

    fn send(&mut self, source: Source, from: &Path, to: &[u8], depth: usize) -> Result<()> {
        match source {
            Source::Directory(listing, mode) => self.send_directory(listing, mode, from, to, depth),
            Source::File(file, mode) => self.send_file(file, mode, to),
            Source::Link(target) => {
                let path = to.to_vec();
                self.simple("link cannot be made", to, Request::MakeSymlink { path, target })?;
                self.tally.symlinks += 1;
                Ok(())
            }
            Source::Other => {
                self.tally.skipped += 1;
                Ok(())
            }
        }
    }

    fn send_directory(
        &mut self,
        mut listing: Listing,
        mode: u32,
        from: &Path,
        to: &[u8],
        depth: usize,
    ) -> Result<()> {
        if depth >= MAX_DEPTH {
            return Err(Error::Copy {
                what: "directories lie too deep",
                path: from.to_owned(),
            });
        }
        let path = to.to_vec();
        self.simple(
            "directory cannot be made",
            to,
            Request::MakeDirectory { path, mode },
        )?;
        while let Some((name, source)) = listing.next(from)? {
            let path = from.join(OsStr::from_bytes(&name));
            self.send(source, &path, &joined(to, &name), depth + 1)?;
        }
        self.tally.directories += 1;
        Ok(())
    }

    fn send_file(&mut self, mut file: File, mode: u32, to: &[u8]) -> Result<()> {
        self.write_file(to, mode, |room| file.read(room))?;
        self.tally.files += 1;
        Ok(())
    }

    fn write_file(
        &mut self,
        to: &[u8],
        mode: u32,
        mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> Result<()> {
        let (mut reader, mut writer) = self
            .start(Request::Put {
                path: to.to_vec(),
                mode,
            })?
            .split()?;
        let (cancel, bytes) = (&self.cancel, &mut self.tally.bytes);
        let mut read_error = None;
        let sent = writer.send_all(|room| {
            let read = cancel.check().map_err(io::Error::other).and_then(|()| read(room));
            match read {
                Ok(len) => {
                    *bytes += len as u64;
                    Ok(len)
                }
                Err(error) => Err(read_error.insert(error).kind().into()),
            }
        });
        if let Some(source) = read_error {
            // Closing the stream short of its end makes the guest forget the file.
            writer.abort();
            cancel.check()?;
            return Err(Error::System {
                act: "input of the copy cannot be read",
                source,
            });
        }
        // A guest that stopped reading has said why.
        drop(sent);
        self.done("file cannot be written", to, &mut reader)
    }
}
