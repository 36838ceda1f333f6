//! From a port to a socket, and from a socket to the process that holds it, as /proc tells it.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    os::unix::ffi::OsStrExt,
    path::Path,
    time::Instant,
};

use agent_protocol::PortProtocol;

/// Of a table: 150 bytes for each of some 28,000 sockets, which is every port a machine hands out.
const MAX_TABLE: u64 = 4 * 1024 * 1024;

/// How the kernel writes a socket that listens, in the fourth column.
const LISTENS: &str = "0A";

/// The number of the socket with this local port. One that is connected comes before one that listens.
pub(super) fn inode(net: &Path, protocol: PortProtocol, port: u16, until: Instant) -> Option<u64> {
    let tables = match protocol {
        PortProtocol::Tcp => ["tcp", "tcp6"],
        PortProtocol::Udp => ["udp", "udp6"],
    };
    let mut listens = None;
    for table in tables {
        let Ok(file) = File::open(net.join(table)) else {
            continue;
        };
        for line in BufReader::new(file.take(MAX_TABLE)).lines() {
            let Ok(line) = line else { break };
            if Instant::now() > until {
                return None;
            }
            match parse(&line) {
                Some(socket) if socket.port != port => {}
                Some(socket) if socket.listens => listens = Some(socket.inode),
                Some(socket) => return Some(socket.inode),
                None => {}
            }
        }
    }
    listens
}

struct Socket {
    port: u16,
    listens: bool,
    inode: u64,
}

/// `0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000  0 24680 …`; a connection that only
/// waits out its time has no socket any more, and number 0.
fn parse(line: &str) -> Option<Socket> {
    let mut columns = line.split_ascii_whitespace();
    let (_, port) = columns.nth(1)?.rsplit_once(':')?;
    let state = columns.nth(1)?;
    let inode = columns.nth(5)?.parse().ok().filter(|inode| *inode != 0)?;
    Some(Socket {
        port: u16::from_str_radix(port, 16).ok()?,
        listens: state == LISTENS,
        inode,
    })
}

/// The youngest process that has the socket open: who inherited it is the one who uses it. What this process itself
/// has is no command's.
pub(super) fn holder(proc: &Path, inode: u64, until: Instant) -> Option<u32> {
    let wanted = format!("socket:[{inode}]");
    let this = std::process::id();
    let mut processes: Vec<u32> = fs::read_dir(proc)
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != this)
        .collect();
    processes.sort_unstable_by(|a, b| b.cmp(a));
    for pid in processes {
        let Ok(descriptors) = fs::read_dir(proc.join(pid.to_string()).join("fd")) else {
            continue;
        };
        for descriptor in descriptors.flatten() {
            if Instant::now() > until {
                return None;
            }
            let target = fs::read_link(descriptor.path());
            if target.is_ok_and(|target| target.as_os_str().as_bytes() == wanted.as_bytes()) {
                return Some(pid);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream, UdpSocket},
        os::{fd::AsRawFd, unix::fs::symlink},
        time::Duration,
    };

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn number_of(socket: &impl AsRawFd) -> u64 {
        let link = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        let number = link
            .to_str()
            .unwrap()
            .trim_start_matches("socket:[")
            .trim_end_matches(']');
        number.parse().unwrap()
    }

    #[test]
    fn a_port_leads_to_its_socket_and_a_connection_comes_before_the_listener() {
        let net = Path::new("/proc/net");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let find = |protocol, port| inode(net, protocol, port, soon());
        assert_eq!(find(PortProtocol::Tcp, port), Some(number_of(&listener)));
        assert_eq!(find(PortProtocol::Udp, port), None);
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(find(PortProtocol::Tcp, port), Some(number_of(&accepted)));
        let client_port = client.local_addr().unwrap().port();
        assert_eq!(find(PortProtocol::Tcp, client_port), Some(number_of(&client)));
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = udp.local_addr().unwrap().port();
        assert_eq!(find(PortProtocol::Udp, port), Some(number_of(&udp)));
    }

    #[test]
    fn the_youngest_process_with_the_socket_has_it_and_time_bounds_the_search() {
        let proc = tempfile::tempdir().unwrap();
        for (pid, target) in [
            ("7", "socket:[42]"),
            ("30", "socket:[42]"),
            ("31", "socket:[421]"),
            ("x", "socket:[42]"),
        ] {
            let descriptors = proc.path().join(pid).join("fd");
            fs::create_dir_all(&descriptors).unwrap();
            symlink(target, descriptors.join("3")).unwrap();
        }
        assert_eq!(holder(proc.path(), 42, soon()), Some(30));
        assert_eq!(holder(proc.path(), 4, soon()), None);
        let past = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        assert_eq!(holder(proc.path(), 42, past), None);
        assert_eq!(inode(Path::new("/proc/net"), PortProtocol::Tcp, 1, past), None);
    }

    proptest::proptest! {
        #[test]
        fn no_line_makes_the_parser_panic(line in "[ 0-9A-F:x]{0,80}") {
            let _ = parse(&line);
        }
    }
}
