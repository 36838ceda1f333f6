use std::{
    collections::HashMap,
    io,
    os::unix::net::UnixStream as BlockingStream,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use agent_protocol::{
    Folder, GuestInfo, GuestMessage, Hello, HostMessage, Limit, Request, Role, Setup, StreamId, TerminalSize,
    VERSION, encode,
};
use tokio::{
    io::AsyncWriteExt,
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
};

use super::{Operation, frames::read_message, owners::Owners, welcome};
use crate::{Error, Result, console, error::Context};

/// A connection says what it is in its first frame, which the agent sends at once; a slow machine may be
/// slow about it.
const HELLO_DEADLINE: Duration = Duration::from_secs(20);
/// Connections that have not yet said what they are. More than the agent ever has under way.
const MAX_UNINTRODUCED: usize = 256;
/// From a request to the stream the guest dials for it; hundreds at once on an emulated machine take a while.
const DIAL_DEADLINE: Duration = Duration::from_secs(60);
/// Messages waiting for a guest that does not read them. A guest that reads none is told to nobody.
const OUTGOING: usize = 64;
const SEND_DEADLINE: Duration = Duration::from_secs(10);
/// A guest whose clock drifts, or whose host slept, is put right this often.
const CLOCK_INTERVAL: Duration = Duration::from_secs(60);

/// Where the control connection stands.
///
/// ```text
/// Waiting ── Hello{Control}, Welcome, Ready ──▶ Ready ── ShuttingDown ──▶ ShuttingDown
///    │                                            │ ▲
///    └── SetupFailed, bad version ──▶ Failed      └─┴─ connection lost, dialed again (Lost)
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    Waiting,
    Ready(GuestInfo),
    SetupFailed { what: String },
    WrongVersion { found: u16 },
    ShuttingDown,
    Lost,
}

/// The listening end. Dropped, it closes everything the guest had open.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    accept: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    session: String,
    env: Vec<(Vec<u8>, Vec<u8>)>,
    /// What a guest that dials now finds mounted; `None` until the machine has it all.
    folders: watch::Sender<Option<Vec<Folder>>>,
    state: watch::Sender<LinkState>,
    control: Mutex<Option<Control>>,
    pending: Mutex<HashMap<StreamId, oneshot::Sender<BlockingStream>>>,
    owners: Owners,
    last_command: Mutex<Option<Vec<Vec<u8>>>>,
    next: AtomicU64,
}

/// The control connection of the moment; a later one takes its place and ends it.
#[derive(Debug)]
struct Control {
    generation: u64,
    outgoing: mpsc::Sender<HostMessage>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Control {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Link {
    /// Listens where the machine carries the agent's port to. A guest is welcomed when its folders are known.
    pub fn listen(socket: &Path, session: String, env: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Self> {
        let listener = UnixListener::bind(socket).context("socket of the sandbox cannot be made", socket)?;
        let shared = Arc::new(Shared {
            session,
            env,
            folders: watch::channel(None).0,
            state: watch::channel(LinkState::Waiting).0,
            control: Mutex::default(),
            pending: Mutex::default(),
            owners: Owners::default(),
            last_command: Mutex::default(),
            next: AtomicU64::new(1),
        });
        let accept = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Link { shared, accept })
    }

    /// These are the session's folders from now on. A guest that is here already hears of each by a request.
    pub fn has_folders(&self, folders: Vec<Folder>) {
        self.shared.folders.send_replace(Some(folders));
    }

    pub fn state(&self) -> LinkState {
        self.shared.state.borrow().clone()
    }

    /// Waits until the guest is this session, or says that it never will be.
    pub async fn ready(&self) -> Result<GuestInfo> {
        let mut state = self.shared.state.subscribe();
        loop {
            match &*state.borrow_and_update() {
                LinkState::Ready(info) => return Ok(info.clone()),
                LinkState::SetupFailed { what } => return Err(Error::SetupFailed { what: what.clone() }),
                LinkState::WrongVersion { found } => return Err(Error::AgentVersion { found: *found }),
                LinkState::Waiting | LinkState::ShuttingDown | LinkState::Lost => {}
            }
            if state.changed().await.is_err() {
                return Err(Error::AgentGone);
            }
        }
    }

    /// Asks for an operation and waits for the stream the guest dials for it.
    pub async fn start(&self, request: Request) -> Result<Operation> {
        let id = unguessable_id()?;
        let (arrived, stream) = oneshot::channel();
        lock(&self.shared.pending).insert(id, arrived);
        let _forget = Forget {
            shared: &self.shared,
            id,
        };
        if let Request::Exec(exec) = &request {
            *lock(&self.shared.last_command) = Some(exec.argv.clone());
        }
        let message = HostMessage::Start { id, request };
        // Here, where the error can be told: the writer could only drop the message.
        encode(&message, Limit::ToGuest).map_err(Error::TooLong)?;
        self.shared.send(message).await?;
        match tokio::time::timeout(DIAL_DEADLINE, stream).await {
            Ok(Ok(stream)) => Ok(Operation::new(id, stream)),
            Ok(Err(_)) => Err(Error::AgentGone),
            Err(_) => Err(Error::AgentSilent {
                what: "it did not take up the request",
            }),
        }
    }

    /// What was asked for last to be run, whether it still does or not.
    pub fn last_command(&self) -> Option<Vec<Vec<u8>>> {
        lock(&self.shared.last_command).clone()
    }

    pub async fn signal(&self, id: StreamId, signal: i32) -> Result<()> {
        self.shared.send(HostMessage::Signal { id, signal }).await
    }

    pub async fn resize(&self, id: StreamId, size: TerminalSize) -> Result<()> {
        self.shared.send(HostMessage::Resize { id, size }).await
    }

    pub async fn shut_down(&self, grace: Duration) -> Result<()> {
        let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        self.shared.send(HostMessage::Shutdown { grace_ms }).await
    }

    pub(super) fn owners(&self) -> &Owners {
        &self.shared.owners
    }

    /// `None` where it would have to wait, or there is nobody to tell.
    pub(super) fn try_send(&self, message: HostMessage) -> Option<()> {
        let control = lock(&self.shared.control);
        control.as_ref()?.outgoing.try_send(message).ok()
    }

    /// Passes on that the machine's process was asked to end. Half of the time is for the processes of
    /// the guest, the rest for its disk.
    pub fn shut_down_when(&self, asked: oneshot::Receiver<Duration>) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            if let Ok(deadline) = asked.await {
                let grace_ms = u32::try_from(deadline.as_millis() / 2).unwrap_or(u32::MAX);
                // A guest that cannot be told is ended by its machine at the deadline.
                let _ = shared.send(HostMessage::Shutdown { grace_ms }).await;
            }
        });
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accept.abort();
        lock(&self.shared.control).take();
    }
}

impl Shared {
    async fn send(&self, message: HostMessage) -> Result<()> {
        let outgoing = lock(&self.control)
            .as_ref()
            .map(|control| control.outgoing.clone());
        let outgoing = outgoing.ok_or(Error::AgentGone)?;
        match tokio::time::timeout(SEND_DEADLINE, outgoing.send(message)).await {
            Ok(sent) => sent.map_err(|_| Error::AgentGone),
            Err(_) => Err(Error::AgentSilent {
                what: "it reads no messages",
            }),
        }
    }
}

/// Any process in the guest can dial us; only the agent, which is told the number, can answer for it.
fn unguessable_id() -> Result<StreamId> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(std::io::Error::from)
        .context("no random numbers", "getrandom")?;
    Ok(StreamId(u64::from_ne_bytes(bytes)))
}

/// Takes a request off the list when its asker has the stream or gave up.
struct Forget<'a> {
    shared: &'a Shared,
    id: StreamId,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(&self.shared.pending).remove(&self.id);
    }
}

/// None of our locks is held across anything that can panic half-way through a change.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: UnixListener, shared: Arc<Shared>) {
    let unintroduced = Arc::new(Semaphore::new(MAX_UNINTRODUCED));
    loop {
        let Ok(permit) = Arc::clone(&unintroduced).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely; the backlog keeps what waits.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let hello = tokio::time::timeout(HELLO_DEADLINE, introduce(stream, &shared)).await;
            drop(permit);
            // A connection that says nothing sensible is closed; there is nobody to tell.
            let _ = hello;
        });
    }
}

async fn introduce(mut stream: UnixStream, shared: &Arc<Shared>) -> Result<()> {
    let hello: Hello = read_message(&mut stream, Limit::ToHost).await?;
    if hello.version != VERSION {
        if matches!(hello.role, Role::Control(_)) {
            shared
                .state
                .send_replace(LinkState::WrongVersion { found: hello.version });
        }
        return Err(Error::AgentVersion { found: hello.version });
    }
    match hello.role {
        Role::Control(info) => take_control(stream, bounded(&info), shared),
        Role::Stream(id) => hand_over(stream, id, shared),
    }
}

/// What the guest says of itself, fit to be shown and short enough to be passed on with more around it.
fn bounded(info: &GuestInfo) -> GuestInfo {
    GuestInfo {
        agent_version: console::safe(info.agent_version.as_bytes()),
        kernel: console::safe(info.kernel.as_bytes()),
        uptime_ms: info.uptime_ms,
    }
}

/// The bytes after the Hello are all still in the socket: it is read frame by frame, never ahead.
fn hand_over(stream: UnixStream, id: StreamId, shared: &Shared) -> Result<()> {
    let asker = lock(&shared.pending).remove(&id);
    let asker = asker.ok_or(Error::Unexpected {
        what: "a stream nobody asked for",
    })?;
    let act = "stream of the sandbox cannot be used";
    let stream = stream.into_std().act(act)?;
    stream.set_nonblocking(false).act(act)?;
    // The asker may have gone; then the stream closes here, which ends the operation.
    let _ = asker.send(stream);
    Ok(())
}

fn take_control(stream: UnixStream, info: GuestInfo, shared: &Arc<Shared>) -> Result<()> {
    let (reader, writer) = stream.into_split();
    let (outgoing, queue) = mpsc::channel(OUTGOING);
    let host = Arc::clone(shared);
    let writing = tokio::spawn(async move {
        // What ends the writer ends the reader too, at the same socket.
        let _ = write_control(writer, queue, &host).await;
    });
    let generation = shared.next.fetch_add(1, Ordering::Relaxed);
    let reading = tokio::spawn(read_control(reader, info, Arc::clone(shared), generation));
    let control = Control {
        generation,
        outgoing,
        tasks: [writing, reading],
    };
    *lock(&shared.control) = Some(control);
    Ok(())
}

/// The first message, when all is there that it speaks of.
async fn first_words(shared: &Shared) -> HostMessage {
    let mut folders = shared.folders.subscribe();
    let folders = match folders.wait_for(Option::is_some).await {
        Ok(folders) => folders.clone().unwrap_or_default(),
        // The sender is in `shared`, which is here.
        Err(_) => Vec::new(),
    };
    HostMessage::Welcome(Setup {
        session: shared.session.clone(),
        unix_ns: unix_ns(),
        env: shared.env.clone(),
        folders,
        network: Some(welcome::cable()),
        certificates: welcome::certificates().await,
    })
}

async fn write_control(
    mut writer: OwnedWriteHalf,
    mut queue: mpsc::Receiver<HostMessage>,
    shared: &Shared,
) -> io::Result<()> {
    let frame = encode(&first_words(shared).await, Limit::ToGuest).map_err(io::Error::other)?;
    writer.write_all(&frame).await?;
    let start = tokio::time::Instant::now() + CLOCK_INTERVAL;
    let mut clock = tokio::time::interval_at(start, CLOCK_INTERVAL);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            message = queue.recv() => match message {
                Some(message) => message,
                None => return Ok(()),
            },
            _ = clock.tick() => HostMessage::Clock { unix_ns: unix_ns() },
        };
        let frame = encode(&message, Limit::ToGuest).map_err(io::Error::other)?;
        writer.write_all(&frame).await?;
    }
}

async fn read_control(mut reader: OwnedReadHalf, info: GuestInfo, shared: Arc<Shared>, generation: u64) {
    let mut shutting_down = false;
    while let Ok(message) = read_message::<GuestMessage>(&mut reader, Limit::ToHost).await {
        match message {
            GuestMessage::Ready => {
                shared.state.send_replace(LinkState::Ready(info.clone()));
            }
            GuestMessage::SetupFailed { what } => {
                let what = console::safe(what.as_bytes());
                shared.state.send_replace(LinkState::SetupFailed { what });
                return;
            }
            GuestMessage::ShuttingDown => {
                shutting_down = true;
                shared.state.send_replace(LinkState::ShuttingDown);
            }
            GuestMessage::Pong { .. } => {}
            answer @ GuestMessage::Owner { .. } => shared.owners.answered(answer),
        }
    }
    let mut control = lock(&shared.control);
    if control
        .as_ref()
        .is_none_or(|control| control.generation != generation)
    {
        return;
    }
    *control = None;
    if !shutting_down {
        shared.state.send_replace(LinkState::Lost);
    }
    // Nothing more will come for those who wait for a stream.
    lock(&shared.pending).clear();
}

fn unix_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
