//! The machine's side of the link, and the owner's of the process.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, IoSlice, Write},
    mem::MaybeUninit,
    net::SocketAddr,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use egress_policy::{
    Effect, EgressPolicy, HostName, Reason, Rule, Target,
    control::{
        CONFIG_VERSION, Config, End, Event, LINK_DESCRIPTOR, Record, Request, ResolverConfig, Spent,
        Upstream, What,
    },
    link::{self, FromEgress, Id, Protocol, ToEgress, VERSION},
};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    recv, sendmsg, socketpair, sockopt,
};
use rustix::process::{Resource, Rlimit, setrlimit};

/// Longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Machine {
    child: Child,
    link: Option<Arc<Link>>,
    stdin: Option<ChildStdin>,
    events: mpsc::Receiver<Event>,
    pub(crate) seen: Vec<Event>,
    heard: VecDeque<FromEgress>,
    next: u64,
}

pub(crate) fn allow(rules: &[&str]) -> EgressPolicy {
    let rule = |text: &&str| match text.strip_prefix('!') {
        Some(text) => Rule::parse(Effect::Deny, text).unwrap(),
        None => Rule::parse(Effect::Allow, text).unwrap(),
    };
    EgressPolicy {
        rules: rules.iter().map(rule).collect(),
        ..EgressPolicy::default()
    }
}

pub(crate) fn config(policy: EgressPolicy) -> Config {
    Config {
        version: CONFIG_VERSION,
        policy,
        resolver: ResolverConfig::default(),
        upstream: Upstream::default(),
        spent: Spent::default(),
    }
}

/// With rules, and names of the hosts file that all lead to loopback.
pub(crate) fn with_hosts(rules: &[&str], names: &[&str]) -> Config {
    let mut config = config(allow(rules));
    let names = names.iter().map(ToString::to_string).collect();
    config.resolver.hosts = vec![("127.0.0.1".parse().unwrap(), names)];
    config
}

pub(crate) fn with_dns(rules: &[&str], server: SocketAddr) -> Config {
    let mut config = config(allow(rules));
    config.resolver.nameservers = vec![server];
    config
}

pub(crate) fn name(name: &str) -> Target {
    Target::Name(HostName::try_from(name.to_owned()).unwrap())
}

pub(crate) fn address(address: &str) -> Target {
    Target::Address(address.parse().unwrap())
}

impl Machine {
    pub(crate) fn start(config: &Config) -> Self {
        let mut machine = Machine::spawn();
        machine.write(config);
        machine.greet();
        machine.event(|event| matches!(event, Event::Ready));
        machine
    }

    /// Its owner reads nothing it says.
    pub(crate) fn deaf(config: &Config) -> Self {
        let mut machine = Machine::spawn_as(None, |stdout| {
            let (_, receiver) = mpsc::channel();
            std::mem::forget(stdout);
            receiver
        });
        machine.write(config);
        machine.greet();
        machine
    }

    /// Has so many descriptors and no more.
    pub(crate) fn poor(config: &Config, descriptors: u64) -> Self {
        let mut machine = Machine::spawn_as(Some(descriptors), events);
        machine.write(config);
        machine.greet();
        machine
    }

    /// Not yet configured, and not greeted.
    pub(crate) fn spawn() -> Self {
        Machine::spawn_as(None, events)
    }

    #[allow(unsafe_code, reason = "a child gets a descriptor of a given number")]
    fn spawn_as(descriptors: Option<u64>, events: impl FnOnce(ChildStdout) -> mpsc::Receiver<Event>) -> Self {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        sockopt::set_socket_timeout(&ours, sockopt::Timeout::Recv, Some(PATIENCE)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_coffer-egress"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // Not 3 already, which `dup2` would leave to be closed.
        let theirs = rustix::io::fcntl_dupfd_cloexec(&theirs, 10).unwrap();
        let raw = theirs.as_raw_fd();
        let pass = move || {
            if descriptors.is_some() {
                let limit = Rlimit {
                    current: descriptors,
                    maximum: descriptors,
                };
                setrlimit(Resource::Nofile, limit)?;
            }
            // SAFETY: `dup2` touches no memory, and `raw` is open until the child is spawned.
            match unsafe { libc::dup2(raw, LINK_DESCRIPTOR) } {
                0.. => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: `pass` only calls `setrlimit` and `dup2`, which may be called between fork and exec.
        unsafe { command.pre_exec(pass) };
        let mut child = command.spawn().unwrap();
        drop(theirs);
        let stdin = child.stdin.take();
        let events = events(child.stdout.take().unwrap());
        Machine {
            child,
            link: Some(Arc::new(Link(ours))),
            stdin,
            events,
            seen: Vec::new(),
            heard: VecDeque::new(),
            next: 1,
        }
    }

    pub(crate) fn greet(&mut self) {
        self.say(&ToEgress::Hello { version: VERSION });
        assert_eq!(self.hear(), FromEgress::Hello { version: VERSION });
    }

    pub(crate) fn write(&mut self, line: &impl serde::Serialize) {
        let mut line = serde_json::to_vec(line).unwrap();
        line.push(b'\n');
        self.stdin.as_mut().unwrap().write_all(&line).unwrap();
    }

    pub(crate) fn change(&mut self, policy: EgressPolicy) {
        self.write(&Request::Policy { policy });
    }

    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub(crate) fn close_link(&mut self) {
        self.link = None;
    }

    pub(crate) fn id(&mut self) -> Id {
        self.next += 1;
        Id(self.next)
    }

    pub(crate) fn say(&self, message: &ToEgress) {
        self.send(&link::encode(message).unwrap(), &[]);
    }

    pub(crate) fn send(&self, bytes: &[u8], descriptors: &[&dyn AsFd]) {
        self.link().send(bytes, descriptors).unwrap();
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        self.link.as_ref().unwrap()
    }

    /// The next message.
    pub(crate) fn hear(&mut self) -> FromEgress {
        let heard = self.heard.pop_front().or_else(|| self.link().hear());
        heard.expect("the link says nothing")
    }

    /// The first message that is wanted; others wait.
    pub(crate) fn hear_that(&mut self, wanted: impl Fn(&FromEgress) -> bool) -> FromEgress {
        if let Some(at) = self.heard.iter().position(&wanted) {
            return self.heard.remove(at).unwrap();
        }
        loop {
            let message = self.link().hear().expect("the link says nothing");
            if wanted(&message) {
                return message;
            }
            self.heard.push_back(message);
        }
    }

    pub(crate) fn is_hung_up(&self) -> bool {
        self.link().is_hung_up()
    }

    pub(crate) fn ask_name(&mut self, text: &str) -> bool {
        let id = self.id();
        self.say(&ToEgress::Name {
            id,
            name: HostName::try_from(text.to_owned()).unwrap(),
            protocol: Protocol::Udp,
            port: 5353,
        });
        let answer =
            self.hear_that(|message| matches!(message, FromEgress::Name { id: of, .. } if *of == id));
        matches!(answer, FromEgress::Name { allowed: true, .. })
    }

    /// Asks, and does not wait.
    pub(crate) fn ask(&mut self, target: Target, port: u16) -> (Id, UnixStream) {
        let id = self.id();
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        let message = ToEgress::Open {
            id,
            source: 40_000,
            target,
            port,
        };
        self.send(&link::encode(&message).unwrap(), &[&theirs]);
        (id, ours)
    }

    pub(crate) fn answer(&mut self, id: Id) -> Result<(), Reason> {
        let answer = self.hear_that(|message| match message {
            FromEgress::Opened { id: of } | FromEgress::Refused { id: of, .. } => *of == id,
            _ => false,
        });
        match answer {
            FromEgress::Refused { reason, .. } => Err(reason),
            _ => Ok(()),
        }
    }

    pub(crate) fn open(&mut self, target: Target, port: u16) -> Result<(Id, UnixStream), Reason> {
        let (id, stream) = self.ask(target, port);
        self.answer(id).map(|()| (id, stream))
    }

    pub(crate) fn refused(&mut self, target: Target, port: u16) -> Reason {
        self.open(target, port).expect_err("it was opened")
    }

    /// The first event, of those seen and those to come, that is wanted.
    pub(crate) fn event(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        if let Some(event) = self.seen.iter().find(|event| wanted(event)) {
            return event.clone();
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).expect("no such event");
            self.seen.push(event.clone());
            if wanted(&event) {
                return event;
            }
        }
    }

    pub(crate) fn record(&mut self, wanted: impl Fn(&Record) -> bool) -> Record {
        let event = self.event(|event| matches!(event, Event::Record(record) if wanted(record)));
        match event {
            Event::Record(record) => record,
            other => panic!("{other:?}"),
        }
    }

    /// How a flow ended, and what it had sent and received.
    pub(crate) fn closed(&mut self, id: Id) -> (End, u64, u64) {
        let record = self.record(|record| matches!(record.what, What::Closed { flow, .. } if flow == id));
        match record.what {
            What::Closed {
                sent, received, end, ..
            } => (end, sent, received),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn told_refused(&mut self, reason: Reason) -> Record {
        self.record(|record| matches!(record.what, What::Refused { reason: told, .. } if told == reason))
    }

    pub(crate) fn broken(&mut self, id: Id) {
        self.hear_that(|message| *message == FromEgress::Broken { id });
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the process does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Of the process, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let path = format!("/proc/{}/statm", self.child.id());
        let text = std::fs::read_to_string(path).unwrap();
        let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
        pages * 4096
    }
}

/// Closed with the last who holds it.
pub(crate) struct Link(OwnedFd);

impl Link {
    pub(crate) fn send(&self, bytes: &[u8], descriptors: &[&dyn AsFd]) -> rustix::io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors: Vec<_> = descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        sendmsg(
            &self.0,
            &[IoSlice::new(bytes)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )
        .map(|_| ())
    }

    /// Gives up sending when nobody reads.
    pub(crate) fn lose_patience(&self) {
        let second = Some(Duration::from_secs(1));
        sockopt::set_socket_timeout(&self.0, sockopt::Timeout::Send, second).unwrap();
    }

    pub(crate) fn hear(&self) -> Option<FromEgress> {
        let mut bytes = [0; link::MAX_MESSAGE];
        let (_, len) = recv(&self.0, &mut bytes, RecvFlags::empty()).ok()?;
        link::decode(&bytes[..len])
    }

    /// Does the other end close the link?
    fn is_hung_up(&self) -> bool {
        let mut bytes = [0; link::MAX_MESSAGE];
        loop {
            match recv(&self.0, &mut bytes, RecvFlags::empty()) {
                Ok((_, 0)) | Err(rustix::io::Errno::CONNRESET) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn events(stdout: ChildStdout) -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let event = serde_json::from_str(&line).expect("a line that is no event");
            if sender.send(event).is_err() {
                return;
            }
        }
    });
    receiver
}
