//! What the network asks of the agent: addresses and trust at the start, connections of the host to servers in the
//! machine, and whose port it is.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv6Addr, Shutdown, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use agent_protocol::{
    FailureKind, GuestMessage, HostMessage, Network, PortOwner, PortProtocol, Reply, Request, Setup,
};
use guest_agent::Cgroups;
use support::{Frame, Host, HostStream, PATIENCE, exec, setup, wait_until, writable_cgroup};

const PEM: &[u8] = b"-----BEGIN CERTIFICATE-----\nTWFu\n-----END CERTIFICATE-----\n";

fn network() -> Network {
    Network {
        mtu: 65_520,
        v4: [198, 18, 0, 2].into(),
        v4_prefix: 24,
        v4_gateway: [198, 18, 0, 1].into(),
        v6: "fdc0:ffe4::2".parse().unwrap(),
        v6_prefix: 64,
        v6_gateway: "fdc0:ffe4::1".parse().unwrap(),
    }
}

#[test]
fn the_network_and_the_hosts_trust_are_there_before_ready_and_a_users_variable_wins() {
    let host = Host::unwelcoming(None);
    let mut setup = Setup {
        network: Some(network()),
        certificates: Some(PEM.to_vec()),
        ..setup()
    };
    setup.env.push((b"PIP_CERT".to_vec(), b"/mine".to_vec()));
    assert_eq!(host.welcome_as(setup.clone()), GuestMessage::Ready);
    let etc = host.root.path().join("etc");
    assert!(
        host.machine
            .0
            .lock()
            .unwrap()
            .contains(&"network 198.18.0.2".to_owned())
    );
    let resolver = fs::read_to_string(etc.join("resolv.conf")).unwrap();
    assert!(
        resolver.lines().any(|line| line == "nameserver 198.18.0.1"),
        "{resolver}"
    );
    let bundle = etc.join("ssl/certs/ca-certificates.crt");
    assert_eq!(fs::read(&bundle).unwrap(), PEM);
    let script = "echo $SSL_CERT_FILE $REQUESTS_CA_BUNDLE $NODE_EXTRA_CA_CERTS $PIP_CERT";
    let path = "/etc/ssl/certs/ca-certificates.crt";
    let variables = format!("{path} {path} {path} /mine\n");
    assert_eq!(host.run(&["sh", "-c", script]).text(), variables);

    // A host that comes back finds what the session has made of it since.
    fs::write(etc.join("resolv.conf"), "nameserver 192.0.2.1\n").unwrap();
    fs::write(&bundle, "theirs").unwrap();
    host.hang_up();
    host.await_redial();
    assert_eq!(host.welcome_as(setup), GuestMessage::Ready);
    assert_eq!(fs::read(&bundle).unwrap(), b"theirs");
    assert_eq!(
        fs::read_to_string(etc.join("resolv.conf")).unwrap(),
        "nameserver 192.0.2.1\n"
    );
    assert_eq!(host.run(&["sh", "-c", script]).text(), variables);
}

#[test]
fn a_machine_without_a_card_becomes_a_session_all_the_same() {
    let host = Host::unwelcoming(None);
    let no_card = Network {
        v4_prefix: 0,
        ..network()
    };
    let setup = Setup {
        network: Some(no_card),
        ..setup()
    };
    assert_eq!(host.welcome_as(setup), GuestMessage::Ready);
    assert!(!host.root.path().join("etc/resolv.conf").exists());
    assert_eq!(
        host.run(&["sh", "-c", "echo ${SSL_CERT_FILE-none}"]).text(),
        "none\n"
    );
}

fn server() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn connected(host: &Host, listener: &TcpListener) -> (HostStream, TcpStream) {
    let port = listener.local_addr().unwrap().port();
    let mut stream = host.begin(Request::Connect { port });
    assert_eq!(stream.await_started(), 0);
    let (server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    (stream, server)
}

#[test]
fn a_connection_carries_both_ways_and_each_end_of_its_own() {
    let host = Host::start();
    let (listener, _) = server();
    let (mut stream, mut server) = connected(&host, &listener);
    stream.writer().stdin(b"ping").unwrap();
    stream.writer().end().unwrap();
    let mut heard = String::new();
    server.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "ping");
    server.write_all(b"pong after your end").unwrap();
    assert_eq!(stream.read_until("end"), "pong after your end");
    drop(server);
    assert!(matches!(stream.next(), Some(Frame::Stdout(end)) if end.is_empty()));
    assert!(matches!(stream.next(), Some(Frame::Reply(Reply::Done))));
}

#[test]
fn the_servers_end_does_not_close_the_way_to_it() {
    let host = Host::start();
    let (listener, _) = server();
    let (mut stream, mut server) = connected(&host, &listener);
    server.shutdown(Shutdown::Write).unwrap();
    assert!(matches!(stream.next(), Some(Frame::Stdout(end)) if end.is_empty()));
    stream.writer().stdin(b"still here").unwrap();
    stream.writer().end().unwrap();
    let mut heard = String::new();
    server.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "still here");
    assert!(matches!(stream.next(), Some(Frame::Reply(Reply::Done))));
}

#[test]
fn megabytes_cross_in_both_directions_at_once() {
    const LEN: usize = 8 << 20;
    let host = Host::start();
    let (listener, _) = server();
    let (mut stream, server) = connected(&host, &listener);
    let mut echo = (server.try_clone().unwrap(), server);
    thread::spawn(move || {
        std::io::copy(&mut echo.0, &mut echo.1).unwrap();
        echo.1.shutdown(Shutdown::Write).unwrap();
    });
    let sent: Vec<u8> = (0..LEN).map(|at| (at / 7) as u8).collect();
    let mut writer = stream.writer();
    let data = sent.clone();
    thread::spawn(move || {
        writer.stdin(&data).unwrap();
        writer.end().unwrap();
    });
    let mut received = Vec::with_capacity(LEN);
    loop {
        match stream.next().unwrap() {
            Frame::Stdout(data) => received.extend(data),
            Frame::Reply(Reply::Done) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(received == sent, "{} bytes of {LEN}", received.len());
}

#[test]
fn a_server_that_is_gone_ends_the_connection_though_the_host_has_not() {
    let host = Host::start();
    let (listener, _) = server();
    let (mut stream, server) = connected(&host, &listener);
    // Bytes it never reads: closing resets the connection.
    stream.writer().stdin(b"unread").unwrap();
    server.set_nonblocking(false).unwrap();
    wait_until("the bytes are there", || {
        server.peek(&mut [0; 8]).unwrap_or(0) == 6
    });
    drop(server);
    loop {
        match stream.next() {
            Some(Frame::Stdout(_)) => {}
            Some(Frame::Reply(Reply::Done)) => break,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_host_that_leaves_closes_the_servers_connection() {
    let host = Host::start();
    let (listener, _) = server();
    let (stream, mut server) = connected(&host, &listener);
    drop(stream);
    assert_eq!(server.read(&mut [0; 8]).unwrap_or(0), 0);
}

#[test]
fn a_port_nobody_listens_at_is_not_found_at_once() {
    let host = Host::start();
    let (listener, port) = server();
    drop(listener);
    let began = Instant::now();
    let failure = host.begin(Request::Connect { port }).outcome().failure.unwrap();
    assert_eq!(failure.kind, FailureKind::NotFound);
    assert_eq!(
        failure.message,
        format!("nothing listens on port {port} of the sandbox")
    );
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_server_of_ipv6_alone_is_reached() {
    let host = Host::start();
    let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else {
        return skipped::because("no IPv6 loopback here");
    };
    let (mut stream, server) = connected(&host, &listener);
    drop(server);
    assert!(matches!(stream.next(), Some(Frame::Stdout(end)) if end.is_empty()));
}

#[test]
fn garbage_on_a_connection_ends_that_connection_only() {
    let host = Host::start();
    let (listener, _) = server();
    let (mut stream, mut server) = connected(&host, &listener);
    stream.writer().raw(&[0xff; 100]).unwrap();
    assert_eq!(server.read(&mut [0; 8]).unwrap_or(0), 0);
    assert!(stream.next().is_none());
    let (_stream, _server) = connected(&host, &listener);
}

fn owner(host: &Host, nonce: u64, port: u16) -> Option<PortOwner> {
    host.tell(&HostMessage::Owner {
        nonce,
        protocol: PortProtocol::Tcp,
        port,
    });
    match host.hear() {
        GuestMessage::Owner { nonce: of, owner } if of == nonce => owner,
        other => panic!("{other:?}"),
    }
}

/// A command in the machine that has a connection to a server here: its stream and its port.
fn dialing_command(host: &Host) -> (HostStream, u16, TcpStream) {
    let (listener, port) = server();
    let script = format!("(exec 3<>/dev/tcp/127.0.0.1/{port}; read -r _ <&3); true");
    let stream = host.begin(Request::Exec(exec(&["bash", "-c", &script, "a-name"])));
    let (connection, from) = listener.accept().unwrap();
    (stream, from.port(), connection)
}

#[test]
fn a_port_is_told_with_its_process_and_the_command_it_belongs_to() {
    let groups = writable_cgroup().and_then(|parent| Cgroups::open(&parent).ok());
    for cgroups in [None, groups] {
        let grouped = cgroups.is_some();
        let host = Host::with(cgroups);
        let (mut stream, port, connection) = dialing_command(&host);
        let started = stream.await_started();
        let owner = owner(&host, 7, port).unwrap();
        assert_eq!(owner.argv[..2], [b"bash".to_vec(), b"-c".to_vec()]);
        assert_eq!(owner.operation, Some(stream.id), "grouped: {grouped}");
        assert!(owner.pid >= started);
        drop(connection);
        stream.outcome();
    }
}

#[test]
fn a_port_nobody_has_is_nobodys() {
    let host = Host::start();
    let (listener, port) = server();
    // The agent is this process: what it has itself is no command's.
    assert_eq!(owner(&host, 1, port), None);
    drop(listener);
    assert_eq!(owner(&host, 2, port), None);
}

#[test]
fn a_flood_of_questions_is_answered_one_by_one_and_holds_up_nothing() {
    const ASKED: u64 = 500;
    let host = Host::start();
    for nonce in 0..ASKED {
        host.tell(&HostMessage::Owner {
            nonce,
            protocol: PortProtocol::Udp,
            port: 9,
        });
    }
    host.tell(&HostMessage::Ping { nonce: 42 });
    let mut answered = Vec::new();
    let mut pong = false;
    while !pong || answered.len() < 500 {
        match host.hear() {
            GuestMessage::Owner { nonce, owner: None } => answered.push(nonce),
            GuestMessage::Pong { nonce: 42 } => pong = true,
            other => panic!("{other:?}"),
        }
    }
    answered.sort_unstable();
    assert!(answered.into_iter().eq(0..ASKED));
}
