use super::*;
use crate::dial::ConfigError;
use crate::limits::{
    CREDIT_PATIENCE, DIAL_RETRY, DIAL_TIMEOUT, MAX_READ, NARROW_WINDOW, WIDE_CONNECTIONS, WIDE_WINDOW,
};

#[test]
fn a_connection_to_a_listed_port_reaches_its_listener() {
    let mut bench = Bench::new();
    bench.send(7, REQUEST).unwrap();
    let packets = bench.packets();
    assert_eq!(packets.len(), 1);
    assert_eq!(packets[0].op, RESPONSE);
    assert_eq!(packets[0].source, Address { cid: 2, port: PORT });
    assert_eq!(packets[0].target, Address { cid: 3, port: 7 });
    assert_eq!(packets[0].buf_alloc, WIDE_WINDOW);
    assert_eq!(bench.interest(7), READ);
    bench.listener.accept().unwrap();
}

#[test]
fn bytes_go_both_ways() {
    let mut bench = Bench::new();
    let mut host = bench.dial(7);
    bench.data(7, b"ping").unwrap();
    let mut heard = [0; 4];
    host.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"ping");
    host.write_all(b"pong").unwrap();
    assert_eq!(bench.pull(7), b"pong");
    let header = bench.mux.data_header(pair(7), 4);
    assert_eq!((header.len, header.fwd_cnt), (4, 4));
}

#[test]
fn no_data_goes_to_the_guest_before_the_response() {
    let mut bench = Bench::new();
    bench.send(7, REQUEST).unwrap();
    let mut host = bench.listener.accept().unwrap().0;
    host.write_all(b"early").unwrap();
    assert_eq!(bench.mux.quota(pair(7)), 0);
    assert_eq!(bench.interest(7), None);
    assert_eq!(bench.ops(), [RESPONSE]);
    assert_eq!(bench.interest(7), READ);
    assert_eq!(bench.pull(7), b"early");
}

#[test]
fn a_guest_without_room_is_sent_nothing_and_costs_nothing() {
    let mut bench = Bench::new();
    let mut host = bench.dial(7);
    bench.credit(7, 4, 0).unwrap();
    assert_eq!(bench.mux.next_in_line(), None);
    host.write_all(b"abcdefgh").unwrap();
    assert_eq!(bench.pull(7), b"abcd");
    assert_eq!(bench.interest(7), None);
    bench.credit(7, 4, 3).unwrap();
    assert_eq!(bench.mux.next_in_line(), Some(pair(7)));
    assert_eq!(bench.pull(7), b"efg");
}

#[test]
fn a_guest_that_takes_no_more_and_keeps_quiet_is_asked_once() {
    let mut bench = Bench::new();
    let mut host = bench.dial(7);
    bench.credit(7, 4, 0).unwrap();
    host.write_all(b"abcdefgh").unwrap();
    assert_eq!(bench.pull(7), b"abcd");
    assert!(bench.ops().is_empty());
    bench.later(CREDIT_PATIENCE);
    assert_eq!(bench.ops(), [CREDIT_REQUEST]);
    bench.later(CREDIT_PATIENCE);
    assert!(bench.ops().is_empty());
    assert_eq!(bench.mux.connections(), 1);
}

#[test]
fn a_guest_with_a_small_window_of_its_own_hears_of_its_credit_in_time() {
    let mut bench = Bench::new();
    let _host = bench.dial(7);
    bench.credit(7, 1000, 0).unwrap();
    let header = Header {
        buf_alloc: 1000,
        len: 1000,
        ..bench.header(7, DATA)
    };
    let Ok(Received::Data { pair, len }) = bench.give(header) else {
        panic!("not taken");
    };
    bench.mux.write(pair, &Plain(&vec![0; len]), bench.now);
    assert_eq!(bench.ops(), [CREDIT_UPDATE]);
}

#[test]
fn a_connection_waiting_for_buffers_is_not_polled() {
    let mut bench = Bench::new();
    let mut host = bench.dial(7);
    host.write_all(b"x").unwrap();
    bench.mux.starve(pair(7));
    bench.mux.starve(pair(7));
    assert_eq!(bench.interest(7), None);
    assert_eq!(bench.mux.next_in_line(), Some(pair(7)));
    assert_eq!(bench.mux.next_in_line(), None);
    assert_eq!(bench.interest(7), READ);
}

#[test]
fn a_slow_host_gets_everything_in_order_and_the_guest_is_held_back() {
    let mut bench = Bench::new();
    let mut host = bench.dial(7);
    let chunk: Vec<u8> = (0..MAX_PAYLOAD).map(|at| (at % 251) as u8).collect();
    let mut sent = 0;
    while bench.data(7, &chunk).is_ok() {
        sent += 1;
        assert!(bench.mux.held() <= WIDE_WINDOW as usize);
    }
    assert!(sent > 4, "{sent}");
    assert_eq!(bench.mux.connections(), 1, "its bytes are kept though it overran");
    bench.packets();
    let heard = bench.read_to_end(7, &mut host);
    assert!(heard == chunk.repeat(sent));
    assert_eq!(bench.mux.connections(), 0);
}

#[test]
fn a_full_socket_is_waited_for_and_an_empty_one_is_not() {
    let mut bench = Bench::new();
    let mut host = bench.dial(7);
    bench.fill(7);
    assert_eq!(
        bench.interest(7),
        Some(Interest {
            read: true,
            write: true
        })
    );
    let mut scrap = vec![0; 1 << 20];
    while bench.mux.held() > 0 {
        assert!(host.read(&mut scrap).unwrap() > 0);
        bench.mux.writable(pair(7), bench.now);
    }
    assert_eq!(bench.interest(7), READ);
}

#[test]
fn the_guest_hears_of_its_credit_once_half_its_window_is_gone() {
    let mut bench = Bench::new();
    let mut host = bench.dial(7);
    let chunk = vec![1; WIDE_WINDOW as usize / 4];
    let mut scrap = vec![0; 1 << 20];
    for expected in [&[][..], &[][..], &[CREDIT_UPDATE][..]] {
        bench.data(7, &chunk).unwrap();
        host.read_exact(&mut scrap[..chunk.len()]).unwrap();
        assert_eq!(bench.ops(), expected);
    }
}

#[test]
fn a_credit_request_is_answered_once() {
    let mut bench = Bench::new();
    let _host = bench.dial(7);
    bench.data(7, b"abc").unwrap();
    bench.send(7, CREDIT_REQUEST).unwrap();
    bench.send(7, CREDIT_REQUEST).unwrap();
    let packets = bench.packets();
    assert_eq!(packets.len(), 1);
    assert_eq!((packets[0].op, packets[0].fwd_cnt), (CREDIT_UPDATE, 3));
}

#[test]
fn reads_grow_while_they_come_back_full() {
    let mut bench = Bench::new();
    let mut host = bench.dial(7);
    let first = bench.mux.quota(pair(7));
    host.write_all(&vec![1; first]).unwrap();
    assert_eq!(bench.pull(7).len(), first);
    assert!(bench.mux.quota(pair(7)) > first);
    assert!(bench.mux.quota(pair(7)) <= MAX_READ);
}

#[test]
fn many_connections_get_narrower_windows() {
    let mut bench = Bench::new();
    let mut windows = Vec::new();
    for port in 0..=WIDE_CONNECTIONS as u32 {
        bench.send(port, REQUEST).unwrap();
        bench.listener.accept().unwrap();
        windows.push(bench.packets()[0].buf_alloc);
    }
    let last = windows.pop().unwrap();
    assert!(windows.iter().all(|window| *window == WIDE_WINDOW));
    assert_eq!(last, NARROW_WINDOW);
}

#[test]
fn dials_wait_while_the_backlog_is_full_and_all_get_through() {
    let mut bench = Bench::new();
    bench.shorten_backlog(4);
    for port in 0..300 {
        bench.send(port, REQUEST).unwrap();
    }
    let mut accepted = Vec::new();
    let mut responses = 0;
    bench.listener.set_nonblocking(true).unwrap();
    for _ in 0..300 {
        while let Ok((stream, _)) = bench.listener.accept() {
            accepted.push(stream);
        }
        responses += bench.ops().iter().filter(|op| **op == RESPONSE).count();
        bench.later(DIAL_RETRY);
    }
    assert_eq!((accepted.len(), responses), (300, 300));
}

#[test]
fn a_listener_that_never_accepts_is_given_up() {
    let mut bench = Bench::new();
    bench.shorten_backlog(0);
    bench.send(1, REQUEST).unwrap();
    bench.send(2, REQUEST).unwrap();
    assert_eq!(bench.ops(), [RESPONSE]);
    assert!(bench.mux.deadline().is_some());
    let refusals = bench.later(DIAL_TIMEOUT);
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert_eq!(bench.ops(), [RESET]);
    assert_eq!(bench.mux.connections(), 1);
}

#[test]
fn a_port_whose_listener_is_gone_is_refused() {
    let mut bench = Bench::new();
    std::fs::remove_file(format!("{}_{PORT}", bench.socket.display())).unwrap();
    assert!(matches!(bench.send(1, REQUEST), Err(Refusal::Dial { .. })));
    assert_eq!(bench.ops(), [RESET]);
    assert_eq!(bench.mux.connections(), 0);
}

#[test]
fn routes_that_cannot_work_are_refused() {
    let routes = |guest_cid, port, socket: &str| Routes::new(guest_cid, socket.as_ref(), &[port]);
    assert!(matches!(routes(2, 1, "/s"), Err(ConfigError::ReservedCid(2))));
    assert!(matches!(
        routes(3, u32::MAX, "/s"),
        Err(ConfigError::ReservedPort(_))
    ));
    let long = "x".repeat(108);
    assert!(matches!(routes(3, 1, &long), Err(ConfigError::Path { .. })));
}
