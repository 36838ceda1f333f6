//! What a guest reaches: what a rule names, and not one packet more.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

use tests::{Host, Resolver, Session, Web, cases, packets_sent, with_own_network};

/// Whoever refuses at once needs no longer, also on an emulated machine.
const AT_ONCE: f32 = 1.5;

#[test]
fn a_name_that_no_rule_allows() {
    with_own_network(|| {
        let (host, resolver, web) = (Host::new(), Resolver::start(), Web::start(80));
        let before = packets_sent();
        let line = "curl -sS -m 5 -w '%{time_total}' https://example.com; code=$?
            getent hosts example.com; getent ahostsv6 example.com; exit $code";
        let ended = host.coffer(["run", "--", "sh", "-c", line]).end().code(6);
        assert!(ended.text().parse::<f32>().unwrap() < AT_ONCE, "{ended}");
        let note = "network: example.com refused (no rule allows it); --allow example.com lets it";
        assert!(ended.stderr.contains(note), "{ended}");
        // No packet left for it, of whatever kind.
        assert_eq!((packets_sent(), resolver.questions()), (before, 0));
        let told = host.coffer(["net"]).end().code(0);
        let row = row(&told.text(), "example.com");
        assert!(row.contains("no rule allows it"), "{told}");

        // The same name with a rule is asked for, which shows that it would have been seen.
        let words = [
            "run",
            "--allow",
            "example.com",
            "--",
            "curl",
            "-sS",
            "-m",
            "5",
            "http://example.com",
        ];
        host.coffer(words).end().says("hello from example.com");
        assert!(resolver.questions() > 0 && packets_sent() > before && web.requests() == 1);
        let told = host.coffer(["net"]).end().code(0);
        assert!(told.text().contains("example.com:80  203.0.113.81"), "{told}");
    });
}

/// The first line of a table with this in it.
fn row(page: &str, what: &str) -> String {
    let found = page.lines().find(|line| line.starts_with(what));
    found.unwrap_or_else(|| panic!("no {what} in {page}")).to_owned()
}

struct World {
    session: Session,
    resolver: Resolver,
    web: Web,
    other_port: Web,
}

impl World {
    fn net(&self) -> String {
        let session = &self.session;
        session
            .host()
            .coffer(["net", session.name()])
            .end()
            .code(0)
            .text()
    }

    /// What curl says, and no connection to any server meanwhile.
    fn refused(&self, code: i32, arguments: &str) {
        let before = (self.web.connections(), self.other_port.connections());
        let line = format!("curl -sS -m 5 -w '%{{time_total}}' {arguments}");
        let ended = self.session.sh(&line).end().code(code);
        assert!(ended.text().parse::<f32>().unwrap() < AT_ONCE, "{ended}");
        let after = (self.web.connections(), self.other_port.connections());
        assert_eq!(before, after, "{ended}");
    }
}

const ALLOWED: [&str; 12] = [
    "--allow",
    "server.test",
    "--allow",
    "private.test",
    "--allow",
    "metadata.test",
    "--allow",
    "loopback.test",
    "--allow",
    "192.0.2.0/24:8080",
    "--deny",
    "192.0.2.7",
];

#[test]
fn where_a_guest_gets() {
    with_own_network(|| {
        let (resolver, web, other_port) = (Resolver::start(), Web::start(80), Web::start(8080));
        let world = World {
            session: Host::new().up("web", &ALLOWED),
            resolver,
            web,
            other_port,
        };
        cases!(world;
            an_allowed_name_is_reached,
            another_host_in_a_request_is_refused,
            a_name_that_leads_to_a_special_address_is_refused,
            an_address_is_reached_where_a_rule_has_it_and_nowhere_else,
            no_spelling_of_an_address_is_another_address,
            nothing_but_tcp_gets_out,
            questions_to_others_and_odd_questions_get_nothing,
            much_goes_through_unharmed,
        );
    });
}

fn an_allowed_name_is_reached(world: &World) {
    let curl = world
        .session
        .sh("curl -sS -m 9 http://server.test/ http://server.test/");
    curl.end().says("hello from server.test\nhello from server.test");
    let net = world.net();
    assert!(
        net.contains("allow server.test") && net.contains("nothing else"),
        "{net}"
    );
    let row = row(&net, "server.test:80");
    assert!(row.contains("203.0.113.80") && row.contains("curl"), "{row}");
}

fn another_host_in_a_request_is_refused(world: &World) {
    let before = world.web.requests();
    let curl = "curl -sS -m 5 -H 'Host: other.test' http://server.test/";
    let ended = world.session.sh(curl).end();
    assert!([52, 56].contains(&ended.code), "{ended}");
    // The second request of one connection counts as much as the first.
    let program = "
import http.client
line = http.client.HTTPConnection('server.test', timeout=5)
line.request('GET', '/'); print(line.getresponse().read().decode().strip())
try:
    line.request('GET', '/', headers={'Host': 'other.test'}); print(line.getresponse().read())
except (OSError, http.client.HTTPException): print('refused')
";
    let said = world.session.exec(&[], ["python3", "-c", program]).end();
    said.says("hello from server.test\nrefused");
    assert_eq!(world.web.requests(), before + 1);
    let net = world.net();
    assert!(
        net.contains("another Host in an HTTP request than was asked for"),
        "{net}"
    );
}

fn a_name_that_leads_to_a_special_address_is_refused(world: &World) {
    for (name, why) in [
        ("private.test", "10.1.2.3: a private address"),
        ("metadata.test", "169.254.169.254: a metadata service"),
        ("loopback.test", "127.0.0.1: a loopback address"),
    ] {
        world.refused(7, &format!("http://{name}/"));
        let net = world.net();
        assert!(row(&net, name).contains(why), "{net}");
    }
}

fn an_address_is_reached_where_a_rule_has_it_and_nowhere_else(world: &World) {
    let curl = world.session.sh("curl -sS -m 5 http://192.0.2.9:8080/");
    curl.end().says("hello from 192.0.2.9:8080");
    let before = packets_sent();
    let program = "
import socket
for place in ['192.0.2.9 80', '192.0.2.7 8080', '192.0.3.9 8080', '203.0.113.80 80', '10.0.0.1 80', '169.254.169.254 80', '100.64.0.1 80',
        '198.18.0.1 80', '198.18.200.1 8080', '2001:db8::1 80', 'fd00::1 80', '::ffff:192.0.2.9 80']:
    try:
        socket.create_connection(place.split(), timeout=3); print('open', place)
    except ConnectionRefusedError: pass
    except OSError as error: print(repr(error), place)
";
    world.session.exec(&[], ["python3", "-c", program]).end().says("");
    assert_eq!(packets_sent(), before);
    let net = world.net();
    assert!(row(&net, "192.0.2.9:80 ").contains("no rule allows it"), "{net}");
    assert!(row(&net, "192.0.2.7:8080").contains("a rule denies it"), "{net}");
    assert!(row(&net, "169.254.169.254:80").contains("metadata"), "{net}");
    assert!(row(&net, "[fd00::1]:80").contains("private"), "{net}");
}

fn no_spelling_of_an_address_is_another_address(world: &World) {
    let before = packets_sent();
    let program = "
import socket
for place in ['10.1', '0xa.0.0.1', '012.0.0.1', '2852039166', '[64:ff9b::a9fe:a9fe]', '[::a9fe:a9fe]',
        '[::ffff:169.254.169.254]', '[2002:a9fe:a9fe::1]', '[ff02::1]', '224.0.0.1', '255.255.255.255', '0.0.0.1', '240.0.0.1']:
    try:
        socket.create_connection((place.strip('[]'), 80), timeout=3)
        print('open', place)
    except TimeoutError: print('silent', place)
    except OSError: pass
";
    world.session.exec(&[], ["python3", "-c", program]).end().says("");
    assert_eq!(packets_sent(), before);
}

fn nothing_but_tcp_gets_out(world: &World) {
    let before = packets_sent();
    let program = "
import socket
for family, place in [(socket.AF_INET, ('192.0.2.9', 8080)), (socket.AF_INET, ('8.8.8.8', 53)), (socket.AF_INET, ('203.0.113.80', 443)),
        (socket.AF_INET6, ('2001:db8::1', 53))]:
    line = socket.socket(family, socket.SOCK_DGRAM); line.settimeout(3)
    line.connect(place); line.send(b'x' * 1200)
    try: print(line.recv(9), place)
    except ConnectionRefusedError: pass
    except OSError as error: print(repr(error), place)
";
    world.session.exec(&[], ["python3", "-c", program]).end().says("");
    world
        .session
        .sh("ping -c 1 -W 3 198.18.0.1 >ping && ping -c 1 -W 3 fdc0:ffe4::1 >ping")
        .end()
        .code(0);
    let pings =
        "! ping -c 1 -W 3 192.0.2.9 && ! ping -c 1 -W 3 2001:db8::1 && ! ping -c 1 -W 3 -s 60000 192.0.2.9";
    let ended = world.session.sh(pings).end().code(0);
    let no = ended.text().matches("filtered").count() + ended.text().matches("prohibited").count();
    assert_eq!(no, 3, "{ended}");
    assert_eq!(packets_sent(), before);
    let net = world.net();
    assert!(row(&net, "udp 8.8.8.8:53").contains("UDP; only names"), "{net}");
    assert!(
        row(&net, "icmp 192.0.2.9").contains("ICMP; only the gateway"),
        "{net}"
    );
}

/// Asks by hand: whom, which name, which type, over TCP or not. Says the code of the answer and how many there are.
const ASK: &str = "
import random, socket, struct
def packet(name, kind=1, more=b'', extra=0):
    labels = b''.join(bytes([len(part)]) + part for part in name.split(b'.'))
    return struct.pack('>6H', random.randrange(65536), 0x100, 1, 0, 0, extra) + labels + b'\\0' + struct.pack('>2H', kind, 1) + more
def ask(data, to='198.18.0.1', tcp=False):
    try:
        line = socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
        line.settimeout(1.5); line.connect((to, 53))
        line.sendall(struct.pack('>H', len(data)) * tcp + data)
        said = line.recv(4096)[2 * tcp:]
        return 'code %d, %d answers' % (said[3] & 15, struct.unpack('>H', said[6:8])[0]) if said else 'closed'
    except ConnectionRefusedError: return 'refused'
    except (ConnectionResetError, BrokenPipeError): return 'cut'
    except TimeoutError: return 'silent'
    except OSError as error: return type(error).__name__
def option(version=0, name=b'\\0', size=1232, data=b''): return name + struct.pack('>HHBBHH', 41, size, 0, version, 0, len(data)) + data
def odd(*records): return ask(packet(b'server.test', 1, b''.join(records), len(records)))
";

fn questions_to_others_and_odd_questions_get_nothing(world: &World) {
    let (before, asked) = (packets_sent(), world.resolver.questions());
    let program = format!(
        "{ASK}
print('allowed', ask(packet(b'server.test')), ask(packet(b'server.test'), tcp=True), ask(packet(b'SERVER.Test')))
print('six', ask(packet(b'server.test', 28)))
print('below', ask(packet(b'deadbeef.server.test')), ask(packet(b'server.test.example.com')))
print('kinds', *[ask(packet(b'server.test', kind)) for kind in (16, 10, 255, 65, 64, 15, 33)])
print('others', ask(packet(b'server.test'), '8.8.8.8'), ask(packet(b'server.test'), '8.8.8.8', True), ask(packet(b'server.test'), '127.0.0.53'))
print('long', ask(packet(b'.'.join([b'a' * 60] * 4))), ask(packet(b'x.test') + b'z' * 40000), ask(packet(b'server.test') * 1500, tcp=True))
print('edns', odd(option()), odd(option(size=0)), odd(option(data=b'\\0\\x08\\0\\7\\0\\1\\x18\\0\\x0a\\1\\2')))
print('other version', odd(option(1)), odd(option(255)))
print('broken edns', odd(option(), option()), odd(option(name=b'\\1a\\0')), odd(option(name=b'\\xc0\\x0c')), odd(option(data=b'z' * 9)[:-1]), odd(b''))
ask(packet(b'x')[:12] + b'\\xc0\\x0c\\0\\1\\0\\1'); ask(b'\\xff' * 600); ask(b'')
flood = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(2000): flood.sendto(packet(b'%d.test' % number), ('198.18.0.1', 53))
"
    );
    let ended = world.session.exec(&[], ["python3", "-c", &program]).end().code(0);
    let said = ended.text();
    let says = |line: &str| {
        assert!(
            said.lines().any(|said| said == line),
            "{line:?} is not in\n{said}"
        );
    };
    says("allowed code 0, 1 answers code 0, 1 answers code 0, 1 answers");
    says("six code 0, 1 answers");
    says("below code 3, 0 answers code 3, 0 answers");
    says("others refused refused refused");
    says("long code 3, 0 answers code 3, 0 answers cut");
    says("edns code 0, 1 answers code 0, 1 answers code 0, 1 answers");
    says("other version code 0, 0 answers code 0, 0 answers");
    says(
        "broken edns code 1, 0 answers code 1, 0 answers code 1, 0 answers code 1, 0 answers code 1, 0 answers",
    );
    assert!(!row(&said, "kinds").contains("1 answers"), "{said}");
    assert_eq!((packets_sent(), world.resolver.questions()), (before, asked));
    world
        .session
        .sh("sleep 2; curl -sS -m 9 http://server.test/")
        .end()
        .says("hello from server.test");
}

fn much_goes_through_unharmed(world: &World) {
    let line = "curl -sS -m 100 -o noise http://server.test/noise/67108864 -w '%{speed_download} down\\n' &&
        curl -sS -m 100 -T noise http://server.test/same -w '%{speed_upload} up' && rm noise";
    let ended = world.session.sh(line).end().code(0);
    println!("{}", ended.text());
    assert!(ended.text().contains("same\n"), "{ended}");
}
