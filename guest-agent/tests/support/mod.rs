//! A host for a real agent: it listens on a socket, welcomes the agent, and runs operations on it.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

use std::{
    collections::HashMap,
    fs,
    io::{self, Read, Write},
    os::{
        fd::OwnedFd,
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use agent_protocol::{
    Channel, Exec, Exit, Failure, Folder, GuestMessage, Header, Hello, HostMessage, Limit, Network, Reply,
    Request, Role, Setup, Status, StreamId, VERSION, decode, encode, encode_frame,
};
use guest_agent::{Agent, Cgroups, Dialer, Machine, Parts};
use rustix::process::{Pid, Signal, kill_process_group};

/// Longer than anything here takes; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Host {
    pub root: tempfile::TempDir,
    pub machine: Recorder,
    control: Mutex<UnixStream>,
    controls: Mutex<mpsc::Receiver<UnixStream>>,
    streams: Arc<Waiting>,
    next: AtomicU64,
    pub stopped: Mutex<mpsc::Receiver<()>>,
}

#[derive(Default)]
struct Waiting {
    arrived: Mutex<HashMap<StreamId, UnixStream>>,
    changed: Condvar,
}

/// A machine that only writes down what is done to it. Its folders are what a test mounts in their place;
/// without that it has no device for them.
#[derive(Clone, Default)]
pub struct Recorder(pub Arc<Mutex<Vec<String>>>, pub Option<MountFolders>);

pub type MountFolders = fn(&Path) -> io::Result<()>;

impl Machine for Recorder {
    fn set_hostname(&self, name: &str) -> io::Result<()> {
        self.0.lock().unwrap().push(format!("hostname {name}"));
        Ok(())
    }

    fn set_clock(&self, unix_ns: u64) -> io::Result<()> {
        self.0.lock().unwrap().push(format!("clock {unix_ns}"));
        Ok(())
    }

    fn mount_folders(&self, at: &Path) -> io::Result<()> {
        match self.1 {
            Some(mount) => mount(at),
            None => Err(io::Error::from_raw_os_error(libc::ENODEV)),
        }
    }

    fn set_network(&self, network: &Network) -> io::Result<()> {
        self.0.lock().unwrap().push(format!("network {}", network.v4));
        match network.v4_prefix {
            0 => Err(io::ErrorKind::NotFound.into()),
            _ => Ok(()),
        }
    }

    fn stop_everything(&self, grace: Duration) {
        self.0.lock().unwrap().push(format!("stop {}", grace.as_millis()));
    }
}

struct UnixDialer(PathBuf);

impl Dialer for UnixDialer {
    fn dial(&self) -> io::Result<OwnedFd> {
        Ok(UnixStream::connect(&self.0)?.into())
    }
}

impl Host {
    pub fn start() -> Self {
        Host::with(None)
    }

    pub fn with(cgroups: Option<Cgroups>) -> Self {
        let host = Host::unwelcoming(cgroups);
        host.welcome();
        host
    }

    /// The agent has dialed and waits for its Welcome.
    pub fn unwelcoming(cgroups: Option<Cgroups>) -> Self {
        Host::boot(cgroups, None)
    }

    pub fn with_folders(mount: MountFolders) -> Self {
        Host::boot(None, Some(mount))
    }

    fn boot(cgroups: Option<Cgroups>, folders: Option<MountFolders>) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        let socket = root.path().join("host.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (control_sender, controls) = mpsc::channel();
        let streams = Arc::new(Waiting::default());
        let arriving = Arc::clone(&streams);
        thread::spawn(move || accept(&listener, &control_sender, &arriving));
        let machine = Recorder(Arc::default(), folders);
        let agent = Agent::new(Parts {
            dialer: Box::new(UnixDialer(socket)),
            machine: Box::new(machine.clone()),
            root: root.path().into(),
            cgroups,
        });
        let agent = Arc::new(agent.unwrap());
        let (stopped_sender, stopped) = mpsc::channel();
        thread::spawn(move || {
            agent.serve(None);
            let _ = stopped_sender.send(());
        });
        let control = controls.recv_timeout(PATIENCE).expect("the agent dials");
        Host {
            root,
            machine,
            control: Mutex::new(control),
            controls: Mutex::new(controls),
            streams,
            next: AtomicU64::new(0),
            stopped: Mutex::new(stopped),
        }
    }

    pub fn welcome(&self) {
        assert_eq!(self.welcome_with(&[]), GuestMessage::Ready);
    }

    pub fn welcome_with(&self, folders: &[Folder]) -> GuestMessage {
        self.welcome_as(Setup {
            folders: folders.to_vec(),
            ..setup()
        })
    }

    pub fn welcome_as(&self, setup: Setup) -> GuestMessage {
        self.tell(&HostMessage::Welcome(setup));
        self.hear()
    }

    pub fn home(&self) -> PathBuf {
        self.root.path().join("sessions/calm-otter")
    }

    pub fn tell(&self, message: &HostMessage) {
        self.tell_raw(&encode(message, Limit::ToGuest).unwrap());
    }

    pub fn tell_raw(&self, bytes: &[u8]) {
        // A connection the agent has given up cannot be told anything: the caller finds out.
        let _ = self.control.lock().unwrap().write_all(bytes);
    }

    pub fn hear(&self) -> GuestMessage {
        let mut control = self.control.lock().unwrap();
        let (channel, payload) = read_frame(&mut control).unwrap().expect("the agent stays");
        assert_eq!(channel, Channel::Message);
        decode(&payload).unwrap()
    }

    /// Waits for the agent to dial its control connection anew.
    pub fn await_redial(&self) {
        let control = self
            .controls
            .lock()
            .unwrap()
            .recv_timeout(PATIENCE)
            .expect("the agent dials again");
        *self.control.lock().unwrap() = control;
    }

    pub fn hang_up(&self) {
        self.control
            .lock()
            .unwrap()
            .shutdown(std::net::Shutdown::Both)
            .unwrap();
    }

    pub fn begin(&self, request: Request) -> HostStream {
        let id = self.start_only(request);
        HostStream {
            id,
            socket: self.streams.take(id),
        }
    }

    /// Starts an operation without waiting for its stream.
    pub fn start_only(&self, request: Request) -> StreamId {
        let id = StreamId(self.next.fetch_add(1, Ordering::Relaxed));
        self.tell(&HostMessage::Start { id, request });
        id
    }

    pub fn stream(&self, id: StreamId) -> HostStream {
        HostStream {
            id,
            socket: self.streams.take(id),
        }
    }

    pub fn run(&self, argv: &[&str]) -> Outcome {
        self.run_exec(exec(argv))
    }

    pub fn run_exec(&self, exec: Exec) -> Outcome {
        self.begin(Request::Exec(exec)).outcome()
    }
}

/// What a test left running ends with it.
impl Drop for Host {
    fn drop(&mut self) {
        for child in children_of_this_process() {
            if let Some(pid) = Pid::from_raw(child) {
                let _ = kill_process_group(pid, Signal::KILL);
            }
        }
    }
}

impl Waiting {
    fn take(&self, id: StreamId) -> UnixStream {
        let arrived = self.arrived.lock().unwrap();
        let (mut arrived, timeout) = self
            .changed
            .wait_timeout_while(arrived, PATIENCE, |arrived| !arrived.contains_key(&id))
            .unwrap();
        assert!(!timeout.timed_out(), "stream {id:?} was not dialed");
        arrived.remove(&id).unwrap()
    }
}

fn accept(listener: &UnixListener, controls: &mpsc::Sender<UnixStream>, streams: &Waiting) {
    for socket in listener.incoming() {
        let mut socket = socket.unwrap();
        let Ok(Some((Channel::Message, payload))) = read_frame(&mut socket) else {
            continue;
        };
        let hello: Hello = decode(&payload).unwrap();
        assert_eq!(hello.version, VERSION);
        match hello.role {
            Role::Control(_) => drop(controls.send(socket)),
            Role::Stream(id) => {
                streams.arrived.lock().unwrap().insert(id, socket);
                streams.changed.notify_all();
            }
        }
    }
}

fn read_frame(socket: &mut UnixStream) -> io::Result<Option<(Channel, Vec<u8>)>> {
    let mut head = [0; Header::SIZE];
    match socket.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let header = Header::parse(head, Limit::ToHost).unwrap();
    let mut payload = vec![0; header.len()];
    socket.read_exact(&mut payload)?;
    Ok(Some((header.channel(), payload)))
}

pub fn setup() -> Setup {
    Setup {
        session: "calm-otter".into(),
        unix_ns: 1_800_000_000_000_000_000,
        env: vec![(b"FROM_SESSION".to_vec(), b"yes".to_vec())],
        folders: Vec::new(),
        network: None,
        certificates: None,
    }
}

pub fn exec(argv: &[&str]) -> Exec {
    Exec::new(argv.iter().map(|argument| argument.as_bytes().to_vec()))
}

pub struct HostStream {
    pub id: StreamId,
    socket: UnixStream,
}

#[derive(Debug)]
pub enum Frame {
    Reply(Reply),
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
}

#[derive(Debug, Default)]
pub struct Outcome {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit: Option<Exit>,
    pub failure: Option<Failure>,
    pub replies: Vec<Reply>,
}

impl Outcome {
    #[track_caller]
    pub fn status(&self) -> Status {
        match &self.exit {
            Some(exit) => exit.status,
            None => panic!("no exit: {self:?}"),
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl HostStream {
    /// `None`: the agent has closed.
    pub fn next(&mut self) -> Option<Frame> {
        let (channel, payload) = read_frame(&mut self.socket).ok()??;
        Some(match channel {
            Channel::Message => Frame::Reply(decode(&payload).unwrap()),
            Channel::Stdout => Frame::Stdout(payload),
            Channel::Stderr => Frame::Stderr(payload),
            Channel::Stdin => panic!("Stdin from the guest"),
        })
    }

    pub fn await_started(&mut self) -> u32 {
        match self.next() {
            Some(Frame::Reply(Reply::Started { pid })) => pid,
            other => panic!("not started: {other:?}"),
        }
    }

    pub fn writer(&self) -> Writer {
        Writer(self.socket.try_clone().unwrap())
    }

    pub fn set_patience(&self, patience: Option<Duration>) {
        self.socket.set_read_timeout(patience).unwrap();
    }

    /// Reads stdout until it contains `wanted`.
    pub fn read_until(&mut self, wanted: &str) -> String {
        let mut text = String::new();
        while !text.contains(wanted) {
            match self.next() {
                Some(Frame::Stdout(data)) => text.push_str(&String::from_utf8_lossy(&data)),
                Some(Frame::Reply(Reply::Started { .. })) => {}
                other => panic!("{other:?} after {text:?}, before {wanted:?}"),
            }
        }
        text
    }

    /// Everything up to the last word.
    pub fn outcome(mut self) -> Outcome {
        let mut outcome = Outcome::default();
        loop {
            match self
                .next()
                .unwrap_or_else(|| panic!("closed before the last word: {outcome:?}"))
            {
                Frame::Stdout(data) => outcome.stdout.extend(data),
                Frame::Stderr(data) => outcome.stderr.extend(data),
                Frame::Reply(Reply::Exited(exit)) => outcome.exit = Some(exit),
                Frame::Reply(Reply::Failed(failure)) => outcome.failure = Some(failure),
                Frame::Reply(reply @ Reply::Done) => {
                    outcome.replies.push(reply);
                    break;
                }
                Frame::Reply(reply) => outcome.replies.push(reply),
            }
            if outcome.exit.is_some() || outcome.failure.is_some() {
                break;
            }
        }
        // Whoever still writes stops here.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        outcome
    }
}

pub struct Writer(UnixStream);

impl Writer {
    pub fn stdin(&mut self, data: &[u8]) -> io::Result<()> {
        for chunk in data.chunks(60_000) {
            self.0.write_all(&encode_frame(Channel::Stdin, chunk))?;
        }
        Ok(())
    }

    pub fn end(&mut self) -> io::Result<()> {
        self.0.write_all(&encode_frame(Channel::Stdin, b""))
    }

    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }
}

/// Whether a process exists that is not a zombie.
pub fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X']))
    })
}

pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "still waiting: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub fn children_of_this_process() -> Vec<i32> {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let listed = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    let children = listed.flat_map(|line| line.split_whitespace().flat_map(str::parse).collect::<Vec<i32>>());
    children.collect()
}

pub fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

pub fn write_script(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A group of this test's own, where the machine lets us make one.
pub fn writable_cgroup() -> Option<PathBuf> {
    for mount in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        let parent = Path::new(mount).join(format!("coffer-test-{}", std::process::id()));
        let is_v2 = Path::new(mount).join("cgroup.procs").exists();
        if is_v2 && fs::create_dir(&parent).is_ok() {
            return Some(parent);
        }
    }
    None
}
