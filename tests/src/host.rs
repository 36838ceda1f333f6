use std::{
    ffi::{OsStr, OsString},
    fs,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tempfile::TempDir;

use crate::{Run, run::ended_before};

/// Memory, where there is such a directory: what is tested is not the host's disk.
const FAST: &str = "/dev/shm";
/// After its last word a process has only to exit.
const EXIT_DEADLINE: Duration = Duration::from_secs(10);

/// A host with no sessions. When the last of its clones goes, there must be none again: no process, no
/// directory, no socket.
#[derive(Clone, Debug)]
pub struct Host(Arc<Directories>);

#[derive(Debug)]
struct Directories {
    root: TempDir,
}

impl Host {
    #[allow(clippy::new_without_default, reason = "it makes directories")]
    pub fn new() -> Self {
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("coffer-test-");
        let root = builder.tempdir_in(FAST).or_else(|_| builder.tempdir()).unwrap();
        for name in ["state", "run"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        Host(Arc::new(Directories { root }))
    }

    pub fn root(&self) -> &Path {
        self.0.root.path()
    }

    /// A directory to share: made, if it is not there.
    pub fn folder(&self, path: &str) -> PathBuf {
        let folder = self.root().join("folders").join(path);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// The directory of a session.
    pub fn directory(&self, session: &str) -> PathBuf {
        self.root().join("state/cofferdam/sessions").join(session)
    }

    /// `coffer` and these words.
    pub fn coffer(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Run {
        self.program("coffer", words)
    }

    /// One of our programs and these words, with the state and the sockets of this host.
    pub fn program(&self, name: &str, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Run {
        let program = binaries().join(name).into_os_string();
        let words = words.into_iter().map(|word| word.as_ref().to_owned());
        Run::new(std::iter::once(program).chain(words))
            .env("XDG_STATE_HOME", self.root().join("state"))
            .env("XDG_RUNTIME_DIR", self.root().join("run"))
    }

    /// A session that is removed when the value goes.
    #[track_caller]
    pub fn up(&self, name: &str, options: &[&str]) -> Session {
        self.up_with(name, options, &[])
    }

    /// The same, with variables.
    #[track_caller]
    pub fn up_with(&self, name: &str, options: &[&str], env: &[(&str, &OsStr)]) -> Session {
        let words = ["up", name].into_iter().chain(options.iter().copied());
        let run = env
            .iter()
            .fold(self.coffer(words), |run, (key, value)| run.env(key, value));
        run.end().says(name);
        Session {
            host: self.clone(),
            name: name.to_owned(),
        }
    }
}

fn binaries() -> PathBuf {
    let directory = std::env::var_os("COFFER_BINARIES");
    directory
        .expect("COFFER_BINARIES names no directory: scripts/test lab sets it")
        .into()
}

#[derive(Debug)]
pub struct Session {
    host: Host,
    name: String,
}

impl Session {
    pub fn host(&self) -> &Host {
        &self.host
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// `coffer exec` with options for the command.
    pub fn exec<W: AsRef<OsStr>>(&self, options: &[&str], command: impl IntoIterator<Item = W>) -> Run {
        let mut words: Vec<OsString> = ["exec", self.name()].map(OsString::from).into();
        words.extend(options.iter().map(OsString::from));
        words.push("--".into());
        words.extend(command.into_iter().map(|word| word.as_ref().to_owned()));
        self.host.coffer(words)
    }

    /// A line for the guest's shell.
    pub fn sh(&self, line: &str) -> Run {
        self.exec(&[], ["sh", "-c", line])
    }

    /// The same, as the guest's root.
    pub fn root(&self, line: &str) -> Run {
        self.exec(&["--user", "root"], ["sh", "-c", line])
    }

    /// A field of `coffer inspect`, as it is printed.
    #[track_caller]
    pub fn inspect(&self, field: &str) -> String {
        let said = self.host.coffer(["inspect", self.name()]).end().code(0);
        let start = format!("{field}: ");
        let found = said
            .text()
            .lines()
            .find_map(|line| line.strip_prefix(&start).map(str::to_owned));
        found.unwrap_or_else(|| panic!("no {field}\n{said}"))
    }

    /// The child of its keeper that is a `coffer-egress`.
    pub fn egress(&self) -> Option<Pid> {
        let keeper = self.number("pid");
        let all = fs::read_dir("/proc").unwrap().flatten();
        let mut ids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let found = ids.find(|id| {
            let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            status.contains("Name:\tcoffer-egress\n") && status.contains(&format!("PPid:\t{keeper}\n"))
        });
        found.and_then(Pid::from_raw)
    }

    #[track_caller]
    pub fn number(&self, field: &str) -> u64 {
        let text = self.inspect(field);
        text.parse()
            .unwrap_or_else(|_| panic!("{field} is no number: {text}"))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let ended = self.host.coffer(["rm", "--force", &self.name]).end();
        assert!(ended.code == 0 || thread::panicking(), "{ended}");
    }
}

impl Drop for Directories {
    fn drop(&mut self) {
        let deadline = Instant::now() + EXIT_DEADLINE;
        let mut left = Vec::new();
        for (what, handle) in processes_with(self.root.path()) {
            if !ended_before(&handle, deadline) {
                left.push(what);
                let _ = pidfd_send_signal(&handle, Signal::KILL);
                ended_before(&handle, Instant::now() + EXIT_DEADLINE);
            }
        }
        for place in ["state/cofferdam/sessions", "run/cofferdam"] {
            let entries = fs::read_dir(self.root.path().join(place))
                .into_iter()
                .flatten()
                .flatten();
            left.extend(
                entries
                    .map(|entry| entry.path().display().to_string())
                    .filter(|path| !path.ends_with("/.lock")),
            );
        }
        assert!(left.is_empty() || thread::panicking(), "left behind: {left:?}");
    }
}

/// Processes whose environment names `root`: all that were ever started for this host.
fn processes_with(root: &Path) -> Vec<(String, OwnedFd)> {
    let ids = fs::read_dir("/proc").unwrap().flatten();
    let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let found = ids.filter_map(|id: i32| {
        let handle = pidfd_open(Pid::from_raw(id)?, PidfdFlags::empty()).ok()?;
        let environment = fs::read(format!("/proc/{id}/environ")).ok()?;
        let root = root.as_os_str().as_bytes();
        environment
            .windows(root.len())
            .any(|window| window == root)
            .then_some(())?;
        let words = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        Some((
            format!(
                "process {id}: {}",
                String::from_utf8_lossy(&words).replace('\0', " ")
            ),
            handle,
        ))
    });
    found.collect()
}
