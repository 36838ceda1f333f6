//! Windows, silences and ends that a guest drags out, and what it is answered when it is a stranger.

use std::time::Duration;

use smoltcp::wire::{Ipv4Packet, TcpPacket};

use super::by_hand::{ACK, FIN, Hand, Heard, RST, SYN, Said};
use crate::{
    Offloads,
    limits::GUEST_SILENCE,
    tcp::{FlowEvent, Flows, Received},
};

static SEGMENT: [u8; 65_000] = [7; 65_000];

#[test]
fn a_window_that_shrinks_or_stays_shut_is_waited_for_and_costs_little() {
    let (mut hand, flow) = Hand::open();
    while hand.write(flow, &SEGMENT) > 0 {}
    let sent: usize = hand.hear().iter().map(|heard| heard.payload.len()).sum();
    assert!(sent <= 1000 << 7);
    let shut = |hand: &Hand, window| Said {
        port: hand.port,
        flags: ACK,
        seq: hand.seq,
        ack: hand.ack,
        window,
        payload: &[],
    };
    for window in [500, 1, 0] {
        hand.say_exactly(&shut(&hand, window));
        hand.hear();
    }
    let mut turns = 0;
    let day = hand.now + Duration::from_secs(24 * 3600);
    while hand.now < day {
        turns += 1;
        hand.now = hand.flows.deadline().expect("it probes the window");
        hand.flows.expire(hand.now);
        hand.hear();
        // Shut, and alive.
        hand.say_exactly(&shut(&hand, 0));
        assert_eq!(hand.hear(), []);
    }
    assert!(turns < 5_000, "{turns} times in a day");
    assert_eq!(hand.events(), []);
    assert_eq!(hand.write(flow, b"more"), 0);
}

#[test]
fn a_guest_that_falls_silent_with_data_on_its_way_is_given_up() {
    let (mut hand, flow) = Hand::open();
    hand.wait(10 * GUEST_SILENCE);
    hand.hear();
    assert_eq!(hand.events(), [], "it owed nothing");
    hand.write(flow, b"hello");
    hand.hear();
    let start = hand.now;
    while hand.events().is_empty() {
        hand.now = hand.flows.deadline().expect("it will be given up");
        hand.flows.expire(hand.now);
        if hand.now - start < GUEST_SILENCE {
            hand.hear();
        }
    }
    assert!(hand.now - start >= GUEST_SILENCE);
    assert!(hand.now - start < 2 * GUEST_SILENCE);
    let heard = hand.hear();
    assert_eq!(heard.last().map(|heard| heard.flags & RST), Some(RST));
    assert_eq!(hand.flows.deadline(), None);
}

#[test]
fn a_fin_that_is_denied_three_times_is_sent_again() {
    let (mut hand, flow) = Hand::open();
    hand.flows.finish(flow, hand.now);
    let fin = hand.hear();
    assert_eq!(fin.len(), 1);
    assert_eq!(fin[0].flags & FIN, FIN);
    for _ in 0..10 {
        hand.say(ACK, &[]);
        hand.hear();
    }
    hand.now = hand.flows.deadline().expect("the FIN is still owed");
    hand.flows.expire(hand.now);
    let again = hand.hear();
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].flags & FIN, again[0].seq), (FIN, fin[0].seq));
    hand.ack = hand.ack.wrapping_add(1);
    hand.say(ACK | FIN, &[]);
    assert!(hand.events().contains(&FlowEvent::Closed { flow, broken: false }));
}

#[test]
fn a_fin_again_after_all_is_over_is_answered() {
    let (mut hand, flow) = Hand::open();
    hand.flows.finish(flow, hand.now);
    hand.hear();
    hand.ack = hand.ack.wrapping_add(1);
    hand.say(ACK | FIN, &[]);
    let last = hand.hear();
    assert_eq!(last.len(), 1);
    assert_eq!((last[0].flags, last[0].ack), (ACK, hand.seq));
    assert_eq!(
        hand.events(),
        [
            FlowEvent::Readable(flow),
            FlowEvent::Closed { flow, broken: false }
        ]
    );
    hand.say_at(ACK | FIN, hand.seq.wrapping_sub(1), &[]);
    let heard = hand.hear();
    assert_eq!((heard[0].flags, heard[0].seq), (RST, hand.ack));
}

#[test]
fn a_port_can_be_used_again_while_a_far_end_still_reads_what_it_said_before() {
    let (mut hand, flow) = Hand::open();
    hand.say(ACK | FIN, b"slowly");
    hand.flows.finish(flow, hand.now);
    hand.hear();
    hand.ack = hand.ack.wrapping_add(1);
    hand.say(ACK, &[]);
    hand.hear();
    let second = hand.knock();
    assert_ne!(second, flow);
    assert_eq!(hand.read(flow), b"slowly");
    assert!(hand.events().contains(&FlowEvent::Closed { flow, broken: false }));
    hand.flows.accept(second, hand.now);
    assert_eq!(hand.hear().len(), 1);
}

#[test]
fn a_driver_that_completes_checksums_finds_what_it_needs() {
    let offloads = Offloads {
        receives_without_checksum: true,
    };
    let mut hand = Hand::new();
    hand.flows = Flows::new(offloads, hand.now);
    let flow = hand.knock();
    hand.flows.accept(flow, hand.now);
    let mut packet = Vec::new();
    assert!(hand.flows.transmit(&mut packet, hand.now));
    // What a device does that is told where to start, and where to put the sum.
    let sum = packet[20..]
        .chunks(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum::<u32>();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    packet[36..38].copy_from_slice(&sum.to_be_bytes());
    let ip = Ipv4Packet::new_checked(&packet[..]).unwrap();
    let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
    assert!(tcp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()));
}

#[test]
fn our_answers_are_never_answers_to_resets() {
    let mut hand = Hand::new();
    for flags in [RST, RST | ACK] {
        assert_eq!(hand.say_at(flags, 5, b"bytes"), Received::Known);
    }
    assert_eq!(hand.hear(), []);
}

#[test]
fn a_stray_segment_is_answered_with_a_reset_that_fits() {
    let mut hand = Hand::new();
    hand.ack = 77;
    hand.say_at(ACK, 5, b"bytes");
    hand.say_at(SYN | ACK, 5, b"");
    hand.say_at(FIN, 5, b"bytes");
    let reset = |flags, seq, ack| Heard {
        to: hand.port,
        flags,
        seq,
        ack,
        window: 0,
        payload: Vec::new(),
    };
    let expected = [reset(RST, 77, 0), reset(RST, 77, 0), reset(RST | ACK, 0, 11)];
    assert_eq!(hand.hear(), expected);
}
