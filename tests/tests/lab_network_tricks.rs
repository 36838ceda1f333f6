//! What is tried where a rule allows something: to get more by it than the rule says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

use std::{collections::BTreeSet, fs};

use tests::{Host, Resolver, Session, Web, cases, packets_sent, with_own_network};

struct World {
    session: Session,
    resolver: Resolver,
    web: Web,
    secure: Web,
}

const ALLOWED: [&str; 12] = [
    "--allow",
    "server.test",
    "--allow",
    "six.test",
    "--allow",
    "[2001:db8:80:1::/64]:80",
    "--allow",
    "alias.test",
    "--allow",
    "turncoat.test",
    "--allow",
    "mixed.test",
];

#[test]
fn more_than_a_rule_says() {
    with_own_network(|| {
        let world = World {
            session: Host::new().up("tricks", &ALLOWED),
            resolver: Resolver::start(),
            web: Web::start(80),
            secure: Web::start(443),
        };
        cases!(world;
            a_request_that_can_be_read_in_two_ways_is_refused,
            a_hello_that_hides_its_name_is_refused,
            nobody_else_is_asked_for_names,
            a_redirect_leads_no_further_than_the_rules,
            a_name_is_held_against_where_it_leads_this_time,
            segments_that_do_not_fit_change_nothing,
            servers_of_version_six_are_reached,
            whoever_has_sockets_has_no_files_and_the_machine_has_no_sockets,
        );
    });
}

impl World {
    fn net(&self) -> String {
        let host = self.session.host();
        host.coffer(["net", self.session.name()]).end().code(0).text()
    }

    /// The row of what was refused, for this reason.
    #[track_caller]
    fn told(&self, what: &str, why: &str) {
        let page = self.net();
        let (_, refused) = page.split_once("tried, and was refused:").unwrap();
        let found = refused
            .lines()
            .any(|line| line.starts_with(what) && line.contains(why));
        assert!(found, "no {what:?} with {why:?} in {page}");
    }

    #[track_caller]
    fn python(&self, user: &str, program: &str) -> String {
        let words = ["python3", "-c", program];
        self.session.exec(&["--user", user], words).end().code(0).text()
    }
}

const ASK: &str = "GET / HTTP/1.1\r\nHost: server.test\r\n\r\n";

fn a_request_that_can_be_read_in_two_ways_is_refused(world: &World) {
    let before = (world.web.heard(), world.web.requests());
    let program = r#"
import socket
def ask(*lines, body=''):
    line = socket.create_connection(('server.test', 80), 9)
    line.sendall(('\r\n'.join(lines) + '\r\n\r\n' + body).encode())
    try: return line.recv(15).decode() or 'closed'
    except ConnectionResetError: return 'refused'
host, get, post = 'Host: server.test', 'GET / HTTP/1.1', 'POST / HTTP/1.1'
chunked, hidden = 'Transfer-Encoding: chunked', '0\r\n\r\nGET / HTTP/1.1\r\nHost: other.test\r\n\r\n'
print(ask(get, host))
for lines in [
    (post, host, 'Content-Length: 43', chunked), (post, host, chunked, 'Content-Length: 5'),
    (post, host, 'Content-Length: 5', 'Content-Length: 43'), (post, host, 'Content-Length: +43'),
    (post, host, 'Transfer-Encoding: xchunked'), (post, host, 'Transfer-Encoding : chunked'), (post, host, chunked, ' , identity'),
    (get, host, 'Host: other.test'), (get, host + '\n', 'Host: other.test'), ('CONNECT other.test:443 HTTP/1.1', host),
]:
    said = ask(*lines, body=hidden)
    if said != 'refused': print(said, lines)
"#;
    assert_eq!(world.python("agent", program), "HTTP/1.1 200 OK");
    // Of those that were refused no byte arrived.
    let after = (world.web.heard(), world.web.requests());
    assert_eq!(after, (before.0 + ASK.len(), before.1 + 1));
    world.told("server.test:80", "an HTTP request that can be read in two ways");
    world.told("server.test:80", "an HTTP request for a tunnel");
}

fn a_hello_that_hides_its_name_is_refused(world: &World) {
    const HELLO: usize = 72;
    let before = world.secure.heard();
    let program = r"
import socket, struct
def sized(data): return struct.pack('>H', len(data)) + data
def part(kind, data): return struct.pack('>H', kind) + sized(data)
def name(text): return part(0, sized(b'\0' + sized(text)))
def hello(*parts):
    body = b'\3\3' + bytes(32) + b'\0' + sized(b'\x13\1') + b'\1\0' + sized(b''.join(parts))
    return b'\x16\3\1' + sized(b'\1' + struct.pack('>I', len(body))[1:] + body)
def say(data):
    line = socket.create_connection(('server.test', 443), 9)
    line.sendall(data)
    try: line.shutdown(socket.SHUT_WR)
    except OSError: pass
    try: return line.recv(9).decode() or 'closed'
    except ConnectionResetError: return 'refused'
hidden = part(0xfe0d, b'\0\0\1\0\1\7' + sized(bytes(32)) + sized(bytes(99)))
print(say(hello(name(b'server.test'))))
for data in [hello(), hello(hidden), hello(name(b'server.test'), hidden), hello(name(b'other.test')), hello(name(b'server.test'), name(b'other.test')),
        hello(name(b'server.test'))[:60], b'GET / HTTP/1.1\r\nHost: server.test\r\n\r\n']:
    said = say(data)
    if said != 'refused': print(said, data)
";
    assert_eq!(world.python("agent", program), "closed");
    assert_eq!(world.secure.heard(), before + HELLO);
    for why in [
        "no server name in the TLS hello",
        "the server name in the TLS hello is encrypted",
        "another server name in the TLS hello",
        "not TLS, on a port for TLS",
    ] {
        world.told("server.test:443", why);
    }
}

/// Over HTTPS and over TLS, by name, by address, and at the gateway.
fn nobody_else_is_asked_for_names(world: &World) {
    let before = (packets_sent(), world.resolver.questions());
    let curl = "curl -sS -m 5 --doh-url https://doh.test/dns-query http://server.test/";
    world.session.sh(curl).end().code(6);
    let program = "
import socket
for place in [('8.8.8.8', 443), ('8.8.8.8', 853), ('2001:db8:80::53', 853), ('198.18.0.1', 853), ('198.18.0.1', 443), ('dot.test', 853)]:
    try: print('open', place, socket.create_connection(place, 3))
    except (ConnectionRefusedError, socket.gaierror): pass
";
    assert_eq!(world.python("agent", program), "");
    assert_eq!((packets_sent(), world.resolver.questions()), before);
    for what in ["doh.test", "8.8.8.8:443", "8.8.8.8:853", "dot.test"] {
        world.told(what, "no rule allows it");
    }
}

fn a_redirect_leads_no_further_than_the_rules(world: &World) {
    let before = world.web.connections();
    for (to, code) in [("other.test", 6), ("169.254.169.254", 7), ("203.0.113.80", 7)] {
        let curl = format!("curl -sS -L -m 5 http://server.test/to/{to}");
        world.session.sh(&curl).end().code(code);
    }
    assert_eq!(world.web.connections(), before + 3);
    world.told("other.test", "no rule allows it");
    world.told("169.254.169.254:80", "a metadata service");
}

fn a_name_is_held_against_where_it_leads_this_time(world: &World) {
    let curl = |name: &str| world.session.sh(&format!("curl -sS -m 9 http://{name}/")).end();
    let before = (world.web.connections(), world.resolver.questions());
    curl("alias.test").code(7);
    world.told("alias.test:80", "169.254.169.254: a metadata service");
    assert_eq!(world.web.connections(), before.0);
    assert!(world.resolver.questions() > before.1);
    // Once it leads to where it may lead.
    curl("turncoat.test").says("hello from turncoat.test");
    curl("turncoat.test").code(7);
    world.told("turncoat.test:80", "10.1.2.3: a private address");
    // Two addresses, of which one is good.
    curl("mixed.test").says("hello from mixed.test");
    world.told("mixed.test:80", "10.1.2.3: a private address");
    assert_eq!(world.web.connections(), before.0 + 2);
}

/// Forged by who sees the true ones.
fn segments_that_do_not_fit_change_nothing(world: &World) {
    let before = (world.web.heard(), world.web.requests());
    let program = r"
import socket, struct
tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); tap.bind(('eth0', 3)); tap.settimeout(9)
line = socket.create_connection((socket.gethostbyname('server.test'), 80), 9)
own = line.getsockname()[1]
while True:
    frame, where = tap.recvfrom(200)
    if frame[12:14] + frame[23:24] == b'\x08\0\6' and struct.unpack('>H', frame[36:38])[0] == own: break
cable, ends = frame[6:12] + frame[:6] + b'\x08\0', frame[30:34] + frame[26:30]
theirs, ours = struct.unpack('>II', frame[38:46])
def checksum(data):
    total = sum(struct.unpack('>%dH' % (len(data) // 2), data))
    while total > 0xffff: total = (total & 0xffff) + (total >> 16)
    return struct.pack('>H', 0xffff - total)
def say(at, flags, data=b'', ahead=1):
    numbers = [(ours + at) % (1 << 32), (theirs + ahead) % (1 << 32)]
    body = struct.pack('>HHIIBBHHH', own, 80, *numbers, 0x50, flags, 65535, 0, 0) + data
    body = body[:16] + checksum(ends + struct.pack('>HH', 6, len(body)) + body) + body[18:]
    head = struct.pack('>BBHHHBBH', 0x45, 0, 20 + len(body), 7, 0, 64, 6, 0) + ends
    tap.send(cable + head[:10] + checksum(head) + head[12:] + body)
FIN, SYN, RST, ACK = 1, 2, 4, 16
odd = [0, SYN, SYN | FIN, SYN | RST, 0xff]
for at in [-80, -1000, 5000, 1 << 21, 1 << 30, -(1 << 30), (1 << 31) - 1, 1 << 31]:
    for flags in [RST, RST | ACK, FIN | ACK] + odd: say(at, flags)
    say(at, ACK, b'smuggled' * 10); say(at, ACK, ahead=1 << 20)
for flags in odd: say(0, flags, b'smuggled' * 10)
for ahead in [2, 1 << 30, 1 << 31]: say(0, ACK, b'smuggled' * 10, ahead)
line.sendall(b'GET / HTTP/1.1\r\nHost: server.test\r\n\r\n')
print(line.recv(15).decode())
";
    assert_eq!(world.python("root", program), "HTTP/1.1 200 OK");
    let after = (world.web.heard(), world.web.requests());
    assert_eq!(after, (before.0 + ASK.len(), before.1 + 1));
}

fn servers_of_version_six_are_reached(world: &World) {
    let line = "curl -sS -6 -m 9 http://six.test/ && curl -sS -4 -m 9 http://six.test/ && curl -sS -g -m 9 'http://[2001:db8:80:1::9]/'";
    let said = world.session.sh(line).end();
    said.says("hello from six.test\nhello from six.test\nhello from [2001:db8:80:1::9]");
    let page = world.net();
    let row = |row: &str| row.contains("six.test:80") && row.contains("2001:db8:80::80");
    assert!(page.lines().any(row), "{page}");
    let before = packets_sent();
    let line = "! curl -sS -g -m 5 'http://[2001:db8:80:2::9]/' && ! curl -sS -g -m 5 'http://[2001:db8:80:1::9]:443/'";
    world.session.sh(line).end().code(0);
    assert_eq!(packets_sent(), before);
    world.told("[2001:db8:80:2::9]:80", "no rule allows it");
}

fn whoever_has_sockets_has_no_files_and_the_machine_has_no_sockets(world: &World) {
    let hold = world
        .session
        .sh("curl -sSN -m 60 http://server.test/hold")
        .start();
    hold.wait_for("held");
    let egress = world.session.egress().unwrap().as_raw_nonzero().get();
    let egress = egress.try_into().unwrap();
    let machine = world.session.number("machine_pid");
    let has = |what: &String| {
        let kinds = [
            "socket:",
            "pipe:",
            "anon_inode:[eventfd]",
            "anon_inode:[eventpoll]",
        ];
        // Its tables are seeded once; the log is its standard error.
        let plain = what == "/dev/urandom" || what.ends_with("/egress.log");
        plain || kinds.iter().any(|kind| what.starts_with(kind))
    };
    let (egress_has, machine_has) = (open(egress), open(machine));
    assert!(egress_has.iter().all(has), "{egress_has:?}");
    // The one that is held shows what a socket to somewhere looks like.
    assert!(
        !egress_has.is_disjoint(&sockets_to_somewhere(egress)),
        "{egress_has:?}"
    );
    let to_somewhere = sockets_to_somewhere(machine);
    assert!(!machine_has.is_empty() && !to_somewhere.is_empty());
    assert!(machine_has.is_disjoint(&to_somewhere), "{machine_has:?}");
}

/// What the descriptors of a process are.
fn open(process: u64) -> BTreeSet<String> {
    let all = fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten();
    let named = all.filter_map(|entry| fs::read_link(entry.path()).ok());
    named.map(|what| what.display().to_string()).collect()
}

/// All that there are in its network, of every kind that leads out of a host.
fn sockets_to_somewhere(process: u64) -> BTreeSet<String> {
    let kinds = ["tcp", "tcp6", "udp", "udp6", "raw", "raw6", "packet"];
    let inode = |kind: &'static str| {
        let table = fs::read_to_string(format!("/proc/{process}/net/{kind}")).unwrap_or_default();
        let column = if kind == "packet" { 8 } else { 9 };
        let rows = table.lines().skip(1).map(str::to_owned);
        rows.filter_map(move |row| Some(format!("socket:[{}]", row.split_whitespace().nth(column)?)))
            .collect::<Vec<_>>()
    };
    kinds.into_iter().flat_map(inode).collect()
}

#[test]
fn what_is_used_up_is_cut_and_what_would_be_asked_about_is_refused() {
    with_own_network(|| {
        let (host, _resolver, web) = (Host::new(), Resolver::start(), Web::start(80));
        let line = "curl -sS -m 60 -o much -w '%{size_download} ' http://server.test/noise/5000000; echo $?
            curl -sS -m 5 http://server.test/; echo $?; curl -sS -m 5 http://unknown.test/; echo $?";
        let budget = [
            "run",
            "--net-max-bytes",
            "1M",
            "--ask-net",
            "--allow",
            "server.test",
        ];
        let ended = host.coffer(budget.iter().chain(&["--", "sh", "-c", line])).end();
        let said = ended.code(0).text();
        let [size, cut, none, unknown] = said.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("{said}");
        };
        let size: u64 = size.parse().unwrap();
        // What had not been read when it was cut is lost.
        assert!(size <= 1 << 20, "{said}");
        assert!(["18", "56"].contains(&cut), "{said}");
        assert_eq!((none, unknown), ("7", "6"));
        assert_eq!(web.requests(), 1);
        let page = host.coffer(["net"]).end().code(0).text();
        for words in [
            "at most 1M; 1M used",
            "the session's bytes are used up",
            "no rule is about it, and nobody can be asked",
        ] {
            assert!(page.contains(words), "no {words:?} in {page}");
        }
        let json = host.coffer(["net", "--json"]).end().code(0).text();
        assert!(json.contains(r#""end":"budget""#), "{json}");
    });
}
