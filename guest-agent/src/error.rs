use std::{io, path::PathBuf};

/// Why the machine cannot become a session.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot mount {what} at {at}")]
    Mount {
        what: String,
        at: String,
        source: io::Error,
    },
    #[error("cannot load kernel module {name}")]
    Module { name: String, source: io::Error },
    #[error("disk {device} did not appear within {seconds} s")]
    NoDisk { device: String, seconds: u64 },
    #[error("cannot prepare {}", path.display())]
    Prepare { path: PathBuf, source: io::Error },
    #[error("cannot enter the root file system")]
    EnterRoot(#[source] io::Error),
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    #[error("session name {name:?} is not a host name")]
    SessionName { name: String },
    #[error("cannot set the host name {name:?}")]
    HostName { name: String, source: io::Error },
    #[error("cannot set the clock")]
    Clock(#[source] io::Error),
    #[error("cannot mount the host's folders at {}: {missing}", at.display())]
    NoFolders {
        at: PathBuf,
        missing: &'static str,
        source: io::Error,
    },
    #[error("{what}")]
    Folder { what: String },
}
