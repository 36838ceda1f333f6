use super::*;
use crate::limits::{MAX_CONNECTIONS, MAX_LOOSE_RESETS, WIDE_WINDOW};

/// The packet is refused, answered with a reset, and leaves no connection.
fn refused(mut bench: Bench, header: Header) -> Refusal {
    let refusal = bench.give(header).unwrap_err();
    let packets = bench.packets();
    assert_eq!(packets.len(), 1);
    assert_eq!(packets[0].op, RESET);
    assert_eq!(packets[0].source, header.target);
    assert_eq!(packets[0].target, header.source);
    assert_eq!(bench.mux.connections(), 0);
    refusal
}

/// The packet on a live connection ends it with a reset.
fn breaks(header: impl FnOnce(Header) -> Header, op: u16) -> Refusal {
    let mut bench = Bench::new();
    let _host = bench.dial(7);
    let header = header(bench.header(7, op));
    refused(bench, header)
}

#[test]
fn a_port_nobody_listed_is_refused() {
    let bench = Bench::new();
    let mut header = bench.header(7, REQUEST);
    header.target.port = 22;
    assert_eq!(refused(bench, header), Refusal::NoSuchPort(22));
}

#[test]
fn the_reserved_port_is_refused() {
    let bench = Bench::new();
    let mut header = bench.header(u32::MAX, REQUEST);
    header.target.port = u32::MAX;
    assert_eq!(refused(bench, header), Refusal::NoSuchPort(u32::MAX));
}

#[test]
fn only_the_host_can_be_dialled() {
    for cid in [0, 1, 3, 4, u64::from(u32::MAX), u64::MAX] {
        let bench = Bench::new();
        let mut header = bench.header(7, REQUEST);
        header.target.cid = cid;
        assert_eq!(refused(bench, header), Refusal::NotTheHost(cid));
    }
}

#[test]
fn a_forged_source_is_dropped_without_an_answer() {
    let mut bench = Bench::new();
    let mut header = bench.header(7, REQUEST);
    header.source.cid = 4;
    assert_eq!(bench.give(header), Err(Refusal::ForgedSource(4)));
    assert!(bench.ops().is_empty());
}

#[test]
fn datagrams_and_seqpackets_are_refused_in_kind() {
    for kind in [0, 2, 3, u16::MAX] {
        let mut bench = Bench::new();
        let _host = bench.dial(7);
        let header = Header {
            kind,
            ..bench.header(7, REQUEST)
        };
        assert_eq!(bench.give(header), Err(Refusal::NotAStream(kind)));
        assert_eq!(bench.packets()[0].kind, kind);
        assert_eq!(bench.mux.connections(), 1, "the stream of that name lives on");
    }
}

#[test]
fn unknown_operations_are_refused() {
    for op in [0, 8, u16::MAX] {
        assert_eq!(breaks(|header| header, op), Refusal::UnknownOp(op));
    }
}

#[test]
fn a_response_nobody_asked_for_is_refused() {
    assert_eq!(breaks(|header| header, RESPONSE), Refusal::Unasked);
    let bench = Bench::new();
    let header = bench.header(7, RESPONSE);
    assert_eq!(refused(bench, header), Refusal::NoConnection);
}

#[test]
fn a_second_request_for_a_live_connection_ends_it() {
    assert_eq!(breaks(|header| header, REQUEST), Refusal::RequestedTwice);
}

#[test]
fn a_request_for_a_connection_still_draining_is_refused_and_loses_nothing() {
    let mut bench = Bench::new();
    let _host = bench.dial(7);
    bench.fill(7);
    bench.send(7, RESET).unwrap();
    let held = bench.mux.held();
    assert_eq!(bench.send(7, REQUEST), Err(Refusal::RequestedTwice));
    assert_eq!(bench.data(7, b"x"), Err(Refusal::NoConnection));
    assert_eq!(bench.ops(), [RESET, RESET]);
    assert_eq!((bench.mux.connections(), bench.mux.held()), (1, held));
}

#[test]
fn data_for_no_connection_is_refused() {
    let bench = Bench::new();
    let header = Header {
        len: 4,
        ..bench.header(7, DATA)
    };
    assert_eq!(refused(bench, header), Refusal::NoConnection);
}

#[test]
fn a_reset_is_never_answered() {
    let mut bench = Bench::new();
    bench.send(7, RESET).unwrap();
    let mut header = bench.header(7, RESET);
    header.target.cid = 9;
    bench.give(header).unwrap_err();
    header = bench.header(7, RESET);
    header.len = 5;
    bench.give(header).unwrap_err();
    assert!(bench.ops().is_empty());
}

#[test]
fn lengths_that_lie_end_the_connection() {
    let claims = |len, available| {
        let mut bench = Bench::new();
        let _host = bench.dial(7);
        let header = Header {
            len,
            ..bench.header(7, DATA)
        };
        let refusal = bench.mux.receive(&header, available, bench.now).unwrap_err();
        assert_eq!(bench.ops(), [RESET]);
        refusal
    };
    assert!(matches!(claims(10, 9), Refusal::Length { .. }));
    assert!(matches!(claims(u32::MAX, 100), Refusal::Length { .. }));
    let most = MAX_PAYLOAD as usize;
    assert!(matches!(
        claims(MAX_PAYLOAD + 1, most * 2),
        Refusal::Length { .. }
    ));
}

#[test]
fn bytes_beyond_the_claimed_length_are_not_data() {
    let mut bench = Bench::new();
    let _host = bench.dial(7);
    let header = Header {
        len: 4,
        ..bench.header(7, DATA)
    };
    let received = bench.mux.receive(&header, 100, bench.now);
    let expected = Received::Data {
        pair: pair(7),
        len: 4,
    };
    assert_eq!(received, Ok(expected));
}

#[test]
fn control_packets_carry_no_payload() {
    let mut bench = Bench::new();
    let _host = bench.dial(7);
    let header = Header {
        len: 1,
        ..bench.header(7, CREDIT_UPDATE)
    };
    assert_eq!(refused(bench, header), Refusal::PayloadOnControl(CREDIT_UPDATE));
}

#[test]
fn empty_data_does_nothing() {
    let mut bench = Bench::new();
    let _host = bench.dial(7);
    bench.data(7, b"").unwrap();
    assert_eq!(bench.mux.connections(), 1);
}

#[test]
fn shutdown_flags_that_mean_nothing_end_the_connection() {
    for flags in [0, 4, 7, u32::MAX] {
        let refusal = breaks(|header| Header { flags, ..header }, SHUTDOWN);
        assert_eq!(refusal, Refusal::ShutdownFlags(flags));
    }
}

#[test]
fn data_after_the_guest_said_it_was_done_ends_the_connection() {
    let mut bench = Bench::new();
    let _host = bench.dial(7);
    bench.shut(7, SEND);
    assert_eq!(bench.data(7, b"x"), Err(Refusal::UnexpectedData));
    assert_eq!(bench.ops(), [RESET]);
}

#[test]
fn claiming_more_than_was_sent_ends_the_connection() {
    let refusal = breaks(|header| Header { fwd_cnt: 1, ..header }, CREDIT_UPDATE);
    assert!(matches!(refusal, Refusal::Credit(_)));
}

#[test]
fn sending_beyond_the_window_ends_the_connection() {
    let mut bench = Bench::new();
    let _host = bench.dial(7);
    let chunk = vec![0; MAX_PAYLOAD as usize];
    let refusal = loop {
        if let Err(refusal) = bench.data(7, &chunk) {
            break refusal;
        }
    };
    assert!(matches!(refusal, Refusal::Overrun(_)));
    assert!(bench.mux.held() <= WIDE_WINDOW as usize);
    assert!(bench.ops().contains(&RESET));
}

#[test]
fn a_bogus_window_is_only_the_guests_problem() {
    let mut bench = Bench::new();
    let mut host = bench.dial(7);
    bench.credit(7, u32::MAX, 0).unwrap();
    host.write_all(b"fits").unwrap();
    assert_eq!(bench.pull(7), b"fits");
    bench.credit(7, 0, 4).unwrap();
    assert_eq!(bench.mux.quota(pair(7)), 0);
    assert_eq!(bench.interest(7), None);
}

#[test]
fn a_flood_of_connections_stops_at_the_limit_and_the_old_ones_live() {
    let mut bench = Bench::new();
    let mut host = bench.dial(0);
    bench.shorten_backlog(1);
    for port in 1..5_000 {
        let _ = bench.send(port, REQUEST);
    }
    assert_eq!(bench.mux.connections(), MAX_CONNECTIONS);
    assert_eq!(bench.send(9_999, REQUEST), Err(Refusal::TooManyConnections));
    bench.data(0, b"alive").unwrap();
    let mut heard = [0; 5];
    host.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"alive");
}

#[test]
fn a_flood_of_refused_packets_leaves_a_bounded_pile_of_resets() {
    let mut bench = Bench::new();
    for port in 0..10_000 {
        bench.send(port, CREDIT_UPDATE).unwrap_err();
    }
    assert_eq!(bench.ops().len(), MAX_LOOSE_RESETS);
}

#[test]
fn opening_and_resetting_one_pair_for_ever_grows_nothing() {
    let mut bench = Bench::new();
    for _ in 0..2_000 {
        bench.send(7, REQUEST).unwrap();
        drop(bench.listener.accept().unwrap());
        bench.mux.starve(pair(7));
        bench.send(7, RESET).unwrap();
        bench.interest(7);
    }
    assert_eq!(bench.mux.connections(), 0);
    assert!(bench.mux.outbox.is_empty());
    assert!(bench.mux.line.is_empty());
    assert!(bench.mux.touched.is_empty());
}

#[test]
fn a_half_close_before_the_connection_is_made_leaves_nothing() {
    let mut bench = Bench::new();
    let _first = bench.dial(1);
    bench.shorten_backlog(0);
    bench.send(2, REQUEST).unwrap();
    bench.send(3, REQUEST).unwrap();
    assert_eq!(bench.ops(), [RESPONSE], "the third is still dialling");
    let header = Header {
        flags: SEND,
        ..bench.header(3, SHUTDOWN)
    };
    assert!(matches!(bench.give(header), Err(Refusal::State(_))));
    assert_eq!(bench.ops(), [RESET]);
    assert_eq!(bench.mux.connections(), 2);
}
