//! `coffer doctor`: what this host can do, found out by doing it.

mod guest;
mod host;
mod kernel;
mod kvm;

use std::io;

use serde::Serialize;

use crate::Paths;

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub what: &'static str,
    pub level: Level,
    pub found: String,
    /// What to type; empty when there is nothing to do.
    pub hint: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    Ok,
    /// A session starts without it.
    Weak,
    /// No session starts without it.
    Missing,
}

impl Level {
    pub fn word(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Weak => "weak",
            Level::Missing => "missing",
        }
    }
}

impl Check {
    fn new(what: &'static str, level: Level, found: String, hint: &str) -> Self {
        Check {
            what,
            level,
            found,
            hint: hint.to_owned(),
        }
    }
}

/// Everything, in the order in which it matters.
pub fn examine(paths: &Paths) -> Vec<Check> {
    vec![
        kvm::check(),
        host::programs(),
        host::image(paths),
        host::mke2fs(),
        host::state(paths),
        host::memory(),
        host::disk(paths),
        kernel::beneath(),
        kernel::namespaces(),
        kernel::landlock(),
        kernel::seccomp(),
        host::mmdebstrap(),
    ]
}

/// Only whether guests run here.
pub fn probe() -> Check {
    kvm::check()
}

/// The parts that may hang, die or stay locked in, each in a process of its own.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Trial {
    Kvm,
    Namespaces,
}

impl Trial {
    pub fn run(self) -> io::Result<()> {
        match self {
            Trial::Kvm => guest::run_here(),
            Trial::Namespaces => kernel::try_namespaces(),
        }
    }
}
