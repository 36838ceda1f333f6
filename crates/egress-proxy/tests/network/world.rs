//! The host with its internet, the process, and a guest before it.

use std::{
    io::{BufRead, BufReader, Write},
    net::{IpAddr, SocketAddr},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use egress_policy::{
    Effect, EgressPolicy, Reason, Rule,
    addresses::MTU,
    control::{CONFIG_VERSION, Config, Event, Record, ResolverConfig, Spent, Upstream, What},
    link::DropReason,
};
use rustix::{
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    thread::{UnshareFlags, unshare_unsafe},
};
use user_net::{Carrier, Links};

use crate::cable;

/// Longer than anything takes that works.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
/// An address that nobody has, and every host name of the tests leads to.
pub(crate) const SERVER: &str = "203.0.113.80";

pub(crate) fn rules(rules: &[&str]) -> EgressPolicy {
    let rule = |text: &&str| match text.strip_prefix('!') {
        Some(text) => Rule::parse(Effect::Deny, text).unwrap(),
        None => Rule::parse(Effect::Allow, text).unwrap(),
    };
    EgressPolicy {
        rules: rules.iter().map(rule).collect(),
        ..EgressPolicy::default()
    }
}

/// With rules, and names that all lead to [`SERVER`].
pub(crate) fn config(allow: &[&str], names: &[&str]) -> Config {
    Config {
        version: CONFIG_VERSION,
        policy: rules(allow),
        resolver: ResolverConfig {
            nameservers: Vec::new(),
            hosts: vec![host(SERVER, names)],
        },
        upstream: Upstream::default(),
        spent: Spent::default(),
    }
}

pub(crate) fn with_dns(allow: &[&str], server: SocketAddr) -> Config {
    let mut config = config(allow, &[]);
    config.resolver.nameservers = vec![server];
    config
}

pub(crate) fn host(address: &str, names: &[&str]) -> (IpAddr, Vec<String>) {
    (
        address.parse().unwrap(),
        names.iter().map(ToString::to_string).collect(),
    )
}

/// The rest of the test is on a host of its own, where every address there is leads to it without being its own, and
/// nowhere else. False, and the reason printed, where that cannot be.
pub(crate) fn enter_a_host() -> bool {
    if !is_possible() {
        return false;
    }
    let script = "ip link set lo up
        ip route add local 0.0.0.0/0 dev lo
        sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.lo.disable_ipv6=0
        ip -6 route add local ::/0 dev lo";
    new_network();
    assert!(
        Command::new("sh")
            .args(["-ec", script])
            .status()
            .unwrap()
            .success()
    );
    true
}

/// Namespaces and a TAP device can be made.
pub(crate) fn is_possible() -> bool {
    let tun = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    let namespaces = Command::new("unshare").args(["-nm", "ip", "link"]).output();
    let reason = match (tun, namespaces) {
        (Err(error), _) => format!("/dev/net/tun: {error}"),
        (_, Err(error)) => format!("unshare: {error}"),
        (_, Ok(output)) if !output.status.success() => String::from_utf8_lossy(&output.stderr).into_owned(),
        _ => return true,
    };
    skipped::because(format_args!("needs root, namespaces and a TAP device: {reason}"));
    false
}

#[allow(unsafe_code, reason = "a thread leaves its namespace")]
fn new_network() {
    // SAFETY: no descriptor table is unshared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
}

/// Packets that were sent on this thread's host until now. Nothing on it talks without being told to.
pub(crate) fn packets() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let lo = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("lo:"))
        .unwrap();
    lo.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// `coffer-egress` as its owner sees it.
pub(crate) struct Egress {
    child: Child,
    stdin: ChildStdin,
    events: mpsc::Receiver<Event>,
    seen: Vec<Event>,
}

impl Egress {
    /// On the host of this thread. The other half is the machine's end of the link.
    #[allow(unsafe_code, reason = "a child gets a descriptor of a given number")]
    pub(crate) fn start(config: &Config) -> (Self, OwnedFd) {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_coffer-egress"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let raw = theirs.as_raw_fd();
        assert_ne!(raw, 3);
        // SAFETY: dup2 takes two numbers, of which the first is open until this function has spawned the child.
        let place = move || match unsafe { libc::dup2(raw, 3) } {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        };
        // SAFETY: dup2 may be called between fork and exec.
        unsafe { command.pre_exec(place) };
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        writeln!(stdin, "{}", serde_json::to_string(config).unwrap()).unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, events) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        let mut egress = Egress {
            child,
            stdin,
            events,
            seen: Vec::new(),
        };
        egress.event(|event| matches!(event, Event::Ready));
        (egress, ours)
    }

    pub(crate) fn request(&mut self, request: &egress_policy::control::Request) {
        writeln!(self.stdin, "{}", serde_json::to_string(request).unwrap()).unwrap();
    }

    /// The first event, of those seen and those to come, that is wanted.
    fn event(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        if let Some(event) = self.seen.iter().find(|event| wanted(event)) {
            return event.clone();
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(event) = self.events.recv_timeout(left) else {
                panic!("no such event in {:#?}", self.seen);
            };
            self.seen.push(event.clone());
            if wanted(&event) {
                return event;
            }
        }
    }

    pub(crate) fn record(&mut self, wanted: impl Fn(&Record) -> bool) -> Record {
        match self.event(|event| matches!(event, Event::Record(record) if wanted(record))) {
            Event::Record(record) => record,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn told_refused(&mut self, reason: Reason) {
        self.record(|record| matches!(&record.what, What::Refused { reason: told, .. } if *told == reason));
    }

    pub(crate) fn told_dropped(&mut self, reason: DropReason) {
        self.record(|record| matches!(record.what, What::Dropped { reason: told, .. } if told == reason));
    }

    /// What flows that were opened are connected to.
    pub(crate) fn connected_to(&mut self) -> IpAddr {
        let record = self.record(|record| matches!(record.what, What::Opened { .. }));
        match record.what {
            What::Opened { address, .. } => address,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn memory(&self) -> u64 {
        memory(&self.child.id().to_string())
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Egress {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Of a process, in bytes.
pub(crate) fn memory(process: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/statm")).unwrap();
    let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Does what a guest does, on a thread in a network whose one cable leads to `egress`.
pub(crate) fn as_guest<T: Send>(link: OwnedFd, guest: impl FnOnce() -> T + Send) -> T {
    as_guest_with(link, |_| guest())
}

/// The same, and the link can be replaced.
pub(crate) fn as_guest_with<T: Send>(link: OwnedFd, guest: impl FnOnce(&Links) -> T + Send) -> T {
    let over = &Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        let guest = scope.spawn(move || {
            let tap = cable::leave_for_a_network_of_our_own(&MTU.to_string());
            let (carrier, links) = Carrier::new().unwrap();
            links.replace(link);
            thread::scope(|scope| {
                scope.spawn(|| cable::carry(&tap, carrier, over));
                let _ends = Ends(over);
                guest(&links)
            })
        });
        guest
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The cable is not carried on when the guest has failed.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a shell's script in the guest: its status and all it said.
pub(crate) fn sh(script: &str) -> (i32, String) {
    let mut command = Command::new("timeout");
    command
        .args(["-s", "KILL", "50", "sh", "-c", script])
        .stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// What a script that succeeds says.
pub(crate) fn ok(script: &str) -> String {
    let (status, said) = sh(script);
    assert_eq!(status, 0, "{script}\n{said}");
    said
}
