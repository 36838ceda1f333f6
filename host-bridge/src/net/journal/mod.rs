//! What happened on a session's network, kept after the session: a file of JSON lines for each of its runs.
//!
//! `net/NAME-STARTMS.jsonl` in the state directory. The first line says whose it is; then each policy that came into
//! force, and each record of `coffer-egress` with who in the guest it was. Whoever writes holds a lock on the file, so
//! that "does it still run" is a question to the kernel.
//!
//! A file that is full is kept beside the next one, and the one before it goes. So that nothing a guest does can push
//! out what it did, each later file begins with what all before it comes to ([`total`]).

mod file;
mod read;
pub(crate) mod total;
mod write;

use std::path::{Path, PathBuf};

use agent_protocol::{MAX_OWNER_ARGUMENTS, PortOwner};
use egress_policy::{
    EgressPolicy,
    control::{Record, Spent},
};
use serde::{Deserialize, Serialize};

use crate::{SessionName, console};
use total::Total;

pub(crate) use read::{Run, follow, parse, run_of, runs};
pub(crate) use write::{Journal, Recorder};

/// A reader refuses a file of any later version.
pub(crate) const VERSION: u32 = 2;
/// Its later files did not say what came before them.
const FIRST_VERSION: u32 = 1;

/// One line. Which kind it is, its fields say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Line {
    Start(Start),
    Policy(Policy),
    Note(Note),
    Entry(Box<Entry>),
    Total(Box<Total>),
}

/// The first line of a file, and of the one that takes its place when it is full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) version: u32,
    pub(crate) session: SessionName,
    pub(crate) started_unix_ms: u64,
    /// Of the session's budgets, when this run began.
    #[serde(default)]
    pub(crate) spent: Spent,
    /// Which file of the run this is, from 1.
    #[serde(default)]
    pub(crate) file: u32,
    /// Lines that follow and say again what files before this said. Who has read the one before has read them.
    #[serde(default)]
    pub(crate) repeats: usize,
}

/// In force from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Policy {
    pub(crate) unix_ms: u64,
    pub(crate) policy: EgressPolicy,
}

/// What a person should know of the network itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) unix_ms: u64,
    pub(crate) note: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    #[serde(flatten)]
    pub(crate) record: Record,
    /// Which `coffer-egress` of this run it was, from 1: the numbers of its flows are its own.
    pub(crate) link: u32,
    /// Untrusted: what the guest said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) by: Option<By>,
}

/// Who in the guest it was. Safe to print: cleaned before it is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct By {
    /// The process. Where it was gone before it could be looked up, the command is what was last started from here.
    pub(crate) pid: Option<u32>,
    pub(crate) command: String,
}

impl By {
    /// In parentheses where it is only likely.
    pub(crate) fn text(&self) -> String {
        let command = console::one_line(&self.command);
        match self.pid {
            Some(pid) if command.is_empty() => format!("pid {pid}"),
            Some(_) => command,
            None => format!("({command})"),
        }
    }

    pub(crate) fn likely(argv: &[Vec<u8>]) -> By {
        let mut command = argv.join(&b' ');
        command.truncate(MAX_OWNER_ARGUMENTS);
        By {
            pid: None,
            command: console::safe(&command),
        }
    }
}

impl From<PortOwner> for By {
    fn from(owner: PortOwner) -> By {
        By {
            pid: Some(owner.pid),
            command: console::safe(&owner.argv.join(&b' ')),
        }
    }
}

/// The files of one run: the one that is written, and the one before it that was full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    directory: PathBuf,
    stem: String,
}

impl Place {
    pub(crate) fn new(directory: &Path, session: &SessionName, started_unix_ms: u64) -> Self {
        Place {
            directory: directory.to_owned(),
            stem: format!("{session}-{started_unix_ms}"),
        }
    }

    pub(crate) fn current(&self) -> PathBuf {
        self.directory.join(format!("{}.jsonl", self.stem))
    }

    /// Its name ends otherwise, so that nobody takes it for a run of its own.
    pub(crate) fn full(&self) -> PathBuf {
        self.directory.join(format!("{}.jsonl.full", self.stem))
    }
}

#[cfg(test)]
mod tests;
