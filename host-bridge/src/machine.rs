//! The machine's process: `coffer-vmm`, told its configuration on a pipe that is also its lifeline.
//!
//! The pipe is held here, in the owner. When the owner goes, however it goes, the kernel closes the pipe
//! and the machine ends by itself.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{Notify, oneshot, watch},
    task::JoinHandle,
};
use vmm_api::{Event, ExitReason, MachineConfig, Request, Response, ShareName, ShareStatus};

use crate::{Error, Result, console, error::Context, passing::write_with, process::ProcessId, share::Opened};

/// The control socket answers between two instructions of its own; slower is stuck.
const CONTROL_DEADLINE: Duration = Duration::from_secs(5);

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It never ran.
    Failed {
        why: String,
    },
    Exited(ExitReason),
    /// Its process went without a word.
    Died {
        how: String,
    },
}

#[derive(Debug)]
pub struct Machine {
    id: Option<ProcessId>,
    control: PathBuf,
    started: watch::Receiver<bool>,
    end: watch::Receiver<Option<End>>,
    kill: Arc<Notify>,
    watcher: JoinHandle<()>,
    _lifeline: ChildStdin,
}

impl Machine {
    /// Starts the process and hands it its configuration. That it runs, or why not, comes as its [`End`].
    /// When its process is asked to end, by SIGTERM, `asked` is told how long the guest has.
    pub async fn start(
        program: &Path,
        config: &MachineConfig,
        log: &Path,
        asked: oneshot::Sender<Duration>,
    ) -> Result<Self> {
        let mut child = command(program, log)?
            .spawn()
            .map_err(|source| match source.kind() {
                std::io::ErrorKind::NotFound => Error::NoProgram {
                    path: program.to_owned(),
                },
                _ => Error::Io {
                    act: "the machine's process cannot be started",
                    path: program.to_owned(),
                    source,
                },
            })?;
        let id = child.id().and_then(ProcessId::of);
        let (Some(mut lifeline), Some(events)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::AgentSilent {
                what: "no pipe to the machine's process",
            });
        };
        let mut line = serde_json::to_vec(config).map_err(|source| Error::Record {
            path: program.to_owned(),
            source,
        })?;
        line.push(b'\n');
        // A process that dies before it reads says why in its events.
        let _ = lifeline.write_all(&line).await;
        let (ended, end) = watch::channel(None);
        let kill = Arc::new(Notify::new());
        let (says_started, started) = watch::channel(false);
        let events = Events {
            lines: BufReader::new(events),
            started: says_started,
            asked: Some(asked),
        };
        let watcher = tokio::spawn(watch_over(child, events, Arc::clone(&kill), ended));
        Ok(Machine {
            id,
            control: config.control.clone(),
            started,
            end,
            kill,
            watcher,
            _lifeline: lifeline,
        })
    }

    pub fn id(&self) -> Option<ProcessId> {
        self.id
    }

    /// Waits until its control socket is there; false when the machine ended before.
    pub async fn started(&self) -> bool {
        self.started.clone().wait_for(|started| *started).await.is_ok()
    }

    /// Waits for the end. Any number may wait.
    pub async fn ended(&self) -> End {
        let mut end = self.end.clone();
        let ended = end.wait_for(Option::is_some).await;
        let gone = || End::Died {
            how: "its watcher is gone".to_owned(),
        };
        ended.ok().and_then(|end| end.clone()).unwrap_or_else(gone)
    }

    pub async fn control(&self, request: &Request) -> Result<Response> {
        Control::connect(&self.control).await?.ask(request, None).await
    }

    /// Puts folders into the machine, each with its open descriptor, up to the first it refuses.
    pub(crate) async fn share(&self, folders: &[Opened]) -> Result<()> {
        let mut control = Control::connect(&self.control).await?;
        for Opened { share, folder } in folders {
            let request = Request::ShareAdd { share: share.clone() };
            let answer = control.ask(&request, Some(folder.as_fd())).await?;
            done(&share.name, answer)?;
        }
        Ok(())
    }

    pub async fn unshare(&self, name: &ShareName) -> Result<()> {
        let request = Request::ShareRemove { name: name.clone() };
        done(name, self.control(&request).await?)
    }

    pub async fn shares(&self) -> Result<Vec<ShareStatus>> {
        match self.control(&Request::Shares).await? {
            Response::Shares { shares } => Ok(shares),
            Response::Refused { why } => Err(Error::Control {
                why: console::safe(why.as_bytes()),
            }),
            _ => Err(unexpected()),
        }
    }

    /// Ends the machine with no word to the guest, and waits until it is gone.
    pub async fn kill(&self) -> End {
        self.kill.notify_one();
        self.ended().await
    }
}

/// Gives a machine its link to a `coffer-egress`, in the place of the one before.
pub(crate) async fn give_net_link(control: &Path, link: BorrowedFd<'_>) -> Result<()> {
    let mut control = Control::connect(control).await?;
    match control.ask(&Request::NetLink, Some(link)).await? {
        Response::Done => Ok(()),
        Response::Refused { why } => Err(Error::NetRefused {
            why: console::safe(why.as_bytes()),
        }),
        _ => Err(unexpected()),
    }
}

fn done(name: &ShareName, answer: Response) -> Result<()> {
    match answer {
        Response::Done => Ok(()),
        Response::Refused { why } => Err(Error::ShareRefused {
            name: name.clone(),
            why: console::safe(why.as_bytes()),
        }),
        _ => Err(unexpected()),
    }
}

fn unexpected() -> Error {
    Error::Control {
        why: "it answered something else".to_owned(),
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The task owns the child, and a child dropped is a child killed.
        self.watcher.abort();
    }
}

fn command(program: &Path, log: &Path) -> Result<Command> {
    let log: File = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(log)
        .context("log of the machine cannot be opened", log)?;
    let mut command = Command::new(program);
    command
        .args(["--config", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        // A Ctrl-C on our terminal is for the command in the guest, not for the machine.
        .process_group(0)
        .kill_on_drop(true);
    Ok(command)
}

async fn watch_over(
    mut child: Child,
    mut events: Events,
    kill: Arc<Notify>,
    ended: watch::Sender<Option<End>>,
) {
    let said = tokio::select! {
        said = events.last_word() => said,
        () = kill.notified() => {
            let _ = child.start_kill();
            None
        }
    };
    // A process that closed its output and stays is no machine of ours.
    let status = match tokio::time::timeout(CONTROL_DEADLINE, child.wait()).await {
        Ok(status) => status,
        Err(_) => {
            let _ = child.start_kill();
            child.wait().await
        }
    };
    let end = said.unwrap_or_else(|| End::Died {
        how: status.map_or_else(|e| e.to_string(), how),
    });
    ended.send_replace(Some(end));
}

#[derive(Debug)]
struct Events {
    lines: BufReader<ChildStdout>,
    started: watch::Sender<bool>,
    asked: Option<oneshot::Sender<Duration>>,
}

impl Events {
    /// Reads events until the one that ends it all, or until there are no more.
    async fn last_word(&mut self) -> Option<End> {
        loop {
            let line = match read_line(&mut self.lines).await {
                Ok(Some(line)) => line,
                Ok(None) => return None,
                Err(error) => return Some(End::Died { how: error.line() }),
            };
            match serde_json::from_str(&line) {
                Ok(Event::Started { .. }) => drop(self.started.send_replace(true)),
                Ok(Event::ShutdownRequested { deadline_ms }) => self.pass_on(deadline_ms),
                Ok(Event::Exited { reason }) => return Some(End::Exited(reason)),
                Ok(Event::Failed { why }) => return Some(End::Failed { why }),
                Err(_) => {
                    return Some(End::Died {
                        how: Error::MachineSpoke { line }.line(),
                    });
                }
            }
        }
    }

    fn pass_on(&mut self, deadline_ms: u64) {
        if let Some(asked) = self.asked.take() {
            // Nobody listens any more when the session is ending already.
            let _ = asked.send(Duration::from_millis(deadline_ms));
        }
    }
}

fn how(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("the machine's process was killed by signal {signal}"),
        (None, Some(code)) => format!("the machine's process ended with exit code {code}"),
        (None, None) => "the machine's process ended".to_owned(),
    }
}

/// A connection to a machine's control socket.
#[derive(Debug)]
struct Control(BufReader<UnixStream>);

impl Control {
    async fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|error| failed(&error))?;
        Ok(Control(BufReader::new(stream)))
    }

    /// One request, with the descriptor that goes beside it, and the answer.
    async fn ask(&mut self, request: &Request, beside: Option<BorrowedFd<'_>>) -> Result<Response> {
        let late = |_| Error::Control {
            why: format!("no answer in {} s", CONTROL_DEADLINE.as_secs()),
        };
        tokio::time::timeout(CONTROL_DEADLINE, self.exchange(request, beside))
            .await
            .map_err(late)?
    }

    async fn exchange(&mut self, request: &Request, beside: Option<BorrowedFd<'_>>) -> Result<Response> {
        let mut line = serde_json::to_vec(request).map_err(|error| failed(&error.into()))?;
        line.push(b'\n');
        if line.len() > vmm_api::MAX_LINE {
            return Err(Error::Control {
                why: format!("a request of {} bytes is too long for it", line.len()),
            });
        }
        let stream = self.0.get_mut();
        match beside {
            Some(descriptor) => write_with(stream, &line, descriptor).await,
            None => stream.write_all(&line).await,
        }
        .map_err(|error| failed(&error))?;
        let answer = read_line(&mut self.0).await?.ok_or_else(|| Error::Control {
            why: "it closed".to_owned(),
        })?;
        serde_json::from_str(&answer).map_err(|error| failed(&error.into()))
    }
}

fn failed(error: &std::io::Error) -> Error {
    Error::Control {
        why: error.to_string(),
    }
}

async fn read_line(from: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<String>> {
    let mut line = Vec::new();
    let read = from
        .take(vmm_api::MAX_LINE as u64)
        .read_until(b'\n', &mut line)
        .await;
    read.act("the machine's process cannot be read")?;
    if line.is_empty() {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&line);
    match text.strip_suffix('\n') {
        Some(text) => Ok(Some(text.to_owned())),
        None => Err(Error::MachineSpoke {
            line: console::safe(&line),
        }),
    }
}
