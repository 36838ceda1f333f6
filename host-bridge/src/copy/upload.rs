use std::{
    fs::{self, File, Metadata as Found},
    io::{self, Read},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{MetadataExt, OpenOptionsExt},
    },
    path::Path,
};

use agent_protocol::Request;
use rustix::{fs::OFlags, stdio::stdin};

use super::{GuestFiles, is_directory, joined};
use crate::{Error, Host, Result, error::Context, output};

/// What a file made of our standard input is.
const STDIN_MODE: u32 = 0o644;

impl<H: Host> GuestFiles<'_, H> {
    /// Copies `from` on the host to `to` in the guest: into it if it is a directory, else under its name.
    pub fn upload(&mut self, from: &Path, to: &[u8]) -> Result<()> {
        let found = fs::symlink_metadata(from).context("file cannot be read", from)?;
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
        self.send(from, &found, &to)
    }

    /// Standard input into one file.
    pub fn upload_from_stdin(&mut self, to: &[u8]) -> Result<()> {
        if is_directory(self.stat(to)?.as_ref()) {
            return Err(Error::Copy {
                what: "destination in the sandbox is a directory",
                path: Path::new(std::ffi::OsStr::from_bytes(to)).to_owned(),
            });
        }
        self.write_file(to, STDIN_MODE, |room| output::read(stdin(), room))
    }

    fn send(&mut self, from: &Path, found: &Found, to: &[u8]) -> Result<()> {
        if found.is_dir() {
            return self.send_directory(from, found, to);
        }
        if found.is_file() {
            return self.send_file(from, to);
        }
        if found.is_symlink() {
            let target = fs::read_link(from)
                .context("link cannot be read", from)?
                .into_os_string()
                .into_vec();
            let request = Request::MakeSymlink {
                path: to.to_vec(),
                target,
            };
            self.simple("link cannot be made", to, request)?;
            self.tally.symlinks += 1;
            return Ok(());
        }
        self.tally.skipped += 1;
        Ok(())
    }

    fn send_directory(&mut self, from: &Path, found: &Found, to: &[u8]) -> Result<()> {
        let request = Request::MakeDirectory {
            path: to.to_vec(),
            mode: found.mode() & 0o777,
        };
        self.simple("directory cannot be made", to, request)?;
        for entry in fs::read_dir(from).context("directory cannot be listed", from)? {
            let entry = entry.context("directory cannot be listed", from)?;
            let path = entry.path();
            let found = fs::symlink_metadata(&path).context("file cannot be read", &path)?;
            self.send(&path, &found, &joined(to, entry.file_name().as_bytes()))?;
        }
        self.tally.directories += 1;
        Ok(())
    }

    fn send_file(&mut self, from: &Path, to: &[u8]) -> Result<()> {
        // Not a FIFO that took its place meanwhile, which would hold us up.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mut options = File::options();
        let file = options
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(from);
        let mut file = file.context("file cannot be read", from)?;
        let found = file.metadata().context("file cannot be read", from)?;
        if !found.is_file() {
            return Err(Error::Copy {
                what: "file changed while it was copied",
                path: from.to_owned(),
            });
        }
        self.write_file(to, found.mode() & 0o777, |room| file.read(room))?;
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
