use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::net::UnixStream,
    sync::mpsc,
    thread,
    time::Duration,
};

use egress_policy::{
    Reason,
    control::{End, What},
};

use crate::{
    machine::{Machine, address, name, with_hosts},
    servers::{Server, closed_port, echo, silent},
};

const RULES: [&str; 2] = ["a.test", "127.0.0.1"];

fn machine() -> Machine {
    Machine::start(&with_hosts(&RULES, &["a.test"]))
}

/// Bytes that are different everywhere, so that what is lost, doubled or moved is seen.
fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[test]
fn what_a_guest_says_arrives_and_comes_back() {
    let server = Server::start(echo);
    let mut machine = machine();
    let (id, mut guest) = machine.open(name("a.test"), server.port).unwrap();
    guest.write_all(b"hello\n").unwrap();
    let mut said = [0; 6];
    guest.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"hello\n");
    guest.shutdown(Shutdown::Write).unwrap();
    assert_eq!(guest.read(&mut said).unwrap(), 0);
    assert_eq!(machine.closed(id), (End::Done, 6, 6));
    let opened = machine.record(|record| matches!(record.what, What::Opened { .. }));
    assert_eq!(opened.source, Some(40_000));
}

#[test]
fn a_server_may_speak_first() {
    let server = Server::start(|mut stream: TcpStream| {
        stream.write_all(b"220 ready\r\n").unwrap();
        silent(stream);
    });
    let mut machine = machine();
    let (_, mut guest) = machine.open(name("a.test"), server.port).unwrap();
    let mut said = [0; 11];
    guest.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"220 ready\r\n");
}

#[test]
fn the_guest_ends_first_and_still_hears_the_answer() {
    let server = Server::start(|mut stream: TcpStream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all).unwrap();
    });
    let mut machine = machine();
    let (id, mut guest) = machine.open(address("127.0.0.1"), server.port).unwrap();
    guest.write_all(b"question").unwrap();
    guest.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    guest.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"question");
    assert_eq!(machine.closed(id), (End::Done, 8, 8));
}

#[test]
fn the_server_ends_first_and_still_hears_the_guest() {
    let (sender, heard) = mpsc::channel();
    let server = Server::start(move |mut stream: TcpStream| {
        stream.write_all(b"bye").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        sender.send(all).unwrap();
    });
    let mut machine = machine();
    let (id, mut guest) = machine.open(address("127.0.0.1"), server.port).unwrap();
    let mut bye = Vec::new();
    guest.read_to_end(&mut bye).unwrap();
    guest.write_all(b"last words").unwrap();
    guest.shutdown(Shutdown::Write).unwrap();
    assert_eq!(heard.recv().unwrap(), b"last words");
    assert_eq!(machine.closed(id), (End::Done, 10, 3));
}

#[test]
fn a_hundred_megabytes_each_way_arrive_as_they_were() {
    const LEN: usize = 100 << 20;
    let server = Server::start(echo);
    let mut machine = machine();
    let (id, mut guest) = machine.open(address("127.0.0.1"), server.port).unwrap();
    let sent = pattern(LEN);
    let mut writer = guest.try_clone().unwrap();
    let copy = sent.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&copy).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut received = Vec::with_capacity(LEN);
    guest.read_to_end(&mut received).unwrap();
    writing.join().unwrap();
    assert!(sent == received);
    assert_eq!(machine.closed(id), (End::Done, LEN as u64, LEN as u64));
}

#[test]
fn five_hundred_flows_at_once_each_carry_their_own() {
    let server = Server::start(echo);
    let mut machine = machine();
    let asked: Vec<_> = (0..500)
        .map(|_| machine.ask(name("a.test"), server.port))
        .collect();
    let mut flows = Vec::new();
    for (id, stream) in asked {
        machine.answer(id).unwrap();
        flows.push((id, stream));
    }
    for (id, stream) in &mut flows {
        stream.write_all(format!("flow {}\n", id.0).as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    }
    for (id, stream) in &mut flows {
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert_eq!(said, format!("flow {}\n", id.0));
    }
    assert_eq!(server.came(), 500);
}

#[test]
fn a_reader_that_is_slow_costs_little_and_loses_nothing() {
    const LEN: usize = 64 << 20;
    let sent = pattern(LEN);
    let copy = sent.clone();
    let server = Server::start(move |mut stream: TcpStream| {
        let _ = stream.write_all(&copy);
    });
    let mut machine = machine();
    let (_, mut guest) = machine.open(address("127.0.0.1"), server.port).unwrap();
    let mut first = [0; 1024];
    guest.read_exact(&mut first).unwrap();
    let before = machine.memory();
    // Others are not held up by one that does not read.
    let (_, mut other) = machine.open(address("127.0.0.1"), server.port).unwrap();
    let mut all = Vec::new();
    other.shutdown(Shutdown::Write).unwrap();
    other.read_to_end(&mut all).unwrap();
    assert!(all == sent);
    let grown = machine.memory().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes more");
    guest.read_to_end(&mut all).unwrap();
    assert!(all[LEN..] == sent[1024..]);
}

/// All flows go through one pipe.
#[test]
fn what_a_broken_flow_had_under_way_comes_out_nowhere_else() {
    const LEN: usize = 8 << 20;
    let sent = pattern(LEN);
    let copy = sent.clone();
    let good = Server::start(move |mut stream: TcpStream| {
        let _ = stream.write_all(&copy);
    });
    let other = Server::start(|mut stream: TcpStream| while stream.write_all(&[0xee; 100_000]).is_ok() {});
    let mut machine = machine();
    let (_, mut guest) = machine.open(address("127.0.0.1"), good.port).unwrap();
    let reading = thread::spawn(move || {
        let mut all = Vec::<u8>::new();
        let mut piece = vec![0; 10_000];
        while let Ok(count @ 1..) = guest.read(&mut piece) {
            all.extend(&piece[..count]);
        }
        all
    });
    for _ in 0..50 {
        let (id, mut guest) = machine.open(address("127.0.0.1"), other.port).unwrap();
        let mut piece = vec![0; 1_000_000];
        guest.read_exact(&mut piece).unwrap();
        drop(guest);
        assert!(piece.iter().all(|byte| *byte == 0xee));
        assert_eq!(machine.closed(id).0, End::Guest);
    }
    assert!(reading.join().unwrap() == sent);
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    let listener = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    let any = "127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap();
    rustix::net::bind(&listener, &any).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let listener = std::net::TcpListener::from(listener);
    let port = listener.local_addr().unwrap().port();
    // All the backlog there is.
    let _filler = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut machine = machine();
    assert_eq!(machine.refused(address("127.0.0.1"), port), Reason::TimedOut);
    machine.told_refused(Reason::TimedOut);
}

#[test]
fn a_server_that_does_not_read_holds_the_guest_back() {
    let server = Server::start(|stream: TcpStream| {
        thread::park();
        drop(stream);
    });
    let mut machine = machine();
    let (_, mut guest) = machine.open(address("127.0.0.1"), server.port).unwrap();
    guest.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let before = machine.memory();
    let chunk = vec![7; 1 << 20];
    let taken = (0..256).take_while(|_| guest.write_all(&chunk).is_ok()).count();
    assert!(taken < 64, "{taken} MiB taken for a server that reads nothing");
    assert!(machine.memory().saturating_sub(before) < 4 << 20);
}

#[test]
fn a_port_without_a_server_is_told_as_that() {
    let mut machine = machine();
    assert_eq!(
        machine.refused(name("a.test"), closed_port()),
        Reason::ConnectionRefused
    );
    machine.told_refused(Reason::ConnectionRefused);
}

#[test]
fn a_server_that_resets_breaks_the_flow() {
    let server = Server::start(|mut stream: TcpStream| {
        let mut byte = [0];
        let _ = stream.read(&mut byte);
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    });
    let mut machine = machine();
    let (id, mut guest) = machine.open(address("127.0.0.1"), server.port).unwrap();
    guest.write_all(b"x").unwrap();
    machine.broken(id);
    assert_eq!(machine.closed(id).0, End::Remote);
}

#[test]
fn a_guest_that_breaks_a_flow_resets_the_server() {
    let (sender, ended) = mpsc::channel();
    let server = Server::start(move |mut stream: TcpStream| {
        let mut all = Vec::new();
        sender
            .send(stream.read_to_end(&mut all).map_err(|error| error.kind()))
            .unwrap();
    });
    let mut machine = machine();
    let (id, guest) = machine.open(address("127.0.0.1"), server.port).unwrap();
    // Closed, not shut down: both directions are over.
    drop(guest);
    assert_eq!(machine.closed(id).0, End::Guest);
    assert_eq!(ended.recv().unwrap(), Err(ErrorKind::ConnectionReset));
}

/// The guest has said all, then resets: nobody reads from it any more, and it is noticed all the same.
#[test]
fn a_guest_that_breaks_a_flow_it_had_half_ended_resets_the_server() {
    let (sender, ended) = mpsc::channel();
    let server = Server::start(move |mut stream: TcpStream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        sender.send(None).unwrap();
        let mut polled = [rustix::event::PollFd::new(
            &stream,
            rustix::event::PollFlags::empty(),
        )];
        rustix::event::poll(&mut polled, None).unwrap();
        sender
            .send(stream.take_error().unwrap().map(|error| error.kind()))
            .unwrap();
    });
    let mut machine = machine();
    let (id, guest) = machine.open(address("127.0.0.1"), server.port).unwrap();
    guest.shutdown(Shutdown::Write).unwrap();
    assert_eq!(ended.recv().unwrap(), None);
    drop(guest);
    assert_eq!(machine.closed(id).0, End::Guest);
    assert_eq!(ended.recv().unwrap(), Some(ErrorKind::BrokenPipe));
}

#[test]
fn a_machine_that_gives_up_a_flow_before_it_stands_ends_it() {
    // A backlog of nothing: the third connection waits for ever.
    let listener = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    rustix::net::bind(&listener, &"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap()).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let listener = std::net::TcpListener::from(listener);
    let port = listener.local_addr().unwrap().port();
    let _filler = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut machine = machine();
    let (id, stream) = machine.ask(address("127.0.0.1"), port);
    drop(stream);
    assert_eq!(machine.answer(id), Err(Reason::TimedOut));
}

#[test]
fn a_request_for_another_host_never_reaches_the_server() {
    let server = Server::start(echo);
    let mut machine = machine();
    let (id, mut guest) = machine.open(name("a.test"), server.port).unwrap();
    guest
        .write_all(b"GET / HTTP/1.1\r\nHost: other.test\r\n\r\n")
        .unwrap();
    machine.broken(id);
    assert_eq!(machine.closed(id), (End::Refused, 0, 0));
    machine.told_refused(Reason::OtherHost);
}

#[test]
fn a_second_request_for_another_host_ends_what_the_first_began() {
    let server = Server::start(echo);
    let mut machine = machine();
    let (id, mut guest) = machine.open(name("a.test"), server.port).unwrap();
    let host = format!("a.test:{}", server.port);
    let first = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    guest.write_all(first.as_bytes()).unwrap();
    let mut said = vec![0; first.len()];
    guest.read_exact(&mut said).unwrap();
    guest
        .write_all(b"GET / HTTP/1.1\r\nHost: other.test\r\n\r\n")
        .unwrap();
    machine.broken(id);
    let len = first.len() as u64;
    assert_eq!(machine.closed(id), (End::Refused, len, len));
}

#[test]
fn a_long_flow_says_how_much_it_carries() {
    let server = Server::start(echo);
    let mut machine = machine();
    let (_, mut guest): (_, UnixStream) = machine.open(address("127.0.0.1"), server.port).unwrap();
    guest.write_all(b"hello").unwrap();
    let carried = machine.record(|record| matches!(record.what, What::Carried { .. }));
    assert!(matches!(
        carried.what,
        What::Carried {
            sent: 5,
            received: 5,
            ..
        }
    ));
}
