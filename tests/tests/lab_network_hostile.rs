//! A guest whose root turns on the network: first with what its kernel lets it do, then with the card in its own hands.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tests::{Host, Resolver, Session, Web, cases, packets_sent, wait_until, with_own_network};

const HOSTILE: &str = env!("CARGO_BIN_EXE_hostile");
const MEMORY_KIB: u64 = 384 << 10;
/// Besides guest memory: 3.4 MiB were seen, in floods too. What a few hundred flows that stand may buffer is the rest.
const MOST_KIB: u64 = 64 << 10;
/// Of a guest at a time (`user-net` has the limit), and what a flood gets in any case.
const MOST_FLOWS: usize = 1024;
const MANY_FLOWS: usize = 100;
/// Several lines a minute for each thing a guest can do wrong.
const MOST_LOG_BYTES: u64 = 32 << 10;
/// Two files, the one that is written and the one that was full.
const MOST_RECORDS: u64 = 17 << 20;
/// Beside two machines on one emulated CPU of which one does what it can.
const SLOWEST_ANSWER: Duration = Duration::from_secs(30);

struct World {
    hostile: Session,
    neighbour: Session,
    _resolver: Resolver,
    web: Web,
}

#[test]
fn a_guest_whose_root_turns_on_the_network() {
    with_own_network(|| {
        let host = Host::new();
        let allow = ["--memory", "384M", "--allow", "server.test"];
        let world = World {
            hostile: host.up("hostile", &[&allow[..], &["--cpus", "2"]].concat()),
            neighbour: host.up("neighbour", &["--memory", "256M", "--allow", "server.test"]),
            _resolver: Resolver::start(),
            web: Web::start(80),
        };
        cases!(world;
            another_address_is_not_served,
            another_way_leads_nowhere,
            lies_to_neighbours_are_heard_by_nobody,
            pieces_and_other_protocols_are_dropped,
            a_flood_of_connections_drowns_nobody,
            the_card_by_hand,
        );
    });
}

const RAW: &str = "
import os, random, socket, struct
line = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); line.bind(('eth0', 0))
us, gateway, everybody = bytes.fromhex('02c0ffe40002'), bytes.fromhex('02c0ffe40001'), b'\\xff' * 6
def checksum(data):
    total = sum(struct.unpack('>%dH' % (len(data) // 2), data))
    while total > 0xffff: total = (total & 0xffff) + (total >> 16)
    return 0xffff - total
def four(source, target, body, protocol=6, mac=us, flags=0):
    head = struct.pack('>BBHHHBBH4s4s', 0x45, 0, 20 + len(body), 7, flags, 64, protocol, 0, socket.inet_aton(source), socket.inet_aton(target))
    head = head[:10] + struct.pack('>H', checksum(head)) + head[12:]
    return gateway + mac + b'\\x08\\0' + head + body
def syn(source, target, port, own=None):
    own = own or random.randrange(1024, 65536)
    body = struct.pack('>HHIIBBHHH', own, port, random.randrange(1 << 32), 0, 0x50, 2, 65535, 0, 0)
    pseudo = socket.inet_aton(source) + socket.inet_aton(target) + struct.pack('>HH', 6, len(body))
    return body[:16] + struct.pack('>H', checksum(pseudo + body)) + body[18:]
";

impl World {
    /// Python as root, which says nothing when all is well.
    fn raw(&self, program: &str) {
        let program = format!("{RAW}{program}");
        let words = ["python3", "-c", &program];
        self.hostile
            .exec(&["--user", "root"], words)
            .deadline(400)
            .end()
            .says("");
    }

    /// The session is as good as before, and its neighbour.
    fn holds(&self) {
        for session in [&self.hostile, &self.neighbour] {
            let ended = session.sh("curl -sS -m 20 http://server.test/").end();
            ended.says("hello from server.test");
        }
    }

    /// What a start of the machine does for the card.
    fn bring_up(&self) {
        let line = "ip link set eth0 up; ip address replace 198.18.0.2/32 dev eth0; ip route replace default via 198.18.0.1 dev eth0 onlink proto static";
        self.hostile.root(line).end().code(0);
    }

    fn told(&self, what: &str) {
        let host = self.hostile.host();
        let page = host.coffer(["net", "hostile"]).end().code(0).text();
        assert!(page.contains(what), "no {what:?} in {page}");
    }
}

fn another_address_is_not_served(world: &World) {
    let before = packets_sent();
    world.raw(
        "
for source in ['198.18.0.9', '203.0.113.1', '198.18.0.1', '127.0.0.1', '0.0.0.0']:
    line.send(four(source, '203.0.113.80', syn(source, '203.0.113.80', 80)))
line.send(four('198.18.0.2', '203.0.113.80', syn('198.18.0.2', '203.0.113.80', 80), mac=bytes.fromhex('0242ac110002')))",
    );
    let line = "ip address add 198.18.0.9/24 dev eth0; curl -sS -m 2 --interface 198.18.0.9 http://198.18.1.0/ 2>&1; ip address del 198.18.0.9/24 dev eth0";
    world.hostile.root(line).end().code(0);
    assert_eq!(packets_sent(), before);
    world.told("from an address that is not the guest's");
    world.holds();
}

fn another_way_leads_nowhere(world: &World) {
    let before = packets_sent();
    let line = "ip route replace default dev eth0; ! curl -sS -m 5 http://203.0.113.80/ && ! curl -sS -m 5 http://10.0.2.2/;
        ip route replace default via 198.18.0.77 onlink dev eth0; ! curl -sS -m 5 http://203.0.113.80/;
        ip route replace default via 198.18.0.1 dev eth0 onlink proto static";
    world.hostile.root(line).end().code(0);
    assert_eq!(packets_sent(), before);
    // A cable of another length carries as well.
    let line = "ip link set eth0 mtu 1280; curl -sS -m 20 http://server.test/noise/500000 | wc -c; ip link set eth0 mtu 65520";
    world.hostile.root(line).end().says("500000");
    world
        .hostile
        .root("ip -6 route replace default via fdc0:ffe4::1 dev eth0 onlink proto static")
        .end();
    world.holds();
}

fn lies_to_neighbours_are_heard_by_nobody(world: &World) {
    let before = packets_sent();
    world.raw(
        "
def arp(op, mac, address, to): return everybody + us + b'\\x08\\x06' + struct.pack('>HHBBH', 1, 0x800, 6, 4, op) + mac + socket.inet_aton(address) + everybody + socket.inet_aton(to)
for number in range(500):
    line.send(arp(1 + number % 2, us, '198.18.0.1', '198.18.0.%d' % (number % 256)))
    mac = bytes([2, 0, 0, 0, number >> 8, number & 255])
    dhcp = struct.pack('>BBBBIHH4s4s4s4s', 1, 1, 6, 0, number, 0, 0, *[bytes(4)] * 4) + mac + bytes(202) + bytes.fromhex('63825363350101ff')
    line.send(four('0.0.0.0', '255.255.255.255', struct.pack('>HHHH', 68, 67, 8 + len(dhcp), 0) + dhcp, 17, mac))
    line.send(bytes.fromhex('333300000001') + us + bytes.fromhex('86dd6000000000183aff') + os.urandom(16) + bytes.fromhex('ff020000000000000000000000000001') + b'\\x88' + os.urandom(23))",
    );
    assert_eq!(packets_sent(), before);
    world.holds();
}

fn pieces_and_other_protocols_are_dropped(world: &World) {
    let before = packets_sent();
    let line = "ip link set eth0 mtu 1500; ! ping -c 1 -W 1 -s 60000 198.18.0.1; ip link set eth0 mtu 65520
        ip -6 route replace default via fdc0:ffe4::1 dev eth0 onlink proto static; exit 0";
    world.hostile.root(line).end().code(0);
    world.raw(
        "
whole = syn('198.18.0.2', '203.0.113.80', 80)
line.send(four('198.18.0.2', '203.0.113.80', whole[:8], flags=0x2000)); line.send(four('198.18.0.2', '203.0.113.80', whole[8:], flags=1))
for protocol in [0, 2, 4, 41, 47, 50, 89, 132, 255]: line.send(four('198.18.0.2', '203.0.113.80', os.urandom(60), protocol))",
    );
    world.told("a piece of a packet");
    world.told("neither TCP, UDP nor ICMP");
    // So many kinds that they fill every table.
    world.raw(
        "
for round in range(1000): line.send(four('198.18.0.2', '203.0.113.80', os.urandom(40), 6))
for round in range(1000): line.send(gateway + us + os.urandom(60))",
    );
    assert_eq!(packets_sent(), before);
    world.holds();
}

fn a_flood_of_connections_drowns_nobody(world: &World) {
    let before = packets_sent();
    world.raw("for number in range(2_000): line.send(four('198.18.0.2', '198.51.100.1', syn('198.18.0.2', '198.51.100.1', number + 1)))");
    assert_eq!(packets_sent(), before);
    world.holds();
    // To where it may go: no more than there may be at once. Without its address the guest's kernel takes none back.
    world.raw(
        "
place = socket.gethostbyname('server.test')
os.system('ip address del 198.18.0.2/24 dev eth0')
for number in range(2_000): line.send(four('198.18.0.2', place, syn('198.18.0.2', place, 80, 2000 + number)))",
    );
    wait_until("many stand at once", 30, || world.web.most_open() >= MANY_FLOWS);
    world.bring_up();
    world.holds();
    let most = world.web.most_open();
    println!("{most} connections at once");
    assert!(most <= MOST_FLOWS, "{most} connections at once");
    within_bounds(world);
}

/// Takes the card from the kernel, and gives it back.
fn the_card_by_hand(world: &World) {
    let host = world.hostile.host();
    host.coffer(["cp", "--quiet", HOSTILE, "hostile:/tmp/hostile"])
        .end()
        .code(0);
    let seed = std::env::var("HOSTILE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    let attack = world.hostile.root(&format!(
        "/tmp/hostile {seed} frames headers room resets cable-rings cable-back || echo FAILED"
    ));
    let attack = attack.deadline(200).start();
    let mut slowest = Duration::ZERO;
    while !attack.said().contains("all done") && !attack.said().contains("FAILED") {
        slowest = slowest.max(world.neighbour.exec(&[], ["true"]).end().code(0).took);
        within_bounds(world);
    }
    let ended = attack.end().code(0);
    println!("{}slowest answer of the neighbour: {slowest:?}", ended.text());
    assert!(ended.text().contains("all done"), "{ended}");
    assert!(slowest < SLOWEST_ANSWER, "{slowest:?}");
    world.bring_up();
    world.holds();
}

fn within_bounds(world: &World) {
    let hostile = &world.hostile;
    let rss = rss_besides_guest_memory(hostile.number("machine_pid"));
    assert!(rss < MOST_KIB, "{rss} KiB");
    let directory = hostile.host().directory(hostile.name());
    for log in ["vmm.log", "keeper.log", "egress.log"] {
        let text = fs::read_to_string(directory.join(log)).unwrap();
        assert!(!text.contains("panicked at"), "{text}");
        assert!(
            (text.len() as u64) < MOST_LOG_BYTES,
            "{} bytes in {log}",
            text.len()
        );
    }
    let records = fs::read_dir(hostile.host().root().join("state/cofferdam/net"))
        .unwrap()
        .flatten();
    let bytes: u64 = records.map(|entry| length(&entry.path())).sum();
    assert!(bytes < MOST_RECORDS, "{bytes} bytes of records");
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Resident memory, all mappings but those as large as the guest's.
fn rss_besides_guest_memory(process: u64) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{process}/smaps")).expect("the VMM is gone");
    let (mut size, mut sum) = (0, 0);
    for line in maps.lines() {
        let kib = |name: &str| {
            line.strip_prefix(name)?
                .strip_suffix("kB")?
                .trim()
                .parse::<u64>()
                .ok()
        };
        size = kib("Size:").unwrap_or(size);
        sum += kib("Rss:").filter(|_| size < MEMORY_KIB).unwrap_or(0);
    }
    sum
}
