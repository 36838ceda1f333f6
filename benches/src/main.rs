//! The guest's half of `benches/run`: the only program in its initramfs, started as init.
//!
//! `bench=boot` on the kernel's command line: reset at once, so that the VMM's whole life is the boot.
//! `bench=vsock`: dial the host and do what it asks, one letter and a number at a time.
//! `bench=net net=ADDRESS/PREFIX,GATEWAY,HOST:PORT,MTU`: the same over TCP, on a network card set up so.
//!
//! Outside a guest, `bench-init --dir PATH` times the same operations on a directory that the guest does on a share.

mod folder;

use std::{
    env, fs,
    io::{self, Read, Write},
    net::TcpStream,
    path::Path,
    process, thread,
    time::Duration,
};

use rustix::{
    mount::{MountFlags, mount},
    system::{RebootCommand, reboot},
};
use vsock::{VMADDR_CID_HOST, VsockStream};

use folder::Plan;

/// Where the host listens; `benches/run` knows the same number.
const PORT: u32 = 5000;
const BLOCK: usize = 256 * 1024;
/// The words that say how to time a folder.
const MAX_WORDS: u64 = 4096;

fn main() {
    if process::id() != 1 {
        let words: Vec<String> = env::args().skip(1).collect();
        let plan = Plan::parse(words.iter().map(String::as_str));
        if let Err(error) = plan.and_then(|plan| plan.run(&mut io::stdout(), |_| Ok(()))) {
            eprintln!("bench-init: {error}");
            process::exit(1);
        }
        return;
    }
    // Whatever fails here shows on the host as a run without a figure.
    let _ = mount("proc", "/proc", "proc", MountFlags::empty(), None);
    let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let served = match command_line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("bench="))
    {
        Some("vsock") => dial().and_then(serve),
        Some("net") => connect(&command_line).and_then(serve),
        _ => Ok(()),
    };
    if let Err(error) = served {
        eprintln!("bench-init: {error}");
    }
    let _ = reboot(RebootCommand::Restart);
}

fn serve(mut host: impl Read + Write) -> io::Result<()> {
    let mut block = vec![0x5a; BLOCK];
    loop {
        let mut command = [0; 9];
        host.read_exact(&mut command)?;
        let [letter, count @ ..] = command;
        let mut left = u64::from_le_bytes(count);
        match letter {
            b'U' => {
                while left > 0 {
                    let n = left.min(BLOCK as u64) as usize;
                    host.write_all(block.get(..n).unwrap_or_default())?;
                    left -= n as u64;
                }
            }
            b'D' => {
                while left > 0 {
                    left = left.saturating_sub(host.read(&mut block)? as u64);
                }
                host.write_all(b"d")?;
            }
            b'P' => host.write_all(b"p")?,
            b'F' => {
                let mut words = String::new();
                Read::by_ref(&mut host)
                    .take(left.min(MAX_WORDS))
                    .read_to_string(&mut words)?;
                let outcome =
                    Plan::parse(words.split_whitespace()).and_then(|plan| plan.run(&mut host, take_turn));
                match outcome {
                    Ok(()) => host.write_all(b"done\n")?,
                    Err(error) => host.write_all(format!("failed {error}\n").as_bytes())?,
                }
            }
            _ => return Ok(()),
        }
    }
}

fn take_turn(host: &mut (impl Read + Write)) -> io::Result<()> {
    host.write_all(b"ready\n")?;
    host.read_exact(&mut [0])
}

/// The card is the only one there is.
fn connect(command_line: &str) -> io::Result<TcpStream> {
    let words = command_line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("net="));
    let words: Vec<&str> = words.unwrap_or_default().split(',').collect();
    let [address, gateway, host, mtu] = words[..] else {
        return Err(io::Error::other(
            "net= wants ADDRESS/PREFIX,GATEWAY,HOST:PORT,MTU",
        ));
    };
    let _ = mount("sysfs", "/sys", "sysfs", MountFlags::empty(), None);
    ip(&["link", "set", "eth0", "mtu", mtu, "up"])?;
    ip(&["address", "add", address, "dev", "eth0"])?;
    ip(&["route", "add", "default", "via", gateway])?;
    let host = host.parse().map_err(io::Error::other)?;
    let stream = TcpStream::connect_timeout(&host, Duration::from_secs(10))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn ip(words: &[&str]) -> io::Result<()> {
    let status = process::Command::new("/busybox").arg("ip").args(words).status()?;
    match status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("ip {}: {status}", words.join(" ")))),
    }
}

fn dial() -> io::Result<VsockStream> {
    for _ in 0..500 {
        if let Ok(stream) = VsockStream::connect_with_cid_port(VMADDR_CID_HOST, PORT) {
            return Ok(stream);
        }
        // The transport announces itself to nobody; it is there within milliseconds of init.
        thread::sleep(Duration::from_millis(if Path::new("/dev/vsock").exists() {
            1
        } else {
            5
        }));
    }
    Err(io::Error::other("the host does not answer"))
}
