//! The control connection: dialed at boot and again whenever it is lost.
//!
//! ```text
//! dial ──Hello──▶ wait for Welcome ──setup, Ready──▶ serve ──Shutdown──▶ stop everything
//!  ▲                 │ lost, or the protocol broken      │
//!  └─────────────────┴───────────────────────────────────┘
//! ```
//!
//! Losing it ends no command: their streams are connections of their own, and die on their own when the
//! host is really gone. After a restore from a snapshot that is how the new host finds us.

use std::{
    fs::File,
    io::{self, BufReader, Read, Write},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use agent_protocol::{
    Channel, FrameError, GuestInfo, GuestMessage, Header, Hello, HostMessage, Limit, Role, decode, encode,
};
use rustix::{
    net::sockopt::{Timeout, set_socket_timeout},
    time::{ClockId, clock_gettime},
};

use crate::{
    Agent, Dialer, Error,
    dial::{Backoff, dial_until_answered},
    lock::lock,
    log, operation,
    owners::Question,
    setup,
};

/// A host that has answered and says nothing for so long has lost us, or is gone with the machine a
/// snapshot was taken of: a new connection is worth more than waiting on.
const WELCOME: Duration = Duration::from_secs(30);

/// What commands that were stopped get to tell the host how they ended.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A connection that has said Hello.
#[derive(Debug)]
pub struct Link {
    reader: BufReader<File>,
    writer: Writer,
}

/// The way back, for all who have something to say.
#[derive(Clone, Debug)]
pub(crate) struct Writer(Arc<Mutex<File>>);

/// The first connection, made while the machine is still being set up.
#[derive(Debug)]
pub struct EarlyDial(JoinHandle<Option<Link>>);

impl EarlyDial {
    pub fn start(dialer: impl Dialer + 'static) -> Result<Self, Error> {
        let thread = thread::Builder::new().name("dial".into());
        let dialing = thread
            .spawn(move || Link::open(&dialer).ok())
            .map_err(Error::Thread)?;
        Ok(EarlyDial(dialing))
    }

    /// Waits for the host. `None`: the connection was lost at once, dial again.
    pub fn finish(self) -> Option<Link> {
        self.0.join().ok().flatten()
    }
}

pub(crate) fn serve(agent: &Arc<Agent>, first: Option<Link>) {
    let mut link = first;
    let mut backoff = Backoff::new();
    loop {
        let ended = match link.take().map_or_else(|| Link::open(agent.dialer()), Ok) {
            Ok(mut link) => serve_link(agent, &mut link, &mut backoff),
            Err(error) => Err(error),
        };
        match ended {
            Ok(()) => return,
            Err(Broken::Closed) => {}
            Err(error) => log::warn(format_args!("control connection: {}", log::with_causes(&error))),
        }
        // A host that answers and hangs up at once is not worth a busy loop.
        backoff.pause();
    }
}

/// `Ok` when the machine is to go down.
fn serve_link(agent: &Arc<Agent>, link: &mut Link, backoff: &mut Backoff) -> Result<(), Broken> {
    link.expect_within(Some(WELCOME))?;
    let HostMessage::Welcome(setup) = link.read()? else {
        return Err(Broken::Unexpected);
    };
    link.expect_within(None)?;
    match setup::become_session(agent, setup) {
        Ok(session) => agent.become_session(session),
        Err(error) => {
            let what = log::with_causes(&error);
            log::warn(format_args!("cannot become the session: {what}"));
            link.writer.write(&GuestMessage::SetupFailed { what })?;
            return Ok(());
        }
    }
    link.writer.write(&GuestMessage::Ready)?;
    *backoff = Backoff::new();
    loop {
        match link.read()? {
            HostMessage::Welcome(_) => return Err(Broken::Unexpected),
            HostMessage::Start { id, request } => operation::start(agent, id, request),
            HostMessage::Signal { id, signal } => agent.jobs().signal(id, signal),
            HostMessage::Resize { id, size } => agent.jobs().resize(id, size),
            HostMessage::Clock { unix_ns } => setup::keep_clock(agent.machine(), unix_ns),
            HostMessage::Ping { nonce } => link.writer.write(&GuestMessage::Pong { nonce })?,
            HostMessage::Owner {
                nonce,
                protocol,
                port,
            } => {
                let question = Question::new(nonce, protocol, port, link.writer.clone());
                agent.owners().ask(agent.jobs(), question);
            }
            HostMessage::Shutdown { grace_ms } => {
                let _ = link.writer.write(&GuestMessage::ShuttingDown);
                agent
                    .machine()
                    .stop_everything(Duration::from_millis(grace_ms.into()));
                agent.jobs().wait_empty(Instant::now() + LAST_WORDS);
                return Ok(());
            }
        }
    }
}

impl Link {
    fn open(dialer: &dyn Dialer) -> Result<Self, Broken> {
        let socket = dial_until_answered(dialer);
        let hello = encode(&Hello::new(Role::Control(describe())), Limit::ToHost)?;
        let mut socket = File::from(socket);
        socket.write_all(&hello)?;
        Ok(Link {
            writer: Writer(Arc::new(Mutex::new(socket.try_clone()?))),
            reader: BufReader::new(socket),
        })
    }

    /// How long the host may take for its next words; `None` for a host that may be silent.
    fn expect_within(&self, limit: Option<Duration>) -> Result<(), Broken> {
        set_socket_timeout(self.reader.get_ref(), Timeout::Recv, limit)
            .map_err(|errno| Broken::Lost(errno.into()))
    }

    /// The payload grows as it arrives, so that a length alone costs nothing.
    fn read(&mut self) -> Result<HostMessage, Broken> {
        let mut head = [0; Header::SIZE];
        self.reader.read_exact(&mut head)?;
        let header = Header::parse(head, Limit::ToGuest)?;
        if header.channel() != Channel::Message {
            return Err(Broken::Unexpected);
        }
        let mut payload = Vec::new();
        let wanted = header.len() as u64;
        self.reader.by_ref().take(wanted).read_to_end(&mut payload)?;
        if payload.len() < header.len() {
            return Err(Broken::Closed);
        }
        Ok(decode(&payload)?)
    }
}

impl Writer {
    pub(crate) fn write(&self, message: &GuestMessage) -> Result<(), Broken> {
        let frame = encode(message, Limit::ToHost)?;
        Ok(lock(&self.0).write_all(&frame)?)
    }
}

fn describe() -> GuestInfo {
    let uptime = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(uptime.tv_sec).unwrap_or(0);
    let milliseconds = u64::try_from(uptime.tv_nsec).unwrap_or(0) / 1_000_000;
    GuestInfo {
        agent_version: env!("CARGO_PKG_VERSION").into(),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        uptime_ms: seconds.saturating_mul(1000).saturating_add(milliseconds),
    }
}

/// Why a control connection is given up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the host has closed it")]
    Closed,
    #[error("lost")]
    Lost(#[source] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("a message that has no place here")]
    Unexpected,
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                Broken::Closed
            }
            _ => Broken::Lost(error),
        }
    }
}
