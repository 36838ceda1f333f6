//! Runs a command in a network of its own, whose one cable leads to this crate: what a guest sees, without a guest.
//!
//! For tests and measurements. As root:
//!
//! ```text
//! cable EGRESS CONFIG [--mtu N] -- COMMAND [ARGUMENT...]
//! ```
//!
//! EGRESS is the `coffer-egress` program and CONFIG a file with the line of JSON it begins with. Its events go to
//! standard error, or to the file that `CABLE_EVENTS` names. Exits as the command does.
#![allow(
    unsafe_code,
    reason = "a TAP device is made by ioctls that have no safe wrapper"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a tool for tests ends when something is wrong"
)]

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use egress_policy::addresses::{
    GATEWAY_V4, GATEWAY_V6, GUEST_MAC, GUEST_V4, GUEST_V6, MTU, PREFIX_V4, PREFIX_V6,
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    thread::{UnshareFlags, unshare_unsafe},
};
use user_net::{Carrier, Network, Offloads, unfinished_checksum};

/// The header before each frame of the device, as in virtio.
const HEADER: usize = 12;
const NEEDS_CHECKSUM: u8 = 1;
/// Header, Ethernet header, packet.
const LARGEST: usize = HEADER + 14 + 65_535;
/// Frames taken before the other direction has its turn.
const FRAMES_PER_TURN: usize = 64;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (egress, config, mtu, command) = match &arguments[..] {
        [egress, config, dashes, command @ ..] if dashes == "--" && !command.is_empty() => {
            (egress, config, MTU.to_string(), command)
        }
        [egress, config, word, mtu, dashes, command @ ..]
            if word == "--mtu" && dashes == "--" && !command.is_empty() =>
        {
            (egress, config, mtu.clone(), command)
        }
        _ => {
            eprintln!("usage: cable EGRESS CONFIG [--mtu N] -- COMMAND [ARGUMENT...]");
            return ExitCode::from(2);
        }
    };
    let (link, mut egress) = start_egress(egress, &fs::read_to_string(config).expect("the configuration"));
    let tap = leave_for_a_network_of_our_own(&mtu);
    let over = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&over);
    let (carrier, links) = Carrier::new().unwrap();
    links.replace(link);
    let cable = std::thread::spawn(move || carry(&tap, carrier, &seen));
    let status = Command::new(&command[0]).args(&command[1..]).status();
    over.store(true, Ordering::Relaxed);
    cable.join().unwrap();
    drop(egress.stdin.take());
    egress.wait().unwrap();
    match status {
        Ok(status) => ExitCode::from(status.code().or(status.signal().map(|s| 128 + s)).unwrap_or(125) as u8),
        Err(error) => {
            eprintln!("cable: {}: {error}", command[0]);
            ExitCode::from(127)
        }
    }
}

fn start_egress(program: &str, config: &str) -> (OwnedFd, Child) {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    let events: Stdio = match std::env::var_os("CABLE_EVENTS") {
        Some(path) => File::create(path).unwrap().into(),
        None => io::stderr().as_fd().try_clone_to_owned().unwrap().into(),
    };
    let mut command = Command::new(program);
    command.stdin(Stdio::piped()).stdout(events);
    let number = theirs.as_raw_fd();
    // SAFETY: dup2 takes two numbers, of which the first is open until `theirs` is dropped.
    let place = move || match unsafe { libc::dup2(number, 3) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    };
    // SAFETY: dup2 may be called between fork and exec.
    unsafe { command.pre_exec(place) };
    let mut child = command.spawn().expect("coffer-egress");
    let stdin = child.stdin.as_mut().unwrap();
    stdin.write_all(config.trim().as_bytes()).unwrap();
    stdin.write_all(b"\n").unwrap();
    drop(theirs);
    (ours, child)
}

/// A network namespace with a TAP device that is set up as the agent sets up a guest's card.
pub(crate) fn leave_for_a_network_of_our_own(mtu: &str) -> File {
    // SAFETY: no descriptor table is unshared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) }.expect("root");
    let tap = open_tap();
    let resolver = std::env::temp_dir().join(format!("cable-resolv.{}", rustix::thread::gettid()));
    fs::write(&resolver, format!("nameserver {GATEWAY_V4}\n")).unwrap();
    let mac = GUEST_MAC.map(|byte| format!("{byte:02x}")).join(":");
    let script = format!(
        "mount --make-rprivate /
         mount --bind {resolver} /etc/resolv.conf
         ip link set lo up
         sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.cable0.accept_dad=0 2>/dev/null
         ip link set cable0 address {mac} mtu {mtu} up
         ip address add {GUEST_V4}/{PREFIX_V4} dev cable0
         ip route add default via {GATEWAY_V4} dev cable0 onlink
         ip -6 address add {GUEST_V6}/{PREFIX_V6} dev cable0 nodad && ip -6 route add default via {GATEWAY_V6} dev cable0 onlink || true",
        resolver = resolver.display()
    );
    let done = Command::new("sh").args(["-ec", &script]).status().unwrap();
    fs::remove_file(&resolver).unwrap();
    assert!(done.success(), "the device cannot be set up");
    tap
}

fn open_tap() -> File {
    let tap = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .unwrap();
    // SAFETY: `ifreq` is integers in a union, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"cable0\0") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    let header = HEADER as libc::c_int;
    let descriptor = tap.as_raw_fd();
    // SAFETY: the request is a whole `ifreq` that outlives the call.
    let made = unsafe { libc::ioctl(descriptor, libc::TUNSETIFF, &raw const request) };
    // SAFETY: the argument is an integer that outlives the call.
    let sized = unsafe { libc::ioctl(descriptor, libc::TUNSETVNETHDRSZ, &raw const header) };
    let offloads = libc::c_ulong::from(libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6);
    // SAFETY: the argument is a number.
    let offloaded = unsafe { libc::ioctl(descriptor, libc::TUNSETOFFLOAD, offloads) };
    assert!(
        made == 0 && sized == 0 && offloaded == 0,
        "{}",
        io::Error::last_os_error()
    );
    rustix::io::ioctl_fionbio(&tap, true).unwrap();
    tap
}

/// The other end of the cable.
pub(crate) fn carry(tap: &File, mut carrier: Carrier, over: &AtomicBool) {
    carrier.connect(Offloads {
        receives_without_checksum: true,
    });
    let mut incoming = vec![0; LARGEST];
    let mut outgoing = Vec::with_capacity(LARGEST);
    let mut blocked = false;
    while !over.load(Ordering::Relaxed) {
        let wake = if blocked {
            PollFlags::IN | PollFlags::OUT
        } else {
            PollFlags::IN
        };
        let mut ready = [
            PollFd::new(tap, wake),
            PollFd::from_borrowed_fd(carrier.wake(), PollFlags::IN),
        ];
        let soon = rustix::time::Timespec {
            tv_sec: 0,
            tv_nsec: 100_000_000,
        };
        let _ = poll(&mut ready, Some(&soon));
        for _ in 0..FRAMES_PER_TURN {
            match (&mut &*tap).read(&mut incoming) {
                Ok(read) if read > HEADER => carrier.receive(&incoming[HEADER..read]),
                _ => break,
            }
        }
        carrier.turn();
        blocked = !send(tap, &mut carrier, &mut outgoing);
    }
}

/// False when the device has no room.
fn send(tap: &File, carrier: &mut Carrier, outgoing: &mut Vec<u8>) -> bool {
    for _ in 0..FRAMES_PER_TURN {
        if outgoing.is_empty() {
            outgoing.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            if !carrier.transmit(outgoing) {
                outgoing.clear();
                return true;
            }
            if let Some((start, offset)) = unfinished_checksum(&outgoing[HEADER..]) {
                outgoing[0] = NEEDS_CHECKSUM;
                outgoing[6..8].copy_from_slice(&start.to_le_bytes());
                outgoing[8..10].copy_from_slice(&offset.to_le_bytes());
            }
        }
        match (&mut &*tap).write(outgoing) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            _ => outgoing.clear(),
        }
    }
    // More is waiting; the device has room.
    false
}
