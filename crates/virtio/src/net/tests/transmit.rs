use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::{
    super::frame::{ETHERNET_LEN, HEADER_LEN, LARGEST_FROM_GUEST},
    CHECKSUMS, FEATURES, FarEnd, Machine, pattern,
};
use crate::testing::driver::{INDIRECT, NEXT, Piece, describe_at, readable, writable};

const AT: u64 = 0x8_0000;
const TABLE: u64 = 0x1_0000;

fn idle() -> Machine {
    Machine::idle(FarEnd::new(), FEATURES)
}

/// Writes an empty header and a frame of `len` bytes behind it, returns the frame.
fn lay(machine: &Machine, len: usize) -> Vec<u8> {
    let frame = pattern(len);
    let packet = [&[0; HEADER_LEN], frame.as_slice()].concat();
    machine.memory.write_slice(&packet, GuestAddress(AT)).unwrap();
    frame
}

/// Sends these chains in one turn each, returns what arrived.
fn send(machine: &mut Machine, pieces: &[Piece]) -> Vec<Vec<u8>> {
    let before = machine.far_end.received().len();
    let head = machine.tx.offer(pieces);
    machine.turn().unwrap();
    assert_eq!(machine.tx.used(), Some((head, 0)));
    machine.far_end.received().split_off(before)
}

#[test]
fn the_largest_frame_arrives_and_a_longer_one_is_dropped() {
    let mut machine = idle();
    let largest = LARGEST_FROM_GUEST as u32;
    let frame = lay(&machine, LARGEST_FROM_GUEST - HEADER_LEN + 1);
    assert!(send(&mut machine, &[readable(AT, largest + 1)]).is_empty());
    assert!(send(&mut machine, &[readable(AT, largest), readable(0, 0x10_0000)]).is_empty());
    let sent = send(&mut machine, &[readable(AT, largest)]);
    assert_eq!(sent, [&frame[..frame.len() - 1]]);
}

#[test]
fn chains_too_short_for_a_frame_are_answered_and_the_next_one_is_served() {
    let mut machine = idle();
    let frame = lay(&machine, ETHERNET_LEN);
    for len in 0..(HEADER_LEN + ETHERNET_LEN) as u32 {
        assert!(send(&mut machine, &[readable(AT, len)]).is_empty());
    }
    assert!(send(&mut machine, &[writable(AT, 100)]).is_empty());
    let whole = readable(AT, (HEADER_LEN + ETHERNET_LEN) as u32);
    assert_eq!(send(&mut machine, &[whole]), [frame]);
}

#[test]
fn only_segmentation_that_was_offered_is_taken() {
    let mut machine = idle();
    let frame = lay(&machine, 60);
    for kind in 0..=u8::MAX {
        machine.memory.write_obj(kind, GuestAddress(AT + 1)).unwrap();
        let expected = if [0, 1, 4].contains(&kind) {
            vec![frame.clone()]
        } else {
            vec![]
        };
        assert_eq!(send(&mut machine, &[readable(AT, 72)]), expected, "kind {kind}");
    }
}

#[test]
fn what_else_a_header_says_changes_nothing() {
    let mut machine = idle();
    let frame = lay(&machine, 60);
    for byte in [1, 2, 0x7f, 0xff] {
        let mut header = [byte; HEADER_LEN];
        header[1] = 1;
        machine.memory.write_slice(&header, GuestAddress(AT)).unwrap();
        assert_eq!(send(&mut machine, &[readable(AT, 72)]), [frame.as_slice()]);
    }
}

#[test]
fn a_buffer_to_write_to_is_left_alone() {
    let mut machine = idle();
    let frame = lay(&machine, 60);
    let unused = AT + 0x1_0000;
    machine
        .memory
        .write_slice(&[0xee; 64], GuestAddress(unused))
        .unwrap();
    let sent = send(&mut machine, &[readable(AT, 72), writable(unused, 64)]);
    assert_eq!(sent, [frame]);
    assert_eq!(machine.bytes(unused, 64), [0xee; 64]);
}

/// An indirect table of so many descriptors for so many bytes each.
fn indirect(machine: &Machine, count: u16, each: u32) -> Piece {
    for index in 0..count {
        let more = if index + 1 < count { NEXT } else { 0 };
        let piece = readable(AT + u64::from(index) * u64::from(each), each);
        describe_at(
            &machine.memory,
            TABLE + u64::from(index) * 16,
            piece,
            more,
            index + 1,
        );
    }
    Piece {
        address: TABLE,
        len: u32::from(count) * 16,
        flags: INDIRECT,
    }
}

#[test]
fn a_frame_behind_an_indirect_table_arrives() {
    let mut machine = idle();
    let frame = lay(&machine, 1024 * 64 - HEADER_LEN);
    let piece = indirect(&machine, 1024, 64);
    assert_eq!(send(&mut machine, &[piece]), [frame]);
}

#[test]
fn a_chain_of_more_pieces_than_the_kernel_takes_breaks_the_ring() {
    let mut machine = idle();
    let piece = indirect(&machine, 1025, 1);
    machine.tx.offer(&[piece]);
    assert!(machine.turn().is_err());
}

#[test]
fn a_turn_is_bounded_and_rings_for_the_rest() {
    let mut machine = idle();
    for index in 0..40 {
        machine.queue_frame(&[0; HEADER_LEN], &pattern(14 + index));
    }
    let mut turns = 0;
    machine.tx.kick();
    while machine.tx.kicked() {
        let before = machine.far_end.received().len();
        machine.turn().unwrap();
        turns += 1;
        assert!(machine.far_end.received().len() - before <= 16);
        assert_eq!(machine.tx.interrupt.count(), turns);
    }
    assert_eq!(machine.far_end.received().len(), 40);
}

#[test]
fn frames_queued_together_arrive_in_order() {
    let mut machine = Machine::new(CHECKSUMS);
    let mut sent = Vec::new();
    for len in 14..64 {
        machine.queue_frame(&[0; HEADER_LEN], &pattern(len));
        sent.push(pattern(len));
    }
    machine.tx.kick();
    assert_eq!(machine.far_end.wait_received(sent.len()), sent);
}

proptest! {
    #[test]
    fn a_frame_arrives_whole_in_whatever_pieces_it_is_sent(
        len in 14..5000usize,
        cuts in prop::collection::vec(0..5012u32, 0..20),
    ) {
        let mut machine = idle();
        let frame = lay(&machine, len);
        let end = (HEADER_LEN + len) as u32;
        let mut cuts: Vec<u32> = cuts.into_iter().map(|cut| cut % end).chain([0, end]).collect();
        cuts.sort_unstable();
        let pieces: Vec<Piece> = cuts
            .windows(2)
            .map(|cut| readable(AT + u64::from(cut[0]), cut[1] - cut[0]))
            .collect();
        prop_assert_eq!(send(&mut machine, &pieces), [frame]);
    }
}
