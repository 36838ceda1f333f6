//! A network of a test's own, and servers on it.
//!
//! In it every address of version 4, and a range of version 6, leads back to the host without being its own, and nothing
//! leads anywhere else: what gets out of a sandbox is heard, and every packet is counted.

use std::{
    any::type_name,
    env, fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
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
2001:db8:80::80 six.test
";
/// Every other name leads here, but for two.
const ANY: [u8; 4] = [203, 0, 113, 81];
/// An alias of a name that leads to a metadata service.
const ALIAS: &[u8] = b"\x05alias\x04test\0";
const REAL: &[u8] = b"\x04real\x05alias\x04test\0";
const METADATA: [u8; 4] = [169, 254, 169, 254];
/// Leads to [`ANY`] when it is asked for the first time, and to a private address from then on.
const TURNCOAT: &[u8] = b"\x08turncoat\x04test\0";
const PRIVATE: [u8; 4] = [10, 1, 2, 3];
/// Rules and addresses as in any network; `$1` is a directory with the two files.
const ENTER: &str = r#"
ip link set lo up
ip route add local 0.0.0.0/0 dev lo
ip -6 route add local 2001:db8:80::/48 dev lo
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

/// The resolver of this host. It knows every name.
#[derive(Debug)]
pub struct Resolver(Arc<AtomicUsize>);

impl Resolver {
    pub fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
        let questions = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&questions);
        thread::spawn(move || {
            let mut packet = [0; 2048];
            let mut turned = false;
            while let Ok((length, from)) = socket.recv_from(&mut packet) {
                count.fetch_add(1, SeqCst);
                let _ = socket.send_to(&answer(&packet[..length], &mut turned), from);
            }
        });
        Resolver(questions)
    }

    /// That it was asked until now.
    pub fn questions(&self) -> usize {
        self.0.load(SeqCst)
    }
}

fn answer(question: &[u8], turned: &mut bool) -> Vec<u8> {
    const HEADER: usize = 12;
    let end = HEADER + 1 + question[HEADER..].iter().position(|byte| *byte == 0).unwrap();
    let (name, is_v4) = (question[HEADER..end].to_ascii_lowercase(), question[end + 1] == 1);
    let records = match name.as_slice() {
        ALIAS => {
            // Of the question's name: the same with a label in front.
            let alias = [&b"\x04real\xc0"[..], &[HEADER as u8]].concat();
            let address = is_v4.then(|| record(&alias, 1, &METADATA));
            [Some(record(&SAME, 5, &alias)), address]
        }
        REAL if is_v4 => [Some(record(&SAME, 1, &METADATA)), None],
        TURNCOAT if is_v4 => {
            let address = if std::mem::replace(turned, true) {
                PRIVATE
            } else {
                ANY
            };
            [Some(record(&SAME, 1, &address)), None]
        }
        _ => [is_v4.then(|| record(&SAME, 1, &ANY)), None],
    };
    let records: Vec<_> = records.into_iter().flatten().collect();
    let counts = [0, 1, 0, records.len() as u8, 0, 0, 0, 0];
    let head = [&question[..2], &[0x81, 0x80], &counts, &question[HEADER..end + 4]].concat();
    [head, records.concat()].concat()
}

/// The name that was asked for, by its place.
const SAME: [u8; 2] = [0xc0, 12];

/// To be forgotten at once.
fn record(name: &[u8], kind: u8, data: &[u8]) -> Vec<u8> {
    [name, &[0, kind, 0, 1, 0, 0, 0, 0, 0, data.len() as u8], data].concat()
}

/// A web server at a port of every address.
///
/// `/noise/N` is so much [`noise`]; `/same` says whether that is what was put there; `/hold` says a line and then
/// nothing; `/to/HOST` leads to another host; anything else is a greeting with the Host that was asked for.
#[derive(Debug)]
pub struct Web(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicUsize,
    open: AtomicUsize,
    most_open: AtomicUsize,
    requests: AtomicUsize,
    heard: AtomicUsize,
}

impl Web {
    pub fn start(port: u16) -> Self {
        let listener = TcpListener::bind(("::", port)).unwrap();
        let web = Web(Arc::default());
        let counts = Arc::clone(&web.0);
        thread::spawn(move || {
            for stream in listener.incoming() {
                counts.connections.fetch_add(1, SeqCst);
                let open = 1 + counts.open.fetch_add(1, SeqCst);
                counts.most_open.fetch_max(open, SeqCst);
                let counts = Arc::clone(&counts);
                thread::spawn(move || {
                    serve(&stream.unwrap(), &counts);
                    counts.open.fetch_sub(1, SeqCst);
                });
            }
        });
        web
    }

    pub fn connections(&self) -> usize {
        self.0.connections.load(SeqCst)
    }

    /// At once, until now.
    pub fn most_open(&self) -> usize {
        self.0.most_open.load(SeqCst)
    }

    pub fn requests(&self) -> usize {
        self.0.requests.load(SeqCst)
    }

    /// Bytes, whether a request or not.
    pub fn heard(&self) -> usize {
        self.0.heard.load(SeqCst)
    }
}

/// One request after the other. Whoever asks may go at any time.
fn serve(stream: &TcpStream, counts: &Counts) {
    let mut reader = BufReader::new(Counted(stream, counts));
    while let Some(request) = Request::read(&mut reader) {
        counts.requests.fetch_add(1, SeqCst);
        if request.reply(&mut reader, stream).is_err() {
            return;
        }
    }
}

struct Counted<'a>(&'a TcpStream, &'a Counts);

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        self.1.heard.fetch_add(read, SeqCst);
        Ok(read)
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

    fn reply(&self, reader: &mut impl Read, mut stream: &TcpStream) -> io::Result<()> {
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
            ["", "to", host] => {
                let head = "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation:";
                return write!(stream, "{head} http://{host}/\r\n\r\n");
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
