//! `coffer cp`: files between the host and a sandbox, one operation of the agent for each.
//!
//! Downwards every name and every link comes from a guest that may lie, and upwards a guest may be at work in what
//! is read. So the host's side works beneath one open directory, a component at a time, and follows nothing: see
//! [`target`] and [`source`].
//!
//! It runs on a thread that may block, as streams do; see [`Cancel`] for how it is interrupted.

mod download;
mod source;
mod target;
mod upload;

use std::{
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use agent_protocol::{EntryKind, FailureKind, Metadata, Reply, Request};
use tokio::runtime::Handle;

use crate::{Error, Host, Result, SessionName, agent::OperationReader, console};

pub use target::Target;

/// Directories below each other. A path of more is longer than Linux opens in one go, and each that is sent is open
/// until it is done.
const MAX_DEPTH: usize = 200;

/// One end of a copy, as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Host(PathBuf),
    Guest(SessionName, Vec<u8>),
    /// `-`: standard input or output.
    Stdio,
}

impl Place {
    /// `NAME:PATH` is in a session; what starts with a dot or a slash is always here.
    pub fn parse(text: &std::ffi::OsStr) -> Result<Self> {
        let bytes = text.as_bytes();
        if bytes == b"-" {
            return Ok(Place::Stdio);
        }
        let colon = bytes.iter().position(|byte| *byte == b':');
        match (bytes.first(), colon) {
            (Some(b'.' | b'/') | None, _) | (_, None) => Ok(Place::Host(PathBuf::from(text))),
            (_, Some(at)) => {
                let name = String::from_utf8_lossy(&bytes[..at]).parse()?;
                let path = bytes.get(at + 1..).unwrap_or_default().to_vec();
                Ok(Place::Guest(
                    name,
                    if path.is_empty() { b".".to_vec() } else { path },
                ))
            }
        }
    }
}

/// What a copy moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub files: u64,
    pub directories: u64,
    pub symlinks: u64,
    pub bytes: u64,
    /// Devices, sockets and FIFOs, which are not copied.
    pub skipped: u64,
}

/// Tells a copy on its own thread to stop at the next piece, and to clean up what it was writing.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(Error::Interrupted {
                signal: rustix::process::Signal::INT.as_raw(),
            });
        }
        Ok(())
    }
}

/// The guest's files, by blocking calls.
#[derive(Debug)]
pub struct GuestFiles<'a, H> {
    host: &'a H,
    runtime: Handle,
    cancel: Cancel,
    tally: Tally,
    /// Names of the directories that are being copied down, from the outermost on.
    held: usize,
}

impl<'a, H: Host> GuestFiles<'a, H> {
    /// For a thread beside the one that runs `runtime`.
    pub fn new(host: &'a H, runtime: Handle, cancel: Cancel) -> Self {
        GuestFiles {
            host,
            runtime,
            cancel,
            tally: Tally::default(),
            held: 0,
        }
    }

    pub fn tally(&self) -> Tally {
        self.tally
    }

    fn start(&self, request: Request) -> Result<crate::agent::Operation> {
        self.cancel.check()?;
        self.runtime.block_on(self.host.start(request))
    }

    /// Metadata of a path in the guest; `None` when nothing is there.
    fn stat(&self, path: &[u8]) -> Result<Option<Metadata>> {
        let (mut reader, _writer) = self.start(Request::Stat { path: path.to_vec() })?.split()?;
        match reader.reply()? {
            Reply::Metadata(found) => Ok(Some(found)),
            Reply::Failed(failure) if failure.kind == FailureKind::NotFound => Ok(None),
            reply => Err(failed("file cannot be looked at", path, reply)),
        }
    }

    /// An operation that answers with one word.
    fn simple(&self, what: &'static str, path: &[u8], request: Request) -> Result<()> {
        let (mut reader, _writer) = self.start(request)?.split()?;
        self.done(what, path, &mut reader)
    }

    fn done(&self, what: &'static str, path: &[u8], reader: &mut OperationReader) -> Result<()> {
        match reader.reply()? {
            Reply::Done => Ok(()),
            reply => Err(failed(what, path, reply)),
        }
    }
}

/// A reply that is a failure, or one that has no business here.
fn failed(what: &'static str, path: &[u8], reply: Reply) -> Error {
    match reply {
        Reply::Failed(failure) => Error::Guest {
            what: format!("{what} in the sandbox: {}", console::safe(path)),
            kind: failure.kind,
            message: console::safe(failure.message.as_bytes()),
        },
        _ => Error::Unexpected {
            what: "a reply to another question",
        },
    }
}

/// `directory/name` in the guest, whose separator is a slash whatever else its names hold.
fn joined(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = directory.to_vec();
    if !path.ends_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// The last component of a guest path, if it names something.
fn base_name(path: &[u8]) -> Option<&[u8]> {
    let trimmed = path.strip_suffix(b"/").unwrap_or(path);
    trimmed
        .rsplit(|byte| *byte == b'/')
        .next()
        .filter(|name| target::check_name(name).is_ok())
}

fn is_directory(found: Option<&Metadata>) -> bool {
    found.is_some_and(|found| found.kind == EntryKind::Directory)
}

fn no_such(path: &[u8]) -> Error {
    Error::Copy {
        what: "nothing there in the sandbox",
        path: Path::new(std::ffi::OsStr::from_bytes(path)).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn a_place_is_read_as_people_mean_it() {
        let place = |text: &str| Place::parse(OsStr::new(text)).unwrap();
        let guest = |path: &str| Place::Guest("box".parse().unwrap(), path.into());
        assert_eq!(place("box:/etc/passwd"), guest("/etc/passwd"));
        assert_eq!(place("box:a:b"), guest("a:b"));
        assert_eq!(place("box:"), guest("."));
        assert_eq!(place("-"), Place::Stdio);
        for here in ["plain", "./box:x", "/a:b", "../a:b"] {
            assert_eq!(place(here), Place::Host(here.into()));
        }
        assert!(Place::parse(OsStr::new("Not-A-Name:x")).is_err());
    }

    #[test]
    fn the_last_component_is_a_name_or_nothing() {
        assert_eq!(base_name(b"/a/b"), Some(&b"b"[..]));
        assert_eq!(base_name(b"b/"), Some(&b"b"[..]));
        for none in [&b"/"[..], b".", b"a/..", b""] {
            assert_eq!(base_name(none), None);
        }
    }
}
