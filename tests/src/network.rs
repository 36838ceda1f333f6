//! A network of a test's own, and servers on it.
//!
//! In it every address there is leads back to the host without being its own, and nothing leads anywhere else: what
//! gets out of a sandbox is heard, and every packet is counted.

use std::{
    any::type_name,
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::noise;

/// Set for the test that has its own network.
const INSIDE: &str = "COFFER_TEST_NETWORK";
/// Where the names in [`HOSTS`] lead that are not to be special.
const HOSTS: &str = "127.0.0.1 localhost
203.0.113.80 server.test other.test third.test
10.1.2.3 private.test
169.254.169.254 metadata.test
127.0.0.1 loopback.test
203.0.113.80 mixed.test
10.1.2.3 mixed.test
";
/// Every other name leads here.
const ANY: [u8; 4] = [203, 0, 113, 81];
/// Rules and addresses as in any network; `$1` is a directory with the two files.
const ENTER: &str = r#"
ip link set lo up
ip route add local 0.0.0.0/0 dev lo
mount --bind "$1/hosts" /etc/hosts
mount --bind "$1/resolv.conf" /etc/resolv.conf
shift
exec "$@"
"#;

/// Runs the body with a network of its own: the test starts itself once more for that. Where no such network can be
/// made, the reason is printed.
pub fn with_own_network<F: Fn()>(body: F) {
    if env::var_os(INSIDE).is_some() {
        return body();
    }
    let user = if rustix::process::getuid().is_root() {
        "--mount"
    } else {
        "--map-root-user"
    };
    let possible = Command::new("unshare")
        .args(["--net", "--mount", user, "ip", "link"])
        .output();
    match possible {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            return skipped::because(format_args!(
                "no network of its own: {}",
                String::from_utf8_lossy(&output.stderr)
            ));
        }
        Err(error) => return skipped::because(format_args!("unshare: {error}")),
    }
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("hosts"), HOSTS).unwrap();
    fs::write(directory.path().join("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
    let test = type_name::<F>();
    let test = test.split_once("::").map_or(test, |(_, path)| path);
    let test = test.trim_end_matches("::{{closure}}");
    let status = Command::new("unshare")
        .args(["--net", "--mount", user, "sh", "-ec", ENTER, "sh"])
        .arg(directory.path())
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "yes")
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed in a network of its own");
}

/// Packets that this host has sent, its own to itself included.
pub fn packets_sent() -> u64 {
    const SENT: usize = 9;
    let table = fs::read_to_string("/proc/self/net/dev").unwrap();
    let lines = table.lines().filter_map(|line| line.split_once(':'));
    lines
        .map(|(_, numbers)| {
            let number = numbers.split_whitespace().nth(SENT).unwrap();
            number.parse::<u64>().unwrap()
        })
        .sum()
}

/// The resolver of this host: any name has the same address.
#[derive(Debug)]
pub struct Resolver(Arc<AtomicUsize>);

impl Resolver {
    pub fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
        let questions = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&questions);
        thread::spawn(move || {
            let mut packet = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut packet) {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = socket.send_to(&answer(&packet[..length]), from);
            }
        });
        Resolver(questions)
    }

    /// That it was asked until now.
    pub fn questions(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn answer(question: &[u8]) -> Vec<u8> {
    const HEADER: usize = 12;
    let name = question[HEADER..].iter().position(|byte| *byte == 0).unwrap();
    let end = HEADER + name + 1 + 4;
    let is_v4 = question[HEADER + name + 2] == 1;
    let counts = [0, 1, 0, u8::from(is_v4), 0, 0, 0, 0];
    let mut answer = [&question[..2], &[0x81, 0x80], &counts, &question[HEADER..end]].concat();
    if is_v4 {
        answer.extend([0xc0, HEADER as u8, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(ANY);
    }
    answer
}

/// A web server at a port of every address.
///
/// `/noise/N` is so much [`noise`]; `/same` says whether that is what was put there; `/hold` says a line and then
/// nothing; anything else is a greeting with the Host that was asked for.
#[derive(Debug)]
pub struct Web {
    requests: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

impl Web {
    pub fn start(port: u16) -> Self {
        let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
        let web = Web {
            requests: Arc::default(),
            connections: Arc::default(),
        };
        let (requests, connections) = (Arc::clone(&web.requests), Arc::clone(&web.connections));
        thread::spawn(move || {
            for stream in listener.incoming() {
                connections.fetch_add(1, Ordering::SeqCst);
                let requests = Arc::clone(&requests);
                thread::spawn(move || serve(&stream.unwrap(), &requests));
            }
        });
        web
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// One request after the other. Whoever asks may go at any time.
fn serve(stream: &TcpStream, requests: &AtomicUsize) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = Request::read(&mut reader) {
        requests.fetch_add(1, Ordering::SeqCst);
        if request.reply(&mut reader, stream).is_err() {
            return;
        }
    }
}

#[derive(Debug, Default)]
struct Request {
    path: String,
    host: String,
    length: usize,
    waits: bool,
}

impl Request {
    fn read(reader: &mut impl BufRead) -> Option<Self> {
        let mut lines = reader.lines();
        let first = lines.next()?.ok()?;
        let mut request = Request {
            path: first.split(' ').nth(1)?.to_owned(),
            ..Request::default()
        };
        for line in lines {
            let line = line.ok()?;
            let Some((name, value)) = line.split_once(':') else {
                return Some(request);
            };
            let value = value.trim().to_owned();
            match name.to_ascii_lowercase().as_str() {
                "host" => request.host = value,
                "content-length" => request.length = value.parse().ok()?,
                "expect" => request.waits = true,
                _ => {}
            }
        }
        None
    }

    fn reply(&self, reader: &mut impl Read, mut stream: &TcpStream) -> std::io::Result<()> {
        if self.waits {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let mut body = vec![0; self.length];
        reader.read_exact(&mut body)?;
        let body = match self.path.split('/').collect::<Vec<_>>()[..] {
            ["", "noise", length] => noise(length.parse().unwrap_or(0)),
            ["", "same"] => match body == noise(body.len()) {
                true => b"same\n".to_vec(),
                false => b"different\n".to_vec(),
            },
            ["", "hold"] => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nheld\n")?;
                return Ok(());
            }
            _ => format!("hello from {}\n", self.host).into_bytes(),
        };
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )?;
        stream.write_all(&body)
    }
}
