use std::{os::unix::ffi::OsStrExt, path::Path};

use agent_protocol::{Entry, EntryKind, Metadata, Reply, Request};
use rustix::stdio::stdout;

use super::{GuestFiles, MAX_DEPTH, Target, base_name, failed, joined, no_such};
use crate::{Error, Host, Result, agent::Incoming, console, error::Context, output};

/// Names held at once, of a directory and of those it lies in: a guest could list for ever.
const MAX_ENTRIES: usize = 1 << 20;

impl<H: Host> GuestFiles<'_, H> {
    /// Copies `from` in the guest to `to` on the host: into it if it is a directory, else under its name.
    pub fn download(&mut self, from: &[u8], to: &Path) -> Result<()> {
        let found = self.stat(from)?.ok_or_else(|| no_such(from))?;
        if to.is_dir() {
            let target = Target::open(to)?;
            return match (base_name(from), found.kind) {
                (Some(name), _) => self.fetch(from, &found, &target, name, 0),
                // `NAME:/` or `NAME:.`, which have no name: what is in it.
                (None, EntryKind::Directory) => self.fetch_entries(from, &target, 0),
                (None, _) => Err(Error::HostileName {
                    name: console::safe(from),
                }),
            };
        }
        let name = to.file_name().ok_or_else(|| Error::Copy {
            what: "destination has no name",
            path: to.to_owned(),
        })?;
        let parent = to
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        self.fetch(from, &found, &Target::open(parent)?, name.as_bytes(), 0)
    }

    /// The bytes of one file to standard output.
    pub fn download_to_stdout(&mut self, from: &[u8]) -> Result<()> {
        self.read_file(from, |data| {
            output::write_all(stdout(), data).act("standard output cannot be written")
        })
    }

    fn fetch(
        &mut self,
        from: &[u8],
        found: &Metadata,
        target: &Target,
        name: &[u8],
        depth: usize,
    ) -> Result<()> {
        match found.kind {
            EntryKind::File => {
                let file = target.file(name, found.mode)?;
                self.read_file(from, |data| file.write(data))?;
                file.place()?;
                self.tally.files += 1;
            }
            EntryKind::Directory => {
                let directory = target.directory(name)?;
                self.fetch_entries(from, &directory, depth)?;
                directory.set_mode(found.mode)?;
                self.tally.directories += 1;
            }
            EntryKind::Symlink => {
                target.symlink(name, &found.target)?;
                self.tally.symlinks += 1;
            }
            EntryKind::Other => self.tally.skipped += 1,
        }
        Ok(())
    }

    fn fetch_entries(&mut self, from: &[u8], target: &Target, depth: usize) -> Result<()> {
        if depth >= MAX_DEPTH {
            return Err(Error::Unexpected {
                what: "directories without end",
            });
        }
        let entries = self.list(from)?;
        let count = entries.len();
        self.held += count;
        for entry in entries {
            let path = joined(from, &entry.name);
            // What went away since it was listed is not there to be copied.
            if let Some(found) = self.stat(&path)? {
                self.fetch(&path, &found, target, &entry.name, depth + 1)?;
            }
        }
        self.held -= count;
        Ok(())
    }

    fn list(&self, path: &[u8]) -> Result<Vec<Entry>> {
        let (mut reader, _writer) = self.start(Request::List { path: path.to_vec() })?.split()?;
        let mut entries = Vec::new();
        loop {
            self.cancel.check()?;
            match reader.reply()? {
                Reply::Entries(batch) => {
                    // Before a name is kept, and before any path is made of it, also one in the guest: the guest
                    // may neither fill our memory nor steer us about.
                    batch
                        .iter()
                        .try_for_each(|entry| super::target::check_name(&entry.name))?;
                    entries.extend(batch);
                }
                Reply::Done => return Ok(entries),
                reply => return Err(failed("directory cannot be listed", path, reply)),
            }
            if self.held + entries.len() > MAX_ENTRIES {
                return Err(Error::Unexpected {
                    what: "a directory without end",
                });
            }
        }
    }

    fn read_file(&mut self, path: &[u8], mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let (mut reader, _writer) = self.start(Request::Get { path: path.to_vec() })?.split()?;
        loop {
            self.cancel.check()?;
            match reader.receive()? {
                Some(Incoming::Stdout(data)) => {
                    take(data)?;
                    self.tally.bytes += data.len() as u64;
                }
                Some(Incoming::Reply(Reply::Metadata(_))) => {}
                Some(Incoming::Reply(Reply::Done)) => return Ok(()),
                Some(Incoming::Reply(reply)) => return Err(failed("file cannot be read", path, reply)),
                Some(Incoming::Stderr(_)) => {
                    return Err(Error::Unexpected {
                        what: "errors out of a file",
                    });
                }
                None => return Err(Error::AgentGone),
            }
        }
    }
}
