//! `--publish`: clients on this host, servers that the double of the machine plays; see its `published.rs`.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    time::Duration,
};

use crate::rig::{Rig, eventually};

const NOBODY: u16 = 1;
const FIRST_TO_END: u16 = 2;
const NONSENSE: u16 = 3;
const CUT_SHORT: u16 = 4;
const ENDLESS: u16 = 5;
const ECHO: u16 = 80;

/// A session `box` that publishes one port, and where that is.
fn up(rig: &Rig, guest: u16) -> u16 {
    let said = rig.coffer(&["up", "box", "--publish", &format!("0:{guest}")]);
    assert_eq!(
        (said.code, said.stdout.as_slice()),
        (Some(0), &b"box\n"[..]),
        "{}",
        said.stderr
    );
    let words = format!(" leads to port {guest} of the sandbox\n");
    let place = said
        .stderr
        .strip_suffix(&words)
        .unwrap()
        .rsplit(' ')
        .next()
        .unwrap();
    place.strip_prefix("127.0.0.1:").unwrap().parse().unwrap()
}

fn connect(port: u16) -> TcpStream {
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    // Longer than anything here takes: nothing is ever a hang.
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    client
}

fn rest(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).map(|_| rest)
}

/// The client's connection is reset, not just ended.
fn assert_reset(port: u16) {
    let error = rest(&mut connect(port)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn what_a_client_sends_comes_back_whole_also_after_it_has_ended_its_side() {
    let rig = Rig::new();
    let port = up(&rig, ECHO);
    let sent: Vec<u8> = (0..3_000_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let mut client = connect(port);
    let mut sender = client.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            sender.write_all(&sent).unwrap();
            sender.shutdown(Shutdown::Write).unwrap();
        });
        assert!(rest(&mut client).unwrap() == sent);
    });
}

#[test]
fn a_server_that_ends_its_side_first_still_hears_the_client() {
    let rig = Rig::new();
    let mut client = connect(up(&rig, FIRST_TO_END));
    assert_eq!(rest(&mut client).unwrap(), b"bye");
    client.write_all(b"one more ").unwrap();
    client.write_all(b"thing").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let heard = rig.path("state/cofferdam/sessions/box/guest/heard");
    eventually("the server hears all", || {
        fs::read(&heard).is_ok_and(|heard| heard == b"one more thing")
    });
}

#[test]
fn a_port_without_a_server_is_a_reset() {
    let rig = Rig::new();
    assert_reset(up(&rig, NOBODY));
}

#[test]
fn a_guest_that_breaks_the_protocol_or_off_is_a_reset_and_the_port_stays() {
    let rig = Rig::new();
    let port = up(&rig, NONSENSE);
    assert_reset(port);
    assert_reset(port);
    rig.coffer(&["stop", "box"]).ok();
    rig.coffer(&["rm", "box"]).ok();
    assert_reset(up(&rig, CUT_SHORT));
}

#[test]
fn a_hundred_clients_are_served_at_once() {
    let rig = Rig::new();
    let port = up(&rig, ECHO);
    let mut clients: Vec<TcpStream> = (0..100).map(|_| connect(port)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.write_all(&[n as u8; 1000]).unwrap();
    }
    // All of them are open until the last has had its answer.
    for (n, client) in clients.iter_mut().enumerate().rev() {
        let mut answer = [0; 1000];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [n as u8; 1000]);
    }
}

#[test]
fn one_client_too_many_is_reset_and_has_room_when_another_has_ended() {
    let rig = Rig::new();
    let port = up(&rig, ECHO);
    let answered = |mut client: TcpStream| -> std::io::Result<TcpStream> {
        client.write_all(b"x")?;
        client.read_exact(&mut [0])?;
        Ok(client)
    };
    let mut clients: Vec<TcpStream> = (0..256).map(|_| answered(connect(port)).unwrap()).collect();
    assert!(answered(connect(port)).is_err());
    clients.pop();
    eventually("there is room again", || answered(connect(port)).is_ok());
}

#[test]
fn a_client_that_reads_nothing_or_goes_away_costs_nobody_anything() {
    let rig = Rig::new();
    let port = up(&rig, ENDLESS);
    let silent = connect(port);
    let mut first = [0; 100_000];
    connect(port).read_exact(&mut first).unwrap();
    assert_eq!(rig.coffer(&["exec", "box", "echo", "here"]).ok(), "here\n");
    drop(silent);
}

#[test]
fn a_port_that_is_taken_is_told_before_anything_starts() {
    let rig = Rig::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for command in [&["up", "box"][..], &["run"][..]] {
        let publish = format!("{port}:80");
        let mut arguments = command.to_vec();
        arguments.extend(["--publish", &publish]);
        if command == ["run"] {
            arguments.extend(["--", "true"]);
        }
        let place = format!("127.0.0.1:{port}");
        rig.coffer(&arguments).failed(
            125,
            &["port cannot be published", &place, "another program has it"],
        );
    }
    rig.assert_nothing_is_left();
}

#[test]
fn the_port_goes_with_the_session_and_comes_with_it_again() {
    let rig = Rig::new();
    let port = up(&rig, ECHO);
    let mut client = connect(port);
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    let shown = format!("127.0.0.1:{port} leads to port 80 of the sandbox");
    assert!(rig.coffer(&["net", "box"]).ok().contains(&shown));
    assert!(rig.coffer(&["inspect", "box"]).ok().contains(&shown));
    let told = &rig.json(&["inspect", "box", "--json"])["net"]["publish"][0];
    assert_eq!(
        (told["bound"].as_u64(), told["guest"].as_u64()),
        (Some(port.into()), Some(80))
    );
    rig.coffer(&["stop", "box"]).ok();
    assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    let shown = rig.coffer(&["net", "box"]).ok();
    assert!(
        shown.contains("127.0.0.1 at any free port leads to port 80"),
        "{shown}"
    );
    let again = rig.coffer(&["up", "box"]);
    assert_eq!(again.code, Some(0));
    assert!(again.stderr.contains("leads to port 80"), "{}", again.stderr);
}

#[test]
fn a_command_of_its_own_session_can_be_reached_while_it_runs() {
    let rig = Rig::new();
    let said = rig.coffer(&[
        "run",
        "--publish",
        "0:80",
        "--publish",
        "[::1]:0:81",
        "--",
        "echo",
        "done",
    ]);
    assert_eq!((said.code, said.stdout.as_slice()), (Some(0), &b"done\n"[..]));
    assert_eq!(said.stderr.lines().count(), 2, "{}", said.stderr);
    let wide = rig.coffer(&["run", "--publish", "0.0.0.0:0:80", "--", "true"]);
    assert!(
        wide.stderr.contains("also for others than this host"),
        "{}",
        wide.stderr
    );
    rig.coffer(&["run", "--publish", "80", "--", "true"])
        .failed(2, &["--publish is not valid", "[ADDR:]HOST:GUEST"]);
}
