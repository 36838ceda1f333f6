use super::*;

#[test]
fn what_the_host_wrote_before_closing_reaches_the_guest_before_the_end() {
    let mut bench = Bench::new();
    let mut host = bench.dial(7);
    host.write_all(b"last words").unwrap();
    drop(host);
    assert_eq!(bench.pull(7), b"last words");
    assert!(bench.ops().is_empty());
    assert_eq!(bench.pull(7), b"");
    assert_eq!(bench.shutdowns(), [RECEIVE | SEND]);
    bench.send(7, RESET).unwrap();
    assert_eq!(bench.mux.connections(), 0);
    assert!(bench.ops().is_empty());
}

#[test]
fn a_guest_that_never_answers_our_shutdown_is_reset() {
    let mut bench = Bench::new();
    drop(bench.dial(7));
    bench.pull(7);
    assert_eq!(bench.ops(), [SHUTDOWN]);
    bench.later(CLOSE_TIMEOUT - Duration::from_secs(1));
    assert_eq!(bench.mux.connections(), 1);
    bench.later(Duration::from_secs(1));
    assert_eq!(bench.ops(), [RESET]);
    assert_eq!(bench.mux.connections(), 0);
}

#[test]
fn what_the_guest_sent_before_closing_reaches_the_host() {
    let mut bench = Bench::new();
    let mut host = bench.dial(7);
    bench.data(7, b"last words").unwrap();
    bench.shut(7, RECEIVE | SEND);
    assert_eq!(bench.ops(), [RESET]);
    assert_eq!(bench.mux.connections(), 0);
    let mut heard = String::new();
    host.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "last words");
}

#[test]
fn what_a_slow_host_has_not_read_outlives_the_guests_side() {
    let mut bench = Bench::new();
    let mut host = bench.dial(7);
    let sent = bench.fill(7);
    bench.shut(7, RECEIVE | SEND);
    assert_eq!(bench.ops(), [RESET]);
    assert_eq!(bench.interest(7), WRITE);
    bench.later(CLOSE_TIMEOUT * 100);
    assert_eq!(bench.mux.connections(), 1);
    assert_eq!(bench.read_to_end(7, &mut host).len(), sent);
    assert_eq!(bench.mux.connections(), 0);
}

#[test]
fn a_host_that_writes_to_a_guest_long_gone_is_not_left_waiting() {
    let mut bench = Bench::new();
    let mut host = bench.dial(7);
    bench.fill(7);
    bench.shut(7, RECEIVE | SEND);
    assert!(host.write(b"x").is_err());
}

#[test]
fn a_reset_from_the_guest_loses_nothing_it_sent_before() {
    let mut bench = Bench::new();
    let mut host = bench.dial(7);
    bench.data(7, b"then gone").unwrap();
    bench.send(7, RESET).unwrap();
    assert!(bench.ops().is_empty());
    assert_eq!(bench.mux.connections(), 0);
    let mut heard = String::new();
    host.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "then gone");
}

#[test]
fn bytes_the_guest_never_took_do_not_turn_the_end_into_an_error() {
    let mut bench = Bench::new();
    let mut host = bench.dial(7);
    host.write_all(b"unread").unwrap();
    bench.data(7, b"bye").unwrap();
    bench.shut(7, RECEIVE | SEND);
    let mut heard = String::new();
    host.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "bye");
}

#[test]
fn a_guest_that_stops_sending_can_still_receive() {
    let mut bench = Bench::new();
    let mut host = bench.dial(7);
    bench.data(7, b"question").unwrap();
    bench.shut(7, SEND);
    let mut heard = String::new();
    host.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "question");
    host.write_all(b"answer").unwrap();
    assert_eq!(bench.pull(7), b"answer");
    drop(host);
    bench.pull(7);
    assert_eq!(bench.shutdowns(), [RECEIVE | SEND]);
}

#[test]
fn a_host_that_stops_sending_can_still_receive() {
    let mut bench = Bench::new();
    let mut host = bench.dial(7);
    host.write_all(b"question").unwrap();
    host.shutdown(Shutdown::Write).unwrap();
    assert_eq!(bench.pull(7), b"question");
    assert_eq!(bench.pull(7), b"");
    assert_eq!(bench.shutdowns(), [SEND]);
    assert_eq!(bench.interest(7), HANG_UP);
    bench.data(7, b"answer").unwrap();
    let mut heard = [0; 6];
    host.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"answer");
    drop(host);
    bench.mux.hung_up(pair(7), bench.now);
    assert_eq!(bench.shutdowns(), [RECEIVE | SEND]);
}

#[test]
fn a_guest_that_stops_receiving_can_still_send() {
    let mut bench = Bench::new();
    let mut host = bench.dial(7);
    bench.shut(7, RECEIVE);
    assert!(host.write(b"x").is_err());
    bench.data(7, b"more").unwrap();
    let mut heard = [0; 4];
    host.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"more");
    bench.shut(7, SEND);
    assert_eq!(bench.ops(), [RESET]);
    assert_eq!(host.read(&mut heard).unwrap(), 0);
}

#[test]
fn a_host_that_stops_receiving_is_told_to_the_guest_and_can_still_send() {
    let mut bench = Bench::new();
    let mut host = bench.dial(7);
    host.shutdown(Shutdown::Read).unwrap();
    bench.data(7, b"unwanted").unwrap();
    assert_eq!(bench.shutdowns(), [RECEIVE]);
    bench.data(7, b"still under way").unwrap();
    host.write_all(b"but listen").unwrap();
    assert_eq!(bench.pull(7), b"but listen");
}

#[test]
fn a_host_that_closes_with_bytes_unread_still_delivers_its_own() {
    let mut bench = Bench::new();
    let mut host = bench.dial(7);
    bench.data(7, b"never read").unwrap();
    host.write_all(b"read me").unwrap();
    drop(host);
    assert_eq!(bench.pull(7), b"read me");
    bench.pull(7);
    assert_eq!(bench.shutdowns(), [RECEIVE | SEND]);
}

#[test]
fn a_half_close_waits_for_the_bytes_before_it() {
    let mut bench = Bench::new();
    let mut host = bench.dial(7);
    let sent = bench.fill(7);
    bench.shut(7, SEND);
    assert_eq!(bench.read_to_end(7, &mut host).len(), sent);
    host.write_all(b"done").unwrap();
    assert_eq!(bench.pull(7), b"done");
}

#[test]
fn both_sides_ending_their_half_ends_the_connection() {
    let mut bench = Bench::new();
    let host = bench.dial(7);
    host.shutdown(Shutdown::Write).unwrap();
    bench.pull(7);
    bench.shut(7, SEND);
    assert_eq!(bench.shutdowns(), [RECEIVE | SEND]);
    bench.send(7, RESET).unwrap();
    assert_eq!(bench.mux.connections(), 0);
}

#[test]
fn dropping_the_mux_closes_every_socket() {
    let mut bench = Bench::new();
    let mut hosts: Vec<UnixStream> = (0..10).map(|port| bench.dial(port)).collect();
    drop(bench);
    for host in &mut hosts {
        assert_eq!(host.read(&mut [0]).unwrap(), 0);
    }
}
