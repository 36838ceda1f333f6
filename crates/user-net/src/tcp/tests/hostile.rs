//! What a guest may send that wants us to fall over, or its flows to.

use egress_policy::link::DropReason;

use super::by_hand::{ACK, FIN, FIRST, Hand, PSH, RST, SYN, Said, URG};
use crate::{
    limits::BUFFER,
    tcp::{FlowEvent, Received},
};

static SEGMENT: [u8; 65_000] = [7; 65_000];

#[test]
fn more_than_the_buffer_before_anything_is_acknowledged_is_not_taken() {
    let (mut hand, flow) = Hand::open();
    for _ in 0..40 {
        hand.say(ACK, &SEGMENT);
    }
    let taken = hand.read(flow).len();
    assert!(taken <= BUFFER && taken > BUFFER - SEGMENT.len(), "{taken}");
    let heard = hand.hear();
    assert_eq!(
        heard.last().unwrap().ack,
        FIRST.wrapping_add(1).wrapping_add(u32::try_from(taken).unwrap())
    );
    assert_eq!(hand.read(flow).len(), 0);
}

#[test]
fn sequence_numbers_from_anywhere_add_nothing_and_break_nothing() {
    let (mut hand, flow) = Hand::open();
    hand.say(ACK, b"before");
    hand.hear();
    for shift in 0..32 {
        for off in [
            1_u32 << shift,
            (1 << shift) - 1,
            (1 << shift) + 1,
            (1_u32 << shift).wrapping_neg(),
        ] {
            if (1..=BUFFER as u32).contains(&off) || off == 0 {
                continue;
            }
            for flags in [ACK, ACK | PSH, ACK | FIN, RST, RST | ACK, SYN | ACK, ACK | URG] {
                hand.say_at(flags, hand.seq.wrapping_add(off), b"x");
                hand.say_at(flags, hand.seq.wrapping_add(off), b"");
            }
        }
    }
    hand.say(ACK, b", after");
    assert_eq!(hand.read(flow), b"before, after");
    assert!(!hand.flows.guest_finished(flow));
}

#[test]
fn sequence_numbers_from_anywhere_after_the_fin_break_nothing() {
    let (mut hand, flow) = Hand::open();
    // Up to the last byte of the window that was told, so that the FIN lies outside of it.
    hand.say(ACK, &[]);
    let all = vec![1; 65_535];
    hand.say(ACK | FIN, &all[..65_000]);
    for off in [
        0,
        1,
        2,
        1 << 29,
        1 << 30,
        (1 << 31) - 2,
        (1 << 31) - 1,
        1 << 31,
        (1 << 31) + 1,
        u32::MAX,
    ] {
        for flags in [ACK, ACK | FIN, RST, SYN | ACK] {
            if flags != RST || off > 1 << 20 {
                hand.say_at(flags, hand.seq.wrapping_add(off), b"");
                hand.say_at(flags, hand.seq.wrapping_add(off), b"more");
            }
        }
    }
    hand.hear();
    assert_eq!(hand.read(flow).len(), 65_000);
    assert!(hand.flows.guest_finished(flow));
}

#[test]
fn data_after_the_fin_is_not_delivered() {
    let (mut hand, flow) = Hand::open();
    hand.say(ACK | FIN, b"the end");
    hand.say(ACK, b" or not");
    hand.say_at(ACK, hand.seq.wrapping_sub(1), b" or not");
    assert_eq!(hand.read(flow), b"the end");
    hand.hear();
    hand.say(ACK, b" or not");
    assert_eq!(hand.read(flow), b"");
    assert!(hand.flows.guest_finished(flow));
}

#[test]
fn overlapping_segments_are_delivered_once() {
    let (mut hand, flow) = Hand::open();
    let start = hand.seq;
    hand.say_at(ACK, start.wrapping_add(3), b"defg");
    hand.say_at(ACK, start.wrapping_sub(2), b"..abc");
    hand.say_at(ACK, start, b"abcde");
    hand.say_at(ACK, start.wrapping_add(5), b"fghi");
    assert_eq!(hand.read(flow), b"abcdefghi");
}

#[test]
fn whatever_fits_the_window_that_was_told_arrives_and_the_fin_is_in_its_place() {
    let (mut hand, flow) = Hand::open();
    let start = hand.seq;
    // After these the window ends where the buffer ends; after one more byte, what is told of it rounds down.
    hand.say(ACK, &[1; 32]);
    let told = hand.hear().pop().unwrap();
    let edge = told.ack.wrapping_add(u32::from(told.window) << 5);
    hand.say(ACK, &[2]);
    hand.hear();
    loop {
        let left = usize::try_from(edge.wrapping_sub(hand.seq)).unwrap();
        if left <= 60_000 {
            hand.say(ACK | FIN, &SEGMENT[..left]);
            break;
        }
        hand.say(ACK, &SEGMENT[..60_000]);
        hand.hear();
    }
    assert_eq!(
        hand.read(flow).len(),
        usize::try_from(edge.wrapping_sub(start)).unwrap()
    );
    assert!(hand.flows.guest_finished(flow));
}

#[test]
fn segments_in_reverse_are_delivered_in_order() {
    let (mut hand, flow) = Hand::open();
    let text: Vec<u8> = (0..200).collect();
    for (n, piece) in text.chunks(10).enumerate().rev() {
        hand.say_at(ACK, hand.seq.wrapping_add(n as u32 * 10), piece);
    }
    assert_eq!(hand.read(flow), text);
}

#[test]
fn more_holes_than_are_kept_cost_nothing_but_the_data() {
    let (mut hand, flow) = Hand::open();
    for n in 1..10_000_u32 {
        hand.say_at(ACK, hand.seq.wrapping_add(n * 2), b"x");
    }
    assert_eq!(hand.read(flow), b"");
    assert!(hand.hear().len() < 20, "every one was answered");
    hand.say(ACK, b"ab");
    assert_eq!(hand.read(flow)[..2], *b"ab");
}

#[test]
fn a_mebibyte_of_single_bytes_arrives() {
    let (mut hand, flow) = Hand::open();
    let mut taken = 0;
    for n in 0..BUFFER {
        hand.say(ACK, &[n as u8]);
        if n % 1000 == 0 {
            taken += hand.read(flow).len();
            assert_eq!(hand.hear().len(), 1);
        }
    }
    assert_eq!(taken + hand.read(flow).len(), BUFFER);
    assert_eq!(hand.hear().len(), 1);
}

#[test]
fn a_reset_with_a_bad_sequence_number_does_not_end_a_flow() {
    let (mut hand, flow) = Hand::open();
    for off in [-1_i32, -1000, 3 << 20, i32::MIN, i32::MAX] {
        hand.say_at(RST, hand.seq.wrapping_add_signed(off), &[]);
        hand.say_at(RST | ACK, hand.seq.wrapping_add_signed(off), b"bytes");
    }
    assert_eq!(hand.hear(), []);
    // In the window: whoever meant it hears where to say it.
    hand.say_at(RST, hand.seq.wrapping_add(1000), &[]);
    let heard = hand.hear();
    assert_eq!((heard.len(), heard[0].flags, heard[0].ack), (1, ACK, hand.seq));
    assert_eq!(hand.events(), []);
    hand.say_at(RST, hand.seq, &[]);
    assert_eq!(hand.events(), [FlowEvent::Closed { flow, broken: true }]);
    assert_eq!(hand.hear(), []);
}

#[test]
fn a_syn_in_an_open_flow_is_told_where_the_flow_is() {
    let (mut hand, flow) = Hand::open();
    hand.say(ACK, b"hello");
    hand.hear();
    let again = Said {
        port: hand.port,
        flags: SYN,
        seq: 12_345,
        ack: 0,
        window: 1000,
        payload: &[],
    };
    for _ in 0..100 {
        assert_eq!(hand.say_exactly(&again), Received::Known);
    }
    let heard = hand.hear();
    assert_eq!(heard.len(), 1, "one a second is enough");
    assert_eq!(
        (heard[0].flags, heard[0].seq, heard[0].ack),
        (ACK, hand.ack, hand.seq)
    );
    // A stack that knows nothing of it answers so, and then tries again.
    hand.say_at(RST, heard[0].ack, &[]);
    assert!(hand.events().contains(&FlowEvent::Closed { flow, broken: true }));
    assert!(matches!(hand.say_exactly(&again), Received::Opening(_)));
}

#[test]
fn flags_that_make_no_sense_are_malformed_or_without_effect() {
    let (mut hand, flow) = Hand::open();
    for flags in 0..=0x3f {
        let makes_sense = flags & (SYN | FIN | RST);
        if [0, SYN].contains(&makes_sense) || makes_sense.count_ones() > 1 {
            let received = hand.say_at(flags, hand.seq, &[]);
            let is_malformed = received == Received::Refused(DropReason::Malformed);
            assert_eq!(is_malformed, makes_sense.count_ones() > 1, "{flags:#x}");
        }
    }
    assert_eq!(hand.events(), []);
    hand.say(ACK | URG | PSH, b"urgent");
    assert_eq!(hand.read(flow), b"urgent");
}

#[test]
fn what_is_no_segment_is_malformed() {
    let mut hand = Hand::new();
    let good = Said {
        port: 1,
        flags: SYN,
        seq: 0,
        ack: 0,
        window: 0,
        payload: &[],
    };
    let mut no_port = good;
    no_port.port = 0;
    assert_eq!(
        hand.say_exactly(&no_port),
        Received::Refused(DropReason::Malformed)
    );
    let good = good.packet();
    for length in 0..good.len() {
        let received = hand.flows.receive(&good[..length], hand.now);
        assert_eq!(received, Received::Refused(DropReason::Malformed), "{length}");
    }
    let mut more_options_than_header = good.clone();
    more_options_than_header[20 + 21] = 40;
    assert_eq!(
        hand.flows.receive(&more_options_than_header, hand.now),
        Received::Refused(DropReason::Malformed)
    );
    let mut fragment = good;
    fragment[6] = 0x20;
    assert_eq!(
        hand.flows.receive(&fragment, hand.now),
        Received::Refused(DropReason::Malformed)
    );
    assert_eq!(hand.hear(), []);
}

#[test]
fn acknowledgements_of_what_was_never_sent_break_nothing() {
    let (mut hand, flow) = Hand::open();
    hand.write(flow, b"hello");
    assert_eq!(hand.hear().len(), 1);
    let right = hand.ack;
    for off in [6, 1000, 1 << 20, 1 << 30, i32::MAX, -1, -1000, i32::MIN] {
        hand.ack = right.wrapping_add_signed(off);
        hand.say(ACK, &[]);
        hand.say(ACK, &[]);
    }
    hand.ack = right.wrapping_add(5);
    hand.say(ACK, &[]);
    hand.write(flow, b"world");
    assert!(hand.hear().iter().any(|heard| heard.payload == b"world"));
}

#[test]
fn acknowledging_what_still_waits_to_be_sent_breaks_nothing() {
    let (mut hand, flow) = Hand::open();
    hand.write(flow, &SEGMENT);
    hand.ack = hand.ack.wrapping_add(65_000);
    hand.say(ACK, &[]);
    hand.flows.finish(flow, hand.now);
    hand.ack = hand.ack.wrapping_add(1);
    hand.say(ACK, &[]);
    hand.hear();
    hand.say(ACK | FIN, &[]);
    hand.hear();
    assert!(hand.events().contains(&FlowEvent::Closed { flow, broken: false }));
}
