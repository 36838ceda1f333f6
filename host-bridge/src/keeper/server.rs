use std::{
    io::{self, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use agent_protocol::{Limit, Request, encode};
use rustix::net::{RecvFlags, recv, sockopt::socket_peercred};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncWriteExt, Interest},
    net::{UnixListener, UnixStream},
    task::JoinSet,
};

use super::wire::{Inspection, SOCKET, ToClient, ToKeeper, VERSION};
use crate::{
    Error, Host, Paths, Result, Session, SessionName,
    agent::{Operation, frames::read_message},
    error::Context,
    passing::write_with,
    session::{Plan, STOP_GRACE},
    signals::{Arrival, Signals},
    state::{SessionDir, Table, keeper_log_of},
};

/// A client says hello at once, or it is none of ours.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);

/// What `coffer up` tells the keeper, on its standard input.
#[derive(Debug, Serialize, Deserialize)]
pub struct Spec {
    pub name: Option<SessionName>,
    /// The session is there and stopped; its disk is used again.
    pub again: bool,
    pub plan: Plan,
}

/// The one line the keeper answers with, on its standard output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    Ready {
        name: SessionName,
    },
    Failed {
        what: String,
        hint: Option<String>,
        code: u8,
    },
}

/// The keeper's whole life, in a process of its own.
pub async fn keep(paths: &Paths, spec: Spec) -> Result<()> {
    detach()?;
    let (session, listener) = match start(paths, spec).await {
        Ok(started) => started,
        Err(error) => return report(&Report::from(&error)),
    };
    report(&Report::Ready {
        name: session.directory().name().clone(),
    })?;
    let session = Arc::new(session);
    let stopping = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    let end = tokio::select! {
        end = session.ended() => end,
        error = serve(&listener, &session, &stopping, &mut clients) => error,
        error = stop_on_signal(&session, &stopping) => error,
    };
    let why = if stopping.load(Ordering::Relaxed) {
        "stopped".to_owned()
    } else {
        end.line()
    };
    session.end_network().await;
    session.record_end(&why);
    log(&format!("session ended: {why}"));
    Ok(())
}

/// Away from the terminal and the directory of whoever started us.
fn detach() -> Result<()> {
    rustix::process::setsid().act("keeper cannot leave its terminal")?;
    rustix::process::chdir("/").act("keeper cannot change its directory")
}

async fn start(paths: &Paths, spec: Spec) -> Result<(Session, UnixListener)> {
    // A keeper told to end while it still starts just ends: dropping does the rest.
    let mut signals = Signals::catch()?;
    let directory = claim(paths, &spec)?;
    redirect_errors(&directory)?;
    let socket = directory.paths().socket(directory.name(), SOCKET)?;
    let session = tokio::select! {
        started = Session::start(directory, spec.plan, false) => started?,
        signal = signals.next_ending() => return Err(Error::Interrupted { signal }),
    };
    let listener = UnixListener::bind(&socket).context("socket of the keeper cannot be made", &socket)?;
    Ok((session, listener))
}

fn claim(paths: &Paths, spec: &Spec) -> Result<SessionDir> {
    let table = Table::open(paths)?;
    match &spec.name {
        Some(name) if spec.again => table.take(name),
        name => table.create(name.clone()),
    }
}

/// From here on what we print as an error belongs to the session.
fn redirect_errors(directory: &SessionDir) -> Result<()> {
    let path = keeper_log_of(directory.path());
    let act = "log of the keeper cannot be opened";
    let mut options = std::fs::OpenOptions::new();
    options.create(true).write(true).truncate(true).mode(0o600);
    let log = options.open(&path).context(act, &path)?;
    rustix::stdio::dup2_stderr(&log).context(act, &path)
}

/// Tells the one who waits, then lets go of their pipe.
fn report(report: &Report) -> Result<()> {
    let act = "keeper cannot report";
    let line = serde_json::to_string(report).map_err(io::Error::from).act(act)?;
    // Whoever started us may be gone; the session is there all the same.
    let _ = writeln!(io::stdout(), "{line}").and_then(|()| io::stdout().flush());
    let null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .act(act)?;
    rustix::stdio::dup2_stdout(&null).act(act)
}

impl From<&Error> for Report {
    fn from(error: &Error) -> Self {
        Report::Failed {
            what: error.line(),
            hint: error.hint(),
            code: error.code(),
        }
    }
}

fn log(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

async fn stop_on_signal(session: &Session, stopping: &AtomicBool) -> Error {
    let mut signals = match Signals::catch() {
        Ok(signals) => signals,
        Err(error) => return error,
    };
    loop {
        match signals.next().await {
            // Closing a terminal is no reason for a session to end that was made to stay.
            Arrival::Forward(signal) if signal != rustix::process::Signal::HUP.as_raw() => {
                stopping.store(true, Ordering::Relaxed);
                session.shut_down(STOP_GRACE).await;
                return Error::Interrupted { signal };
            }
            _ => {}
        }
    }
}

async fn serve(
    listener: &UnixListener,
    session: &Arc<Session>,
    stopping: &Arc<AtomicBool>,
    clients: &mut JoinSet<()>,
) -> Error {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                log(&format!("connection not taken: {error}"));
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        while clients.try_join_next().is_some() {}
        let client = Client {
            stream,
            session: Arc::clone(session),
            stopping: Arc::clone(stopping),
        };
        clients.spawn(async move {
            // A client that breaks off, or is none of ours, ends its own connection only.
            let _ = client.attend().await;
        });
    }
}

struct Client {
    stream: UnixStream,
    session: Arc<Session>,
    stopping: Arc<AtomicBool>,
}

enum Answer {
    Message(ToClient),
    Stream(Operation),
    /// The connection's end will be the answer.
    None,
}

impl Client {
    async fn attend(mut self) -> Result<()> {
        self.check_peer()?;
        let hello = read_message(&mut self.stream, Limit::ToGuest);
        let hello = tokio::time::timeout(HELLO_DEADLINE, hello).await;
        if !matches!(hello, Ok(Ok(ToKeeper::Hello { .. }))) {
            return Err(Error::Unexpected { what: "no hello" });
        }
        self.send(&ToClient::Hello { version: VERSION }).await?;
        loop {
            let message = read_message(&mut self.stream, Limit::ToGuest).await?;
            match self.answer(message).await {
                Ok(Answer::Message(message)) => self.send(&message).await?,
                Ok(Answer::Stream(operation)) => self.send_stream(operation).await?,
                Ok(Answer::None) => {}
                Err(error) => self.send(&refusal(&error)).await?,
            }
        }
    }

    fn check_peer(&self) -> Result<()> {
        let peer = socket_peercred(&self.stream).act("peer of the keeper cannot be asked for")?;
        if peer.uid != rustix::process::geteuid() && !peer.uid.is_root() {
            return Err(Error::Unexpected { what: "another user" });
        }
        Ok(())
    }

    async fn answer(&self, message: ToKeeper) -> Result<Answer> {
        let session = &*self.session;
        match message {
            ToKeeper::Start(request) => return self.start(request).await,
            ToKeeper::Signal { id, signal } => session.signal(id, signal).await?,
            ToKeeper::Resize { id, size } => session.resize(id, size).await?,
            ToKeeper::Inspect => return Ok(Answer::Message(ToClient::Inspection(self.inspect().await))),
            ToKeeper::ShareAdd(asked) => {
                let name = or_fate(session, session.share_add(asked).await).await?;
                return Ok(Answer::Message(ToClient::Shared { name }));
            }
            ToKeeper::ShareRemove { name, how } => {
                let removed = session.share_remove(&name, how, self.client_left()).await;
                or_fate(session, removed).await?;
            }
            ToKeeper::Shares => return Ok(Answer::Message(ToClient::Shares(session.shares().await?))),
            ToKeeper::NetChange(change) => or_fate(session, session.net_change(&change).await).await?,
            ToKeeper::Stop { grace_ms } => {
                self.stopping.store(true, Ordering::Relaxed);
                session.shut_down(Duration::from_millis(grace_ms.into())).await;
                return Ok(Answer::None);
            }
            ToKeeper::Hello { .. } => {
                return Err(Error::Unexpected {
                    what: "a second hello",
                });
            }
        }
        Ok(Answer::Message(ToClient::Done))
    }

    async fn start(&self, request: Request) -> Result<Answer> {
        let started = Host::start(&*self.session, request).await;
        or_fate(&self.session, started).await.map(Answer::Stream)
    }

    /// A client that waits for an answer says nothing, so whatever there is to read is its end.
    async fn client_left(&self) {
        let peek = || Ok(recv(&self.stream, &mut [0u8; 1][..], RecvFlags::PEEK)?);
        // An error here is an end too.
        let _ = self.stream.async_io(Interest::READABLE, peek).await;
    }

    async fn inspect(&self) -> Inspection {
        let status = self.session.status().await.map_err(|error| error.line());
        Inspection {
            pid: std::process::id(),
            machine_pid: self.session.machine_pid(),
            guest: self.session.guest(),
            machine: status
                .and_then(|status| serde_json::to_string(&status).map_err(|error| error.to_string())),
        }
    }

    async fn send(&mut self, message: &ToClient) -> Result<()> {
        let frame = encode(message, Limit::ToHost)?;
        self.stream
            .write_all(&frame)
            .await
            .act("client cannot be answered")
    }

    async fn send_stream(&mut self, operation: Operation) -> Result<()> {
        let act = "client cannot be handed its stream";
        let frame = encode(&ToClient::Started { id: operation.id() }, Limit::ToHost)?;
        write_with(&mut self.stream, &frame, operation.into_fd().as_fd())
            .await
            .act(act)
    }
}

/// The machine under an agent that is gone knows why.
async fn or_fate<T>(session: &Session, done: Result<T>) -> Result<T> {
    match done {
        Err(Error::AgentGone) => Err(session.fate().await),
        done => done,
    }
}

fn refusal(error: &Error) -> ToClient {
    ToClient::Refused {
        what: error.line(),
        hint: error.hint(),
        code: error.code(),
    }
}
