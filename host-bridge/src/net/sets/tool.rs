//! Asking a program of this host something.
//!
//! It may be a script of anybody's: it gets no terminal and no shell, it starts in `/` so that nothing a project has
//! lying about is its configuration or its code, and it has so much time and may say so much.

use std::{
    ffi::{OsStr, OsString},
    io::Read,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};

use super::learned::Missed;
use crate::process::ProcessId;

/// Interpreters on a cold disk need seconds, and many where the processor is emulated; one that needs more waits for
/// something.
const DEADLINE: Duration = Duration::from_secs(45);
/// What a configuration is in any of their formats, many times over.
const MAX_OUTPUT: u64 = 1 << 20;

/// The programs of this host, as our environment has them.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    variables: Vec<(OsString, OsString)>,
    deadline: Duration,
}

impl Tools {
    pub(crate) fn of_this_host() -> Self {
        Tools {
            variables: std::env::vars_os().collect(),
            deadline: DEADLINE,
        }
    }

    #[cfg(test)]
    pub(super) fn with(variables: &[(&str, &OsStr)], deadline: Duration) -> Self {
        let own = |(name, value): &(&str, &OsStr)| (OsString::from(name), OsString::from(value));
        Tools {
            variables: variables.iter().map(own).collect(),
            deadline,
        }
    }

    /// The same, without a variable, in whatever case it is written.
    pub(super) fn without(&self, name: &str) -> Self {
        let mut tools = self.clone();
        tools
            .variables
            .retain(|(found, _)| !found.eq_ignore_ascii_case(name));
        tools
    }

    pub(super) fn variable(&self, name: &str) -> Option<&OsStr> {
        let (_, value) = self.variables.iter().find(|(found, _)| found == name)?;
        (!value.is_empty()).then_some(value)
    }

    /// Standard output of a program that went well.
    pub(super) fn ask(&self, program: &str, arguments: &[&str]) -> Result<String, Missed> {
        let path = self
            .find(program)
            .ok_or_else(|| Missed(format!("{program} is not installed here")))?;
        let failed = |why: &str| Missed(format!("{program} {why}"));
        let end = Instant::now() + self.deadline;
        let mut child = Asked::start(&path, arguments, &self.variables)
            .map_err(|error| failed(&format!("cannot be run: {error}")))?;
        let said = child.said(end).map_err(|why| failed(&why))?;
        String::from_utf8(said).map_err(|_| failed("said what is not text"))
    }

    fn find(&self, program: &str) -> Option<PathBuf> {
        let path = self.variable("PATH")?;
        let files = std::env::split_paths(path)
            // A relative one is somewhere else for a program that starts in `/`.
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join(program));
        files.into_iter().find(|file| is_program(file))
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Dropped, it is killed, with whatever it started.
struct Asked(Child);

impl Asked {
    fn start(path: &Path, arguments: &[&str], variables: &[(OsString, OsString)]) -> std::io::Result<Self> {
        let mut command = Command::new(path);
        command
            .args(arguments)
            .env_clear()
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0);
        command.spawn().map(Asked)
    }

    fn said(&mut self, end: Instant) -> Result<Vec<u8>, String> {
        let left = || end.saturating_duration_since(Instant::now());
        let stdout = self.0.stdout.take().ok_or("has no output")?;
        let said = reading(stdout)
            .recv_timeout(left())
            .map_err(|_| "does not answer".to_owned())?
            .map_err(|error| format!("cannot be read: {error}"))?;
        if said.len() as u64 > MAX_OUTPUT {
            return Err("says too much".to_owned());
        }
        // One that is no more to be found is one that has ended.
        if !ProcessId::of(self.0.id()).is_none_or(|id| id.wait(left())) {
            return Err("does not end".to_owned());
        }
        match self.0.wait() {
            Ok(status) if status.success() => Ok(said),
            Ok(status) => Err(format!("failed: {status}")),
            Err(error) => Err(format!("is lost: {error}")),
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // Its number is its own until it is waited for, and then its group's only while somebody is left in it.
        if let Some(group) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

/// A pipe has no deadline of its own. Whoever holds its other end is killed, and the thread ends with that.
fn reading(stdout: ChildStdout) -> mpsc::Receiver<std::io::Result<Vec<u8>>> {
    let (tell, heard) = mpsc::channel();
    std::thread::spawn(move || {
        let mut said = Vec::new();
        let read = stdout.take(MAX_OUTPUT + 1).read_to_end(&mut said);
        let _ = tell.send(read.map(|_| said));
    });
    heard
}
