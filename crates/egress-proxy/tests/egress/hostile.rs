//! A machine that its guest has taken over, and owners that go away.

use std::{
    fs::File,
    net::UdpSocket,
    os::fd::AsFd,
    os::unix::net::UnixStream,
    sync::Arc,
    time::{Duration, Instant},
};

use egress_policy::{
    Reason,
    control::Event,
    link::{self, DropReason, Dropped, FromEgress, Id, Protocol, ToEgress},
};

use crate::{
    machine::{Machine, address, allow, config, name, with_hosts},
    servers::{Server, echo},
};

fn open_message(id: u64) -> Vec<u8> {
    let message = ToEgress::Open {
        id: Id(id),
        source: 1,
        target: address("127.0.0.1"),
        port: 9,
    };
    link::encode(&message).unwrap()
}

fn ends_the_link(attack: impl Fn(&Machine)) {
    let mut machine = Machine::start(&config(allow(&["127.0.0.1"])));
    attack(&machine);
    assert!(machine.is_hung_up());
    assert_eq!(machine.wait().code(), Some(125));
    machine.event(|event| matches!(event, Event::Failed { .. }));
}

#[test]
fn a_message_that_is_none_ends_the_link() {
    let name = link::encode(&ToEgress::Name {
        id: Id(1),
        name: "a.test".to_owned().try_into().unwrap(),
        protocol: Protocol::Udp,
        port: 1,
    })
    .unwrap();
    let longer = [&name[..], b"x"].concat();
    let bad_name = name
        .iter()
        .map(|byte| if *byte == b'a' { b'/' } else { *byte })
        .collect();
    for bytes in [
        vec![0xff; 10],
        vec![0; link::MAX_MESSAGE + 1],
        vec![0xff; link::MAX_MESSAGE],
        name[..name.len() - 1].to_vec(),
        longer,
        bad_name,
    ] {
        ends_the_link(|machine| machine.send(&bytes, &[]));
    }
}

#[test]
fn a_descriptor_that_should_not_be_or_is_something_else_ends_the_link() {
    let (stream, other) = UnixStream::pair().unwrap();
    let file = File::open("/dev/null").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (stream, other, file, udp): (&dyn AsFd, &dyn AsFd, &dyn AsFd, &dyn AsFd) =
        (&stream, &other, &file, &udp);
    let open = open_message(1);
    ends_the_link(|machine| machine.send(&open, &[]));
    ends_the_link(|machine| machine.send(&open, &[stream, other]));
    ends_the_link(|machine| machine.send(&open, &[stream, other, file, udp]));
    ends_the_link(|machine| machine.send(&open, &[file]));
    ends_the_link(|machine| machine.send(&open, &[udp]));
    let hello = link::encode(&ToEgress::Hello {
        version: link::VERSION,
    })
    .unwrap();
    ends_the_link(|machine| machine.send(&hello, &[stream]));
    ends_the_link(|machine| machine.send(&hello, &[]));
}

#[test]
fn a_number_in_use_ends_the_link() {
    let server = Server::start(echo);
    let mut machine = Machine::start(&config(allow(&["127.0.0.1"])));
    let (id, _guest) = machine.open(address("127.0.0.1"), server.port).unwrap();
    let (stream, _other) = UnixStream::pair().unwrap();
    machine.send(&open_message(id.0), &[&stream]);
    assert!(machine.is_hung_up());
}

#[test]
fn a_machine_that_does_not_greet_or_speaks_another_version_is_refused() {
    for message in [
        ToEgress::Hello { version: 999 },
        ToEgress::Name {
            id: Id(1),
            name: "a.test".to_owned().try_into().unwrap(),
            protocol: Protocol::Udp,
            port: 1,
        },
    ] {
        let mut machine = Machine::spawn();
        machine.write(&config(allow(&["*"])));
        machine.say(&message);
        assert!(machine.is_hung_up());
        assert_eq!(machine.wait().code(), Some(125));
    }
}

#[test]
fn a_machine_that_is_gone_ends_the_process_and_its_flows_are_told() {
    let server = Server::start(echo);
    let mut machine = Machine::start(&config(allow(&["127.0.0.1"])));
    let (id, _guest) = machine.open(address("127.0.0.1"), server.port).unwrap();
    machine.close_link();
    machine.closed(id);
    machine.event(|event| matches!(event, Event::Failed { why } if why.contains("hung up")));
    assert_eq!(machine.wait().code(), Some(125));
}

#[test]
fn an_owner_that_is_gone_ends_the_process() {
    use std::io::{ErrorKind, Read};
    let (sender, ended) = std::sync::mpsc::channel();
    let server = Server::start(move |mut stream| {
        let read = stream.read(&mut [0]).map_err(|error| error.kind());
        sender.send(read).unwrap();
    });
    let mut machine = Machine::start(&config(allow(&["127.0.0.1"])));
    let _flow = machine.open(address("127.0.0.1"), server.port).unwrap();
    machine.close_stdin();
    assert_eq!(machine.wait().code(), Some(0));
    assert_eq!(ended.recv().unwrap(), Err(ErrorKind::ConnectionReset));
    assert!(machine.is_hung_up());
}

#[test]
fn a_configuration_that_cannot_be_read_is_no_start() {
    for line in ["{}", "not json", "{\"version\":2}"] {
        let mut machine = Machine::spawn();
        machine.write(&line);
        assert_eq!(machine.wait().code(), Some(125));
        machine.event(|event| matches!(event, Event::Failed { .. }));
    }
    let mut machine = Machine::spawn();
    let mut newer = config(allow(&["*"]));
    newer.version = 99;
    machine.write(&newer);
    machine.event(|event| matches!(event, Event::Failed { why } if why.contains("99")));
}

#[test]
fn a_request_that_cannot_be_read_leaves_no_old_policy_in_force() {
    let mut machine = Machine::start(&config(allow(&["*"])));
    machine.write(&"something newer");
    assert!(machine.is_hung_up());
    assert_eq!(machine.wait().code(), Some(125));
}

#[test]
fn a_flood_of_questions_does_not_starve_flows() {
    let server = Server::start(echo);
    let mut machine = Machine::start(&with_hosts(&["a.test", "127.0.0.1"], &["a.test"]));
    let (_, mut guest) = machine.open(name("a.test"), server.port).unwrap();
    let message = ToEgress::Dropped(Dropped {
        protocol: Protocol::Icmp,
        target: None,
        port: None,
        source: None,
        reason: DropReason::Icmp,
        count: 1,
    });
    let message = link::encode(&message).unwrap();
    let done = &std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flooded = Arc::clone(machine.link());
        let flood = scope.spawn(move || {
            let mut count = 0_u64;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                flooded.send(&message, &[]).unwrap();
                count += 1;
            }
            count
        });
        let started = Instant::now();
        for _ in 0..100 {
            use std::io::{Read, Write};
            guest.write_all(b"ping\n").unwrap();
            guest.read_exact(&mut [0; 5]).unwrap();
        }
        let took = started.elapsed();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(flood.join().unwrap() > 1000);
        assert!(took < Duration::from_secs(5), "{took:?}");
    });
}

/// The machine does not read; what it is told waits, within bounds, and nothing is lost when it does.
#[test]
fn a_machine_that_does_not_read_is_not_read_from() {
    const MANY: usize = 100_000;
    let mut machine = Machine::start(&config(allow(&["a.test"])));
    let link = Arc::clone(machine.link());
    link.lose_patience();
    let name = ToEgress::Name {
        id: Id(1_000_000),
        name: "b.test".to_owned().try_into().unwrap(),
        protocol: Protocol::Udp,
        port: 1,
    };
    let name = link::encode(&name).unwrap();
    let taken = (0..MANY).take_while(|_| link.send(&name, &[]).is_ok()).count();
    assert!(taken < MANY, "everything was taken in");
    for _ in 0..taken {
        assert!(matches!(
            link.hear(),
            Some(FromEgress::Name { allowed: false, .. })
        ));
    }
    assert!(machine.ask_name("a.test"));
}

#[test]
fn a_refusal_is_there_in_less_than_a_millisecond() {
    let mut machine = Machine::start(&config(allow(&["a.test"])));
    let mut times: Vec<Duration> = (0..1000)
        .map(|_| {
            let started = Instant::now();
            assert_eq!(machine.refused(name("b.test"), 443), Reason::NoRule);
            started.elapsed()
        })
        .collect();
    times.sort();
    assert!(times[500] < Duration::from_millis(1), "{:?}", times[500]);
}

/// Nobody reads standard output: what stands goes on, what cannot be told does not begin.
#[test]
fn events_that_nobody_reads_stop_new_flows_and_not_old_ones() {
    use std::io::{Read, Write};
    let server = Server::start(echo);
    let mut machine = Machine::deaf(&config(allow(&["127.0.0.1"])));
    let (_, mut guest) = machine.open(address("127.0.0.1"), server.port).unwrap();
    let stopped = (0..50_000).any(|_| machine.open(address("127.0.0.1"), server.port).is_err());
    assert!(stopped);
    guest.write_all(b"still\n").unwrap();
    guest.read_exact(&mut [0; 6]).unwrap();
}

#[test]
fn without_descriptors_flows_are_refused_and_the_link_lives() {
    use std::io::{Read, Write};
    let server = Server::start(echo);
    let mut machine = Machine::poor(&config(allow(&["127.0.0.1"])), 40);
    let mut flows = Vec::new();
    for _ in 0..100 {
        match machine.open(address("127.0.0.1"), server.port) {
            Ok(flow) => flows.push(flow),
            Err(reason) => assert_eq!(reason, Reason::TooManyFlows),
        }
    }
    assert!((5..20).contains(&flows.len()), "{}", flows.len());
    let (_, guest) = &mut flows[0];
    guest.write_all(b"still\n").unwrap();
    guest.read_exact(&mut [0; 6]).unwrap();
}
