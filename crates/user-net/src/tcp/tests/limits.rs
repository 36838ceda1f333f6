//! What runs out, and what happens then.

use std::time::Duration;

use egress_policy::link::DropReason;

use super::by_hand::{ACK, Hand, RST, SYN, Said};
use crate::{
    FlowId,
    limits::{
        BUFFER, HANDSHAKE_DEADLINE, MAX_FLOWS, MAX_LAST_WORDS, MAX_OPENING, OPENING_DEADLINE, RESET_BURST,
        SMALL_BUFFER,
    },
    tcp::{FlowEvent, Received, Stage},
};

fn syn(port: u16) -> Said<'static> {
    Said {
        port,
        flags: SYN,
        seq: 100,
        ack: 0,
        window: 1000,
        payload: b"what comes too early",
    }
}

#[test]
fn a_flood_of_syns_from_many_ports_fills_the_openings_and_the_rest_is_reset() {
    let mut hand = Hand::new();
    let received: Vec<_> = (1..=60_000).map(|port| hand.say_exactly(&syn(port))).collect();
    let (opened, refused) = received.split_at(MAX_OPENING);
    assert!(
        opened
            .iter()
            .all(|received| matches!(received, Received::Opening(_)))
    );
    assert!(
        refused
            .iter()
            .all(|received| *received == Received::Refused(DropReason::Limit))
    );
    let heard = hand.hear();
    assert!(
        heard
            .iter()
            .all(|heard| heard.flags == RST | ACK && heard.ack == 121)
    );
    // So many at once; the guest can ask again.
    assert_eq!(heard.len(), RESET_BURST as usize);
    assert_eq!(heard[0].to, u16::try_from(MAX_OPENING + 1).unwrap());
    assert!(hand.flows.flows.len() == MAX_OPENING && hand.flows.timers.len() == MAX_OPENING);
}

#[test]
fn a_flood_of_syns_from_one_port_is_one_flow() {
    let mut hand = Hand::new();
    let flow = hand.knock();
    for _ in 0..60_000 {
        assert_eq!(hand.say_at(SYN, hand.seq.wrapping_sub(1), &[]), Received::Known);
    }
    assert_eq!(hand.hear(), []);
    hand.flows.accept(flow, hand.now);
    assert_eq!(hand.hear().len(), 1);
    assert_eq!(hand.say_at(SYN, hand.seq.wrapping_sub(1), &[]), Received::Known);
    assert_eq!(hand.hear().len(), 0);
}

#[test]
fn the_last_syn_of_a_waiting_flow_counts() {
    let mut hand = Hand::new();
    let flow = hand.knock();
    hand.say_at(SYN, 5_000, &[]);
    hand.flows.accept(flow, hand.now);
    assert_eq!(hand.hear()[0].ack, 5_001);
}

#[test]
fn refusing_is_a_reset_at_once_at_any_time_of_a_flow() {
    let mut hand = Hand::new();
    let flow = hand.knock();
    hand.flows.refuse(flow, hand.now);
    let heard = hand.hear();
    assert_eq!(
        (heard[0].flags, heard[0].seq, heard[0].ack),
        (RST | ACK, 0, hand.seq)
    );

    let flow = hand.knock();
    hand.flows.accept(flow, hand.now);
    hand.flows.refuse(flow, hand.now);
    let heard = hand.hear();
    assert_eq!(
        (heard.len(), heard[0].flags, heard[0].ack),
        (1, RST | ACK, hand.seq)
    );

    let (mut hand, flow) = Hand::open();
    hand.write(flow, b"hello");
    hand.hear();
    hand.flows.refuse(flow, hand.now);
    let heard = hand.hear();
    assert_eq!(
        (heard.len(), heard[0].flags, heard[0].ack),
        (1, RST | ACK, hand.seq)
    );
    assert_eq!(heard[0].seq, hand.ack.wrapping_add(5));
    assert_eq!(hand.events(), []);
    assert!(hand.flows.flows.is_empty() && hand.flows.ids.is_empty() && hand.flows.timers.is_empty());
    assert_eq!(hand.flows.opening, 0);
}

#[test]
fn flows_take_turns_a_packet_each() {
    let mut hand = Hand::new();
    let mut flows = Vec::new();
    for port in 1..=3 {
        hand.port = port;
        hand.seq = 100;
        flows.push(hand.knock());
        hand.flows.accept(flows[flows.len() - 1], hand.now);
        hand.ack = hand.hear()[0].seq.wrapping_add(1);
        hand.say(ACK, &[]);
        hand.hear();
    }
    for flow in flows {
        hand.write(flow, &[1; 14_600]);
    }
    let turns: Vec<u16> = hand.hear().iter().map(|heard| heard.to).collect();
    assert_eq!(turns, [1, 2, 3].repeat(10));
}

#[test]
fn a_verdict_that_does_not_come_is_a_refusal() {
    let mut hand = Hand::new();
    let flow = hand.knock();
    assert_eq!(hand.flows.deadline(), Some(hand.now + OPENING_DEADLINE));
    hand.wait(OPENING_DEADLINE - Duration::from_millis(1));
    assert_eq!(hand.events(), []);
    hand.wait(Duration::from_millis(1));
    assert_eq!(hand.events(), [FlowEvent::Closed { flow, broken: true }]);
    assert_eq!(hand.hear()[0].flags, RST | ACK);
    assert_eq!((hand.flows.opening, hand.flows.deadline()), (0, None));
}

#[test]
fn a_handshake_that_the_guest_does_not_finish_is_given_up() {
    let mut hand = Hand::new();
    let flow = hand.knock();
    hand.flows.accept(flow, hand.now);
    hand.hear();
    let mut waited = Duration::ZERO;
    while hand.events().is_empty() {
        hand.wait(Duration::from_millis(500));
        waited += Duration::from_millis(500);
        assert!(waited <= HANDSHAKE_DEADLINE);
        hand.hear();
    }
    assert_eq!(waited, HANDSHAKE_DEADLINE);
    assert_eq!((hand.flows.opening, hand.flows.deadline()), (0, None));
    assert!(hand.flows.unread(flow).is_empty());
}

#[test]
fn a_guest_that_resets_a_flow_before_it_stands_is_heard() {
    let mut hand = Hand::new();
    let flow = hand.knock();
    hand.say_at(RST, hand.seq.wrapping_add(9), &[]);
    assert_eq!(hand.events(), []);
    hand.say_at(RST, hand.seq, &[]);
    assert_eq!(hand.events(), [FlowEvent::Closed { flow, broken: true }]);
    let flow = hand.knock();
    hand.flows.accept(flow, hand.now);
    hand.hear();
    hand.say_at(RST, hand.seq, &[]);
    assert_eq!(hand.events(), [FlowEvent::Closed { flow, broken: true }]);
    assert_eq!((hand.flows.opening, hand.flows.deadline()), (0, None));
}

#[test]
fn flows_beyond_the_limit_are_reset_and_there_is_room_again_when_one_ends() {
    let mut hand = Hand::new();
    let mut first = None;
    for port in 0..u16::try_from(MAX_FLOWS).unwrap() {
        hand.port = 1000 + port;
        hand.seq = 100;
        let flow = hand.knock();
        first.get_or_insert(flow);
        hand.flows.accept(flow, hand.now);
        hand.ack = hand.hear()[0].seq.wrapping_add(1);
        hand.say(ACK, &[]);
        hand.events();
    }
    assert_eq!(hand.say_exactly(&syn(9)), Received::Refused(DropReason::Limit));
    assert_eq!(hand.hear()[0].flags, RST | ACK);
    hand.flows.refuse(first.unwrap(), hand.now);
    assert!(matches!(hand.say_exactly(&syn(9)), Received::Opening(_)));
}

/// What a flow that stands buffers, both ways.
fn buffered(hand: &Hand, flow: FlowId) -> usize {
    match &hand.flows.flows[&flow].stage {
        Stage::Standing(connection) => {
            connection.socket().recv_capacity() + connection.socket().send_capacity()
        }
        _ => 0,
    }
}

/// The far end of each writes until it is stuck, and so does the guest.
fn stalled(hand: &mut Hand, count: usize) -> Vec<FlowId> {
    let ports = (1000..).take(count);
    ports.map(|port| stall(hand, port)).collect()
}

fn stall(hand: &mut Hand, port: u16) -> FlowId {
    (hand.port, hand.seq) = (port, 100);
    let flow = hand.knock();
    hand.flows.accept(flow, hand.now);
    hand.ack = hand.hear()[0].seq.wrapping_add(1);
    hand.say(ACK, &[]);
    while hand.write(flow, &[1; 65_000]) > 0 {}
    let mut unread = 0;
    loop {
        hand.say_at(ACK, hand.seq.wrapping_add(unread), &[2; SMALL_BUFFER]);
        let more = u32::try_from(hand.flows.unread(flow).len()).unwrap();
        if more == unread {
            break;
        }
        unread = more;
    }
    hand.seq = hand.seq.wrapping_add(unread);
    let mut packet = Vec::new();
    while hand.flows.transmit(&mut packet, hand.now) {
        packet.clear();
    }
    hand.events();
    flow
}

#[test]
fn a_thousand_stalled_flows_hold_what_all_may_hold_and_no_more() {
    const PROMISED: usize = 128 << 20;
    let mut hand = Hand::new();
    let flows = stalled(&mut hand, MAX_FLOWS);
    let all: usize = flows.iter().map(|flow| buffered(&hand, *flow)).sum();
    assert!(all <= PROMISED, "{all}");
    assert_eq!(buffered(&hand, flows[0]), 2 * BUFFER);
    assert_eq!(buffered(&hand, flows[MAX_FLOWS - 1]), 2 * SMALL_BUFFER);
    // Whoever comes when they have gone has as much as the first.
    for (number, flow) in flows.into_iter().enumerate() {
        hand.port = 1000 + u16::try_from(number).unwrap();
        match number % 2 {
            0 => hand.flows.refuse(flow, hand.now),
            _ => hand.flows.cut(flow, hand.now),
        }
        hand.events();
    }
    let flow = hand.knock();
    hand.flows.accept(flow, hand.now);
    assert_eq!(buffered(&hand, flow), 2 * BUFFER);
}

#[test]
fn the_writer_of_a_small_buffer_hears_when_there_is_room_again() {
    let mut hand = Hand::new();
    let last = *stalled(&mut hand, 300).last().unwrap();
    let before = hand.ack;
    hand.ack = before.wrapping_add(u32::try_from(SMALL_BUFFER / 2).unwrap());
    hand.say(ACK, &[]);
    assert_eq!(hand.events(), [FlowEvent::Writable(last)]);
}

#[test]
fn a_guest_that_takes_nothing_and_goes_on_costs_a_bounded_amount() {
    let mut hand = Hand::new();
    for round in 0..20_000_u32 {
        hand.port = 1000 + u16::try_from(round % 50_000).unwrap();
        let flow = hand.knock();
        hand.flows.accept(flow, hand.now);
        // Odd ones end by the guest, even ones by us; events of the latter nobody fetches.
        if round % 2 == 0 {
            hand.flows.refuse(flow, hand.now);
        } else {
            hand.say_at(RST, hand.seq, &[]);
            if round % 500 == 1 {
                hand.events();
            }
        }
        hand.say_at(ACK, 77, b"a stray");
    }
    assert!(hand.flows.last_words.len() <= MAX_LAST_WORDS);
    assert!(hand.flows.ready.len() <= 2 * MAX_FLOWS + 1);
    assert!(hand.flows.events.len() <= 4 * MAX_FLOWS + 1);
    assert!(hand.flows.ids.is_empty() && hand.flows.timers.is_empty());
}

#[test]
fn refusals_whose_events_nobody_fetches_cost_a_bounded_amount() {
    let mut hand = Hand::new();
    for _ in 0..3 * 4 * MAX_FLOWS {
        let flow = hand.knock();
        hand.flows.refuse(flow, hand.now);
    }
    assert!(hand.flows.events.len() <= 4 * MAX_FLOWS + 1);
    assert_eq!(hand.events(), []);
}

#[test]
fn after_the_end_there_is_no_room_and_no_word_of_any() {
    let (mut hand, flow) = Hand::open();
    while hand.write(flow, &[1; 65_000]) > 0 {}
    hand.flows.finish(flow, hand.now);
    let heard = hand.hear();
    hand.ack = heard.iter().fold(hand.ack, |ack, heard| {
        ack.wrapping_add(u32::try_from(heard.payload.len()).unwrap())
    });
    hand.say(ACK, &[]);
    assert_eq!(hand.write(flow, b"more"), 0);
    assert_eq!(hand.events(), []);
}
