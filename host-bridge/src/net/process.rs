//! One `coffer-egress` and what is said with it.
#![allow(
    unsafe_code,
    reason = "a descriptor gets its number between fork and exec, which std has no safe way for"
)]

use std::{
    fs::OpenOptions,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{fs::OpenOptionsExt, process::ExitStatusExt},
    },
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use egress_policy::control::{Config, Event, LINK_DESCRIPTOR, MAX_LINE, Request};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::mpsc,
    task::JoinHandle,
};

use crate::{Error, Result, console, error::Context};

/// Reading its policy, opening its sockets: milliseconds, or a few seconds on a machine that is busy booting others.
const READY_DEADLINE: Duration = Duration::from_secs(20);
/// It reads its standard input whatever else it does; slower is stuck.
const WRITE_DEADLINE: Duration = Duration::from_secs(5);
/// What it may need to say its last records once it is told to end.
const END_DEADLINE: Duration = Duration::from_secs(2);
/// A record with two names of 253 bytes and a rule is about a kilobyte.
const MAX_EVENT: u64 = 64 * 1024;
/// Events read ahead. Beyond that they wait in the pipe, and then it waits.
const EVENTS: usize = 64;

#[derive(Debug)]
pub(super) struct EgressProcess {
    child: Child,
    stdin: Option<ChildStdin>,
    events: mpsc::Receiver<Event>,
    reading: JoinHandle<()>,
}

impl EgressProcess {
    /// Starts it, and gives the machine's end of its link.
    pub(super) async fn start(program: &Path, log: &Path, config: &Config) -> Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, its) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .act("link between machine and network cannot be made")?;
        // Before anything is started: a policy that is too long is not the process's fault.
        let config = line_of(config).map_err(|error| failed(error.to_string(), log))?;
        let mut child = spawn(program, log, &its)?;
        // When it dies, the machine is to see the end of its link.
        drop(its);
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed("no pipe to it".to_owned(), log));
        };
        let (tell, events) = mpsc::channel(EVENTS);
        let mut process = EgressProcess {
            child,
            stdin: Some(stdin),
            events,
            reading: tokio::spawn(read(stdout, tell)),
        };
        match process.begin(&config).await {
            Ok(()) => Ok((process, ours)),
            Err(why) => {
                let how = process.kill().await;
                Err(failed(why.unwrap_or(how), log))
            }
        }
    }

    /// `None` for a reason that its exit status tells.
    async fn begin(&mut self, config: &[u8]) -> Result<(), Option<String>> {
        // One that dies before it reads says why in its events.
        let _ = self.write(config).await;
        match tokio::time::timeout(READY_DEADLINE, self.events.recv()).await {
            Ok(Some(Event::Ready)) => Ok(()),
            Ok(Some(Event::Failed { why })) => Err(Some(console::safe(why.as_bytes()))),
            Ok(Some(Event::Record(_))) => Err(Some("it said something unexpected".to_owned())),
            Ok(None) => Err(None),
            Err(_) => Err(Some(format!(
                "it was not ready after {} s",
                READY_DEADLINE.as_secs()
            ))),
        }
    }

    /// What it says next; `None` when it says nothing more. May be dropped and asked again.
    pub(super) async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    pub(super) async fn ask(&mut self, request: &Request) -> io::Result<()> {
        self.write(&line_of(request)?).await
    }

    async fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let stdin = self.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        tokio::time::timeout(WRITE_DEADLINE, stdin.write_all(line)).await?
    }

    /// Lets go of its lifeline, after which it ends by itself and [`next`](Self::next) gives the last it says.
    pub(super) fn let_go(&mut self) {
        self.stdin = None;
    }

    /// Makes sure that it is gone, and says how it went.
    pub(super) async fn kill(mut self) -> String {
        self.let_go();
        self.reading.abort();
        let status = match tokio::time::timeout(END_DEADLINE, self.child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                let _ = self.child.start_kill();
                self.child.wait().await
            }
        };
        status.map_or_else(|error| error.to_string(), how)
    }
}

fn line_of(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    match line.len() <= MAX_LINE {
        true => Ok(line),
        false => Err(io::Error::other("rules and hosts file are too long together")),
    }
}

fn how(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("it was killed by signal {signal}"),
        (None, Some(code)) => format!("it ended with exit code {code}"),
        (None, None) => "it ended".to_owned(),
    }
}

fn failed(why: String, log: &Path) -> Error {
    Error::EgressFailed {
        why,
        log: console::last_lines_quoted(log),
    }
}

async fn read(stdout: ChildStdout, tell: mpsc::Sender<Event>) {
    let mut stdout = BufReader::new(stdout);
    loop {
        let mut line = Vec::new();
        let read = (&mut stdout).take(MAX_EVENT).read_until(b'\n', &mut line).await;
        if !matches!(read, Ok(1..)) {
            return;
        }
        // One that says what it should not is not what we started: it is ended like one that is gone.
        let Ok(event) = serde_json::from_slice(&line) else {
            return;
        };
        if tell.send(event).await.is_err() {
            return;
        }
    }
}

fn spawn(program: &Path, log: &Path, link: &OwnedFd) -> Result<Child> {
    let act = "log of the network cannot be opened";
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600);
    let log = options.open(log).context(act, log)?;
    let mut command = Command::new(program);
    command
        // Nothing of our environment is for it, least of all what is secret there.
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        // A Ctrl-C on our terminal is for the command in the guest.
        .process_group(0)
        .kill_on_drop(true);
    // Until the child runs this holds the number itself if nobody else does, so that no descriptor which std needs
    // between fork and exec can have it.
    let link = rustix::io::fcntl_dupfd_cloexec(link, LINK_DESCRIPTOR).act("link cannot be duplicated")?;
    let number = link.as_raw_fd();
    let give = move || give_number(number, LINK_DESCRIPTOR);
    // SAFETY: `give` makes system calls only, which may be made between fork and exec; `link` is open until then.
    unsafe { command.pre_exec(give) };
    let child = command.spawn().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Error::NoProgram {
            path: program.to_owned(),
        },
        _ => Error::Io {
            act: "the network's process cannot be started",
            path: program.to_owned(),
            source,
        },
    });
    drop(link);
    child
}

/// In the child: `from` becomes `to`, which stays open in the program.
fn give_number(from: i32, to: i32) -> io::Result<()> {
    // SAFETY: takes numbers only; what `to` was in the child is closed, and nothing in the child knows of it.
    let same = unsafe { libc::dup2(from, to) };
    // A number that already was right keeps its flag, which closes it.
    // SAFETY: takes numbers only.
    let cleared = unsafe { libc::fcntl(to, libc::F_SETFD, 0) };
    match same < 0 || cleared < 0 {
        true => Err(io::Error::last_os_error()),
        false => Ok(()),
    }
}
