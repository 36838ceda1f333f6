//! Many at once, slow ones, half of one, and servers that say nothing.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use egress_policy::control::Request;

use crate::{
    servers::{echo, serve},
    world::{Egress, PATIENCE, as_guest, config, enter_a_host, rules},
};

const PORT: u16 = 7000;

/// A guest on whose host this server listens at `good.test`.
fn with_server(server: impl Fn(TcpStream) + Send + Sync + 'static, guest: impl FnOnce(&mut Egress) + Send) {
    if !enter_a_host() {
        return;
    }
    serve(PORT, server);
    let (mut egress, link) = Egress::start(&config(&["good.test"], &["good.test"]));
    as_guest(link, move || guest(&mut egress));
}

fn connect() -> TcpStream {
    let stream = TcpStream::connect(("good.test", PORT)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn five_hundred_connections_at_once_have_each_their_own_content() {
    const MANY: usize = 500;
    with_server(echo, |_| {
        let first = connect();
        let place = first.peer_addr().unwrap();
        let all_open = Barrier::new(MANY);
        thread::scope(|scope| {
            for number in 0..MANY {
                let all_open = &all_open;
                let guest = move || {
                    let stream = TcpStream::connect(place);
                    all_open.wait();
                    let stream = stream.unwrap_or_else(|error| panic!("connection {number}: {error}"));
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    let said: Vec<u8> = number.to_le_bytes().repeat(8192);
                    thread::scope(|both| {
                        both.spawn(|| {
                            (&stream).write_all(&said).unwrap();
                            stream.shutdown(Shutdown::Write).unwrap();
                        });
                        let mut heard = Vec::new();
                        (&stream).read_to_end(&mut heard).unwrap();
                        assert!(heard == said, "connection {number}");
                    });
                };
                thread::Builder::new()
                    .stack_size(256 * 1024)
                    .spawn_scoped(scope, guest)
                    .unwrap();
            }
        });
    });
}

/// Of the far end's endless stream nobody reads a byte: it stops sending, and little of it is kept anywhere.
#[test]
fn a_reader_that_does_not_read_holds_the_sender() {
    let sent = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    let endless = move |mut stream: TcpStream| {
        let block = [7; 64 * 1024];
        while let Ok(count) = stream.write(&block) {
            counted.fetch_add(count as u64, std::sync::atomic::Ordering::Relaxed);
        }
    };
    with_server(endless, |egress| {
        let before = egress.memory();
        let mut streams: Vec<_> = (0..16).map(|_| connect()).collect();
        let mut last = 0;
        // The sender stands still when it has sent nothing for a while.
        let held = await_true(|| {
            let now = sent.load(std::sync::atomic::Ordering::Relaxed);
            std::mem::replace(&mut last, now) == now && now > 0
        });
        assert!(held, "the sender is never held");
        let grown = egress.memory().saturating_sub(before);
        assert!(grown < 64 << 20, "{grown}");
        let mut all = vec![0; 32 << 20];
        streams[0].read_exact(&mut all).unwrap();
        assert!(all.iter().all(|byte| *byte == 7));
    });
}

fn await_true(mut wanted: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(300));
        if wanted() {
            return true;
        }
    }
    false
}

/// And the same the other way: nobody takes what the guest says.
#[test]
fn a_server_that_does_not_read_holds_the_guest() {
    with_server(
        |_stream| thread::park(),
        |egress| {
            let before = egress.memory();
            let mut stream = connect();
            stream
                .set_write_timeout(Some(Duration::from_millis(500)))
                .unwrap();
            let block = [1; 1 << 20];
            let taken = (0..1024).take_while(|_| stream.write_all(&block).is_ok()).count();
            assert!(taken < 64, "{taken} MiB went somewhere");
            assert!(egress.memory().saturating_sub(before) < 64 << 20);
        },
    );
}

#[test]
fn a_guest_that_has_said_all_still_hears() {
    let sums = |mut stream: TcpStream| {
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        write!(stream, "{} bytes", heard.len()).unwrap();
    };
    with_server(sums, |_| {
        let mut stream = connect();
        stream.write_all(&vec![0; 300_000]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert_eq!(said, "300000 bytes");
    });
}

#[test]
fn a_server_that_has_said_all_still_hears() {
    let (sender, heard) = std::sync::mpsc::channel();
    let quick = move |mut stream: TcpStream| {
        stream.write_all(b"that is all").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        sender.send(heard.len()).unwrap();
    };
    with_server(quick, move |_| {
        let mut stream = connect();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert_eq!(said, "that is all");
        stream.write_all(&vec![0; 3_000_000]).unwrap();
        drop(stream);
        assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), 3_000_000);
    });
}

#[test]
fn a_server_that_breaks_the_connection_breaks_it_for_the_guest() {
    let breaks = |stream: TcpStream| {
        // What was not read makes the kernel say RST.
        let _ = stream.peek(&mut [0]);
    };
    with_server(breaks, |_| {
        let mut stream = connect();
        stream.write_all(b"\0unread").unwrap();
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_server_that_stalls_stalls_nobody_else() {
    // Who says zero first is kept waiting.
    let server = |mut stream: TcpStream| {
        let mut first = [0];
        stream.read_exact(&mut first).unwrap();
        match first {
            [0] => thread::park(),
            _ => stream.write_all(&first).unwrap(),
        }
    };
    with_server(server, |_| {
        let mut stalled = connect();
        stalled
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        stalled.write_all(b"\0").unwrap();
        let mut other = connect();
        other.write_all(b"\x01").unwrap();
        other.read_exact(&mut [0]).unwrap();
        assert_eq!(
            stalled.read(&mut [0]).unwrap_err().kind(),
            std::io::ErrorKind::WouldBlock
        );
    });
}

#[test]
fn a_server_that_refuses_is_refused_at_once() {
    with_server(
        |_| {},
        |_| {
            let started = Instant::now();
            let error = TcpStream::connect("good.test:7001").unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
            assert!(started.elapsed() < Duration::from_secs(1));
        },
    );
}

#[test]
fn a_rule_that_denies_cuts_what_stands_and_one_that_allows_is_there_at_once() {
    with_server(echo, |egress| {
        let mut stream = connect();
        stream.write_all(b"\0").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        let policy = rules(&["good.test", "!good.test:7000"]);
        egress.request(&Request::Policy { policy });
        assert_eq!(
            stream.read(&mut [0]).unwrap_err().kind(),
            std::io::ErrorKind::ConnectionReset
        );
        let refused = TcpStream::connect(("good.test", PORT)).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);

        let policy = rules(&["good.test"]);
        egress.request(&Request::Policy { policy });
        let again = await_true(|| TcpStream::connect(("good.test", PORT)).is_ok());
        assert!(again, "the rule is not in force");
    });
}
