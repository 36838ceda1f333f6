//! Everything that can fail here, what to type about it, and the exit code that says so.

use std::{io, path::PathBuf, time::Duration};

use egress_policy::RuleError;
use vmm_api::ShareName;

use crate::{SessionName, console};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{act}: {}", path.display())]
    Io {
        act: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{act}")]
    System { act: &'static str, source: io::Error },
    #[error("home directory not found: HOME is not set and the user is not in /etc/passwd")]
    NoHome,
    #[error("directory belongs to somebody else: {}", path.display())]
    ForeignDirectory { path: PathBuf },
    #[error("socket path is longer than {max} bytes: {}", path.display())]
    SocketPath { path: PathBuf, max: usize },
    #[error("session name is not valid: {name:?}")]
    SessionName { name: String },
    #[error("{option} is not valid: {value:?}: {why}")]
    Value {
        option: &'static str,
        value: String,
        why: String,
    },
    #[error("{what}")]
    Usage { what: String, hint: String },

    #[error("session already runs: {name}")]
    NameInUse { name: SessionName },
    #[error("session exists already: {name}")]
    NameTaken { name: SessionName },
    #[error("no session has this name: {name}")]
    UnknownSession {
        name: SessionName,
        closest: Option<SessionName>,
    },
    #[error("session does not run: {name}")]
    NotRunning { name: SessionName, why: Option<String> },
    #[error("session is not ready yet: {name}")]
    NotReady { name: SessionName },
    #[error("session record has a format this version does not read: {}: version {found}", path.display())]
    RecordVersion { path: PathBuf, found: u64 },
    #[error("session record is damaged: {}", path.display())]
    Record {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("the state directory is busy: another coffer has held it for {} s: {}", waited.as_secs(), path.display())]
    Busy { path: PathBuf, waited: Duration },
    #[error("the session's process could not be ended: {name}: pid {pid}")]
    Unkillable { name: SessionName, pid: u32 },
    #[error("disk of a session cannot change: {name} has {has}")]
    DiskChanged { name: SessionName, has: String },

    #[error("image of a session cannot change: {name} has {has}")]
    ImageChanged { name: SessionName, has: String },
    #[error("session still runs: {name}")]
    StillRuns { name: SessionName },

    #[error(transparent)]
    Image(#[from] images::Error),
    #[error("program not found: {}", path.display())]
    NoProgram { path: PathBuf },
    #[error("mke2fs not found, which makes the sandbox's disk")]
    NoMke2fs,
    #[error("the sandbox's disk could not be made: mke2fs: {said}")]
    Mke2fs { said: String },
    #[error("no space left on the host for the sandbox's disk: {}", path.display())]
    DiskFull { path: PathBuf },

    #[error("the machine did not start: {why}")]
    MachineFailed { why: String },
    #[error("the machine's process said something unexpected: {line:?}")]
    MachineSpoke { line: String },
    #[error("the machine's control socket failed: {why}")]
    Control { why: String },
    #[error("the sandbox ended: {why}")]
    Ended { why: String, log: String },
    #[error("the sandbox's kernel panicked: {line}")]
    Panicked { line: String },
    #[error("the sandbox was not ready after {} s", waited.as_secs())]
    BootDeadline { waited: Duration, log: String },
    #[error("the sandbox could not set itself up: {what:?}")]
    SetupFailed { what: String },
    #[error(
        "the sandbox speaks agent protocol {found}, this coffer {}",
        agent_protocol::VERSION
    )]
    AgentVersion { found: u16 },
    #[error("the sandbox's agent does not answer: {what}")]
    AgentSilent { what: &'static str },
    #[error("the sandbox's agent is gone")]
    AgentGone,
    #[error("the sandbox broke the protocol")]
    Protocol(#[from] agent_protocol::FrameError),
    #[error("the sandbox broke the protocol: {what}")]
    Unexpected { what: &'static str },
    #[error("request is too long for the sandbox: arguments and environment together")]
    TooLong(#[source] agent_protocol::FrameError),
    #[error("{what}: {message}")]
    Guest {
        what: String,
        kind: agent_protocol::FailureKind,
        /// Guest text, already made safe to print.
        message: String,
    },

    #[error("the session's keeper speaks another version: {found}, this coffer {ours}")]
    KeeperVersion { found: u32, ours: u32 },
    /// What another process of ours found, as it said it.
    #[error("{what}")]
    Reported {
        what: String,
        hint: Option<String>,
        code: u8,
    },
    #[error("the session's keeper does not answer: {name}")]
    KeeperSilent { name: SessionName },
    #[error("session belongs to a coffer run: {name}: pid {pid}")]
    NotKept { name: SessionName, pid: u32 },
    #[error("the session's keeper is gone: {name}")]
    KeeperGone { name: SessionName },

    #[error("{what}: {}", path.display())]
    Folder {
        what: &'static str,
        path: PathBuf,
        hint: String,
    },
    #[error("folder cannot be shared: {}", path.display())]
    Unshareable {
        path: PathBuf,
        hint: String,
        source: io::Error,
    },
    #[error("too many folders in one session: {found}, at most {max} beside its own two")]
    TooManyFolders { found: usize, max: usize },
    #[error("no folder of {session} has this name: {name}")]
    UnknownFolder {
        session: SessionName,
        name: ShareName,
        there: String,
    },
    #[error("folder is just being shared or taken away: {name}")]
    FolderChanging { name: ShareName },
    #[error("folder cannot be taken away: {name}: {holders}")]
    FolderBusy {
        name: ShareName,
        /// Guest text, already made safe to print.
        holders: String,
    },
    #[error("the machine refused a folder: {name}: {why}")]
    ShareRefused { name: ShareName, why: String },
    #[error("the sandbox does not let go of a folder: {name}: {why}")]
    FolderStuck { name: ShareName, why: String },

    #[error("{option} is not valid: {error}")]
    Rule { option: &'static str, error: RuleError },
    #[error("set of rules: {}:{line}: {what}", path.display())]
    SetLine {
        path: PathBuf,
        line: usize,
        what: String,
        hint: Option<String>,
    },
    #[error("no set of rules has this name: {name}")]
    UnknownSet {
        name: String,
        path: PathBuf,
        there: String,
    },
    #[error("too many rules in one session: {found}, at most {max}")]
    TooManyRules { found: usize, max: usize },
    #[error("the session's rules are too long together: {bytes} bytes, at most {max}")]
    PolicyTooLong { bytes: usize, max: usize },
    #[error("{name}: {why}")]
    SetUnlearned { name: String, why: String },
    #[error("port cannot be published: {place}")]
    Publish {
        place: std::net::SocketAddr,
        source: io::Error,
    },
    #[error("no rule of the session is this: {text}")]
    UnknownRule { text: String, there: String },
    /// Its value may be a secret.
    #[error("{variable} cannot be used: {why}")]
    ProxyVariable {
        variable: &'static str,
        why: &'static str,
    },
    #[error("the session's network did not start: coffer-egress: {why}")]
    EgressFailed { why: String, log: String },
    #[error("the machine refused its network: {why}")]
    NetRefused { why: String },
    #[error("nothing is known of the network of any session")]
    NoNetwork,
    #[error("nothing is known of the network of this session: {name}")]
    NoNetworkOf { name: SessionName },

    #[error("name from the sandbox cannot be a file here: {name:?}")]
    HostileName { name: String },
    #[error("{what}: {}", path.display())]
    Copy { what: &'static str, path: PathBuf },
    #[error("interrupted")]
    Interrupted { signal: i32 },
}

/// Exit codes of our own; everything else is the command's.
pub(crate) mod code {
    /// What was typed makes no sense.
    pub(crate) const USAGE: u8 = 2;
    /// The time limit of `--timeout` ran out, as timeout(1) says it.
    pub(crate) const TIMED_OUT: u8 = 124;
    /// Something of ours failed, so nothing is known of the command.
    pub(crate) const OURS: u8 = 125;
    pub(crate) const NOT_EXECUTABLE: u8 = 126;
    pub(crate) const NOT_FOUND: u8 = 127;
    /// Added to the number of the signal that ended a command.
    pub(crate) const SIGNAL_BASE: u8 = 128;
}

impl Error {
    pub fn code(&self) -> u8 {
        match self {
            Error::SessionName { .. }
            | Error::Value { .. }
            | Error::Usage { .. }
            | Error::Rule { .. }
            | Error::SetLine { .. }
            | Error::UnknownSet { .. }
            | Error::UnknownRule { .. }
            | Error::ProxyVariable { .. }
            | Error::Image(
                images::Error::BadName { .. }
                | images::Error::BadSuite { .. }
                | images::Error::BadPackage { .. },
            ) => code::USAGE,
            Error::Interrupted { signal } => {
                code::SIGNAL_BASE.wrapping_add(u8::try_from(*signal & 0x7f).unwrap_or(0))
            }
            Error::Reported { code, .. } => *code,
            _ => code::OURS,
        }
    }

    /// What to type or to look at next.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Error::Io { act, source, .. } => return io_hint(act, source),
            Error::ForeignDirectory { .. } => {
                "set XDG_RUNTIME_DIR and XDG_STATE_HOME to directories of your own"
            }
            Error::SocketPath { .. } => "set XDG_RUNTIME_DIR to a shorter path",
            Error::SessionName { .. } => {
                "lower-case letters, digits and dashes, at most 40, a letter or digit first"
            }
            Error::Usage { hint, .. } => hint,
            Error::NameInUse { name } => {
                return Some(format!("coffer exec {name} -- CMD, or coffer stop {name}"));
            }
            Error::NameTaken { name } => {
                return Some(format!(
                    "coffer up {name} starts it again, coffer rm {name} removes it"
                ));
            }
            Error::UnknownSession {
                closest: Some(name), ..
            } => return Some(format!("did you mean {name}?")),
            Error::UnknownSession { .. } => "coffer ls shows the sessions there are",
            Error::NotRunning { name, why: Some(why) } => {
                return Some(format!("it ended: {why}; coffer up {name} starts it again"));
            }
            Error::NotRunning { name, .. } => return Some(format!("coffer up {name} starts it again")),
            Error::NotReady { name } => return Some(format!("coffer logs {name} shows what it does")),
            Error::Record { .. } | Error::RecordVersion { .. } => "coffer rm -f removes the session",
            Error::Image(error) => return error.hint(),
            Error::NoProgram { .. } => "it must lie beside coffer: build or install both together",
            Error::NoMke2fs => "apt install e2fsprogs",
            Error::DiskFull { .. } => "free some space, or point XDG_STATE_HOME to a larger disk",
            Error::MachineFailed { .. } => "coffer doctor says what this host can do",
            Error::DiskChanged { .. } => "leave --disk away, or coffer rm the session first",
            Error::ImageChanged { .. } => "leave --image away, or take another name",
            Error::StillRuns { name } => {
                return Some(format!("coffer stop {name} first, or coffer rm -f {name}"));
            }
            Error::BootDeadline { log, .. } | Error::Ended { log, .. } if !log.is_empty() => {
                return Some(format!("the last it said:{log}"));
            }
            Error::BootDeadline { .. } => {
                "coffer doctor says what this host can do; --boot-timeout waits longer"
            }
            Error::KeeperSilent { name } => {
                return Some(format!("coffer rm -f {name} ends it and removes it"));
            }
            Error::NotKept { .. } => "coffer up makes a session that can be worked in from outside",
            Error::Folder { hint, .. } | Error::Unshareable { hint, .. } if hint.is_empty() => return None,
            Error::Folder { hint, .. } | Error::Unshareable { hint, .. } => hint,
            Error::TooManyFolders { .. } => "share a folder above several of them",
            Error::UnknownFolder { there, .. } if there.is_empty() => return None,
            Error::UnknownFolder { there, .. } => return Some(format!("there are: {there}")),
            Error::FolderBusy { .. } => "--wait waits for them, --cut takes it away now",
            Error::FolderStuck { .. } => "--cut takes it away whatever the sandbox says",
            Error::Rule { error, .. } => {
                return Some(match &error.meant {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => RULE_FORM.to_owned(),
                });
            }
            Error::SetLine { hint, .. } => return hint.clone(),
            Error::UnknownSet { path, there, .. } => {
                let path = path.display();
                return Some(format!(
                    "there are: {there}; a new one is a file with a rule a line: {path}"
                ));
            }
            Error::Publish { source, .. } => match source.kind() {
                io::ErrorKind::AddrInUse => {
                    "another program has it; --publish 0:GUEST takes one that is free"
                }
                io::ErrorKind::PermissionDenied => "ports below 1024 are often for root only",
                io::ErrorKind::AddrNotAvailable => "no network interface of this host has that address",
                _ => return None,
            },
            Error::SetUnlearned { name, .. } => {
                let name = name.trim_start_matches('@');
                return Some(format!(
                    "a set can be a file with a rule a line: sets/{name} beside coffer's configuration"
                ));
            }
            Error::TooManyRules { .. } | Error::PolicyTooLong { .. } => {
                "a rule such as *.example.com stands for many"
            }
            Error::UnknownRule { there, .. } if there.is_empty() => "it has no rules",
            Error::UnknownRule { there, .. } => return Some(format!("there are: {there}")),
            Error::ProxyVariable { variable, .. } => {
                return Some(format!("env -u {variable} coffer … leaves it out"));
            }
            Error::EgressFailed { log, .. } if !log.is_empty() => {
                return Some(format!("the last it said:{log}"));
            }
            Error::NoNetwork => "coffer run and coffer up make sessions",
            Error::NoNetworkOf { name } => {
                return Some(format!("records begin when it starts: coffer up {name}"));
            }
            Error::TooLong(_) => "send large input with -i or coffer cp",
            Error::AgentVersion { .. } => {
                "coffer image build --if-stale puts this version's agent into the image"
            }
            Error::KeeperVersion { .. } => "coffer stop the session and start it again with this version",
            Error::Reported { hint, .. } => return hint.clone(),
            Error::Guest {
                kind: agent_protocol::FailureKind::Exhausted,
                ..
            } => "the sandbox is out of room: a larger --memory or --disk",
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// The whole error on one line: what failed, and each cause behind it. A path in it may have a name that a
    /// guest or an archive chose.
    pub fn line(&self) -> String {
        let mut line = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            line.push_str(": ");
            line.push_str(&error.to_string());
            cause = error.source();
        }
        console::one_line(&line)
    }
}

const RULE_FORM: &str =
    "a rule is example.com, *.example.com, 192.0.2.0/24 or @set, and may end in :PORT or :FIRST-LAST";

fn io_hint(act: &str, source: &io::Error) -> Option<String> {
    match source.kind() {
        io::ErrorKind::StorageFull => Some("free some space on that disk".to_owned()),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            if act.starts_with("directory") =>
        {
            Some(
                "XDG_STATE_HOME, XDG_DATA_HOME, XDG_CACHE_HOME and XDG_RUNTIME_DIR choose other directories"
                    .to_owned(),
            )
        }
        _ => None,
    }
}

/// Names the act and the path of an I/O error.
pub(crate) trait Context<T> {
    fn context(self, act: &'static str, path: impl Into<PathBuf>) -> Result<T>;
    fn act(self, act: &'static str) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, act: &'static str, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|source| Error::Io {
            act,
            path: path.into(),
            source: source.into(),
        })
    }

    fn act(self, act: &'static str) -> Result<T> {
        self.map_err(|source| Error::System {
            act,
            source: source.into(),
        })
    }
}
