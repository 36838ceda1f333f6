use std::{
    collections::VecDeque,
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::net::UnixStream as BlockingStream},
    time::Duration,
};

use agent_protocol::{Header, Limit, Request, StreamId, TerminalSize, decode, encode};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::{
    io::{AsyncWriteExt, Interest},
    net::UnixStream,
    sync::Mutex,
};
use vmm_api::{ShareName, ShareStatus};

use super::wire::{Inspection, SOCKET, ToClient, ToKeeper, VERSION};
use crate::{
    Error, Host, Paths, Result, SessionName,
    agent::Operation,
    console,
    error::{Context, code},
    net::NetChange,
    session::Removal,
    share::Asked,
    state::{Record, State, Table, console_of},
};

/// Longer than anything a keeper does for one message, so that its own error arrives before ours.
const ANSWER_DEADLINE: Duration = Duration::from_secs(90);
/// After its machine ended a keeper writes why, and goes.
const END_DEADLINE: Duration = Duration::from_secs(5);
/// What a stopping keeper may need beyond the grace: the guest's own deadlines, then the machine's.
const STOP_MARGIN: Duration = Duration::from_secs(40);

/// A session that another process owns.
#[derive(Debug)]
pub struct KeeperClient {
    name: SessionName,
    paths: Paths,
    connection: Mutex<Connection>,
}

impl KeeperClient {
    pub async fn connect(paths: &Paths, name: &SessionName) -> Result<Self> {
        let socket = paths.socket(name, SOCKET)?;
        let stream = match UnixStream::connect(&socket).await {
            Ok(stream) => stream,
            Err(error) => return Err(why_unreachable(paths, name, error)),
        };
        let connection = Connection {
            stream,
            read: Vec::new(),
            streams: VecDeque::new(),
        };
        let client = KeeperClient {
            name: name.clone(),
            paths: paths.clone(),
            connection: Mutex::new(connection),
        };
        match client.ask(&ToKeeper::Hello { version: VERSION }).await? {
            ToClient::Hello { version: VERSION } => Ok(client),
            ToClient::Hello { version } => Err(Error::KeeperVersion {
                found: version,
                ours: VERSION,
            }),
            _ => Err(unexpected()),
        }
    }

    pub fn name(&self) -> &SessionName {
        &self.name
    }

    pub async fn inspect(&self) -> Result<Inspection> {
        match self.ask(&ToKeeper::Inspect).await? {
            ToClient::Inspection(inspection) => Ok(inspection),
            _ => Err(unexpected()),
        }
    }

    /// Shares one more folder, and says what it is called in the session.
    pub(crate) async fn share_add(&self, asked: Asked) -> Result<ShareName> {
        match self.ask(&ToKeeper::ShareAdd(asked)).await? {
            ToClient::Shared { name } => Ok(name),
            _ => Err(unexpected()),
        }
    }

    pub async fn share_remove(&self, name: &ShareName, how: Removal) -> Result<()> {
        let message = ToKeeper::ShareRemove {
            name: name.clone(),
            how,
        };
        let mut connection = self.connection.lock().await;
        let deadline = ANSWER_DEADLINE.saturating_add(how.wait);
        match self.exchange_within(deadline, &mut connection, &message).await? {
            ToClient::Done => Ok(()),
            _ => Err(unexpected()),
        }
    }

    /// What the session's machine says of its folders.
    pub async fn shares(&self) -> Result<Vec<ShareStatus>> {
        match self.ask(&ToKeeper::Shares).await? {
            ToClient::Shares(shares) => Ok(shares),
            _ => Err(unexpected()),
        }
    }

    /// Changes what the session may reach, from its next connection on.
    pub(crate) async fn net_change(&self, change: NetChange) -> Result<()> {
        match self.ask(&ToKeeper::NetChange(change)).await? {
            ToClient::Done => Ok(()),
            _ => Err(unexpected()),
        }
    }

    /// Has the session shut down, and waits until its keeper is gone.
    pub async fn stop(&self, grace: Duration) -> Result<()> {
        let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        let mut connection = self.connection.lock().await;
        connection.send(&ToKeeper::Stop { grace_ms }).await?;
        match tokio::time::timeout(grace + STOP_MARGIN, connection.receive()).await {
            Ok(Ok(Some(ToClient::Refused { what, hint, code }))) => Err(Error::Reported { what, hint, code }),
            Ok(Ok(Some(_))) => Err(unexpected()),
            // The end of the connection is the keeper's.
            Ok(Ok(None) | Err(_)) => Ok(()),
            Err(_) => Err(Error::KeeperSilent {
                name: self.name.clone(),
            }),
        }
    }

    async fn ask(&self, message: &ToKeeper) -> Result<ToClient> {
        let mut connection = self.connection.lock().await;
        self.exchange(&mut connection, message).await
    }

    async fn exchange(&self, connection: &mut Connection, message: &ToKeeper) -> Result<ToClient> {
        self.exchange_within(ANSWER_DEADLINE, connection, message).await
    }

    async fn exchange_within(
        &self,
        deadline: Duration,
        connection: &mut Connection,
        message: &ToKeeper,
    ) -> Result<ToClient> {
        connection.send(message).await?;
        match tokio::time::timeout(deadline, connection.receive()).await {
            Ok(Ok(Some(ToClient::Refused { what, hint, code }))) => Err(Error::Reported { what, hint, code }),
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None)) => Err(self.last_words()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::KeeperSilent {
                name: self.name.clone(),
            }),
        }
    }

    /// What the record says of the end of a session whose keeper is gone.
    fn last_words(&self) -> Error {
        let directory = self.paths.session(&self.name);
        match Record::read(&directory) {
            Ok(Record {
                state: State::Stopped,
                ended: Some(what),
                ..
            }) => {
                let log = console::last_lines_quoted(&console_of(&directory));
                let hint = (!log.is_empty()).then(|| format!("the last it said:{log}"));
                Error::Reported {
                    what,
                    hint,
                    code: code::OURS,
                }
            }
            _ => Error::KeeperGone {
                name: self.name.clone(),
            },
        }
    }
}

fn unexpected() -> Error {
    Error::Unexpected {
        what: "the keeper answered something else",
    }
}

/// Why nobody answers at a session's socket, from what is on disk.
fn why_unreachable(paths: &Paths, name: &SessionName, error: io::Error) -> Error {
    let looked = Table::open(paths).and_then(|table| {
        let entry = table.find(name)?;
        Ok((entry.alive, entry.record?))
    });
    match looked {
        Err(error) => error,
        Ok((false, record)) => Error::NotRunning {
            name: name.clone(),
            why: record.ended,
        },
        Ok((
            true,
            Record {
                ephemeral: true,
                owner: Some(owner),
                ..
            },
        )) => Error::NotKept {
            name: name.clone(),
            pid: owner.pid,
        },
        Ok((
            true,
            Record {
                state: State::Starting,
                ..
            },
        )) => Error::NotReady { name: name.clone() },
        Ok((true, _)) => Error::System {
            act: "the session's keeper cannot be reached",
            source: error,
        },
    }
}

impl Host for KeeperClient {
    async fn start(&self, request: Request) -> Result<Operation> {
        let mut connection = self.connection.lock().await;
        match self.exchange(&mut connection, &ToKeeper::Start(request)).await? {
            ToClient::Started { id } => match connection.streams.pop_front() {
                Some(stream) => Ok(Operation::new(id, BlockingStream::from(stream))),
                None => Err(Error::Unexpected {
                    what: "the keeper sent no stream",
                }),
            },
            _ => Err(unexpected()),
        }
    }

    async fn signal(&self, id: StreamId, signal: i32) -> Result<()> {
        self.ask(&ToKeeper::Signal { id, signal }).await.map(drop)
    }

    async fn resize(&self, id: StreamId, size: TerminalSize) -> Result<()> {
        self.ask(&ToKeeper::Resize { id, size }).await.map(drop)
    }

    async fn fate(&self) -> Error {
        let mut connection = self.connection.lock().await;
        // Nothing is under way, so what comes is the end, or nothing while the machine lives.
        match tokio::time::timeout(END_DEADLINE, connection.receive()).await {
            Ok(_) => self.last_words(),
            Err(_) => Error::AgentGone,
        }
    }
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    read: Vec<u8>,
    /// Streams that came with messages, in their order.
    streams: VecDeque<OwnedFd>,
}

impl Connection {
    async fn send(&mut self, message: &ToKeeper) -> Result<()> {
        let frame = encode(message, Limit::ToGuest).map_err(Error::TooLong)?;
        // A keeper that is gone says so when it is read.
        let _ = self.stream.write_all(&frame).await;
        Ok(())
    }

    /// The next message, or `None` when the keeper is gone.
    async fn receive(&mut self) -> Result<Option<ToClient>> {
        loop {
            if let Some((head, rest)) = self.read.split_first_chunk() {
                let header = Header::parse(*head, Limit::ToHost)?;
                if let Some(payload) = rest.get(..header.len()) {
                    let message = decode(payload)?;
                    self.read.drain(..Header::SIZE + header.len());
                    return Ok(Some(message));
                }
            }
            if self.read_more().await? == 0 {
                return Ok(None);
            }
        }
    }

    async fn read_more(&mut self) -> Result<usize> {
        let mut bytes = [0; 4096];
        let Connection { stream, streams, .. } = self;
        let received = stream.async_io(Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let into = &mut [IoSliceMut::new(&mut bytes)];
            let received = recvmsg(&*stream, into, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = message {
                    streams.extend(fds);
                }
            }
            Ok(received.bytes)
        });
        let received = match received.await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            received => received.act("the session's keeper cannot be read")?,
        };
        self.read
            .extend_from_slice(bytes.get(..received).unwrap_or_default());
        Ok(received)
    }
}
