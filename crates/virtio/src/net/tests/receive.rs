use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::{
    super::{
        frame::{HEADER_LEN, LARGEST_TO_GUEST},
        rx::MAX_SEGMENTS,
    },
    CHECKSUMS, FEATURES, FarEnd, MERGEABLE, Machine,
    machine::RX_SIZE,
    pattern,
};
use crate::testing::driver::{readable, writable};

const LARGEST: usize = LARGEST_TO_GUEST - HEADER_LEN;

fn idle(features: u64) -> Machine {
    Machine::idle(FarEnd::new(), features)
}

#[test]
fn the_header_says_that_checksums_are_right_when_the_driver_does_without() {
    for (features, flags) in [(CHECKSUMS, 2), (CHECKSUMS | MERGEABLE, 2), (0, 0), (MERGEABLE, 0)] {
        let mut machine = idle(features);
        machine.offer(&[1600]);
        machine.far_end.send(pattern(100));
        machine.turn().unwrap();
        let got = machine.received().unwrap();
        assert_eq!(got.header, [flags, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        assert_eq!(got.frame, pattern(100));
    }
}

#[test]
fn a_large_frame_is_spread_over_as_many_buffers_as_it_needs() {
    for (len, buffers) in [(1536, 43), (4096, 17), (LARGEST_TO_GUEST as u32, 1), (65_000, 2)] {
        let mut machine = idle(FEATURES);
        machine.offer_many(buffers + 1, len);
        machine.far_end.send(pattern(LARGEST));
        machine.far_end.send(pattern(60));
        machine.turn().unwrap();
        let got = machine.received().unwrap();
        assert!(got.frame == pattern(LARGEST));
        assert_eq!(got.buffers, buffers);
        assert_eq!(machine.received().unwrap().frame, pattern(60));
    }
}

#[test]
fn without_merging_a_large_frame_goes_into_one_chain_as_linux_offers_it() {
    let mut machine = idle(0);
    let pages = [4096; 16];
    let lens = [&[HEADER_LEN as u32, 4080], pages.as_slice()].concat();
    machine.offer(&lens);
    machine.far_end.send(pattern(LARGEST));
    machine.turn().unwrap();
    let got = machine.received().unwrap();
    assert!(got.frame == pattern(LARGEST));
    assert_eq!(got.buffers, 1);
}

#[test]
fn without_merging_a_frame_too_large_for_its_buffer_is_dropped_and_the_buffer_kept() {
    let mut machine = idle(0);
    machine.offer_many(2, 1518 + HEADER_LEN as u32);
    for len in [1519, 1518, LARGEST, 60] {
        machine.far_end.send(pattern(len));
    }
    machine.turn().unwrap();
    assert_eq!(machine.received().unwrap().frame, pattern(1518));
    assert_eq!(machine.received().unwrap().frame, pattern(60));
    assert_eq!((machine.received(), machine.far_end.waiting()), (None, 0));
}

#[test]
fn a_frame_larger_than_all_a_queue_can_hold_is_dropped() {
    let mut machine = idle(FEATURES);
    machine.offer_many(RX_SIZE.into(), 100);
    machine
        .far_end
        .send(pattern(RX_SIZE as usize * 100 - HEADER_LEN + 1));
    machine.far_end.send(pattern(RX_SIZE as usize * 100 - HEADER_LEN));
    machine.turn().unwrap();
    let got = machine.received().unwrap();
    assert_eq!(got.frame.len(), RX_SIZE as usize * 100 - HEADER_LEN);
    assert_eq!((got.buffers, machine.received()), (RX_SIZE.into(), None));
}

#[test]
fn frames_wait_for_buffers_and_only_one_of_them_here() {
    let mut machine = idle(FEATURES);
    for len in [5000, 50, 60] {
        machine.far_end.send(pattern(len));
    }
    machine.turn().unwrap();
    machine.turn().unwrap();
    assert_eq!((machine.received(), machine.far_end.waiting()), (None, 2));
    // Not enough for the first, and so for none behind it.
    machine.offer_many(1, 4096);
    machine.turn().unwrap();
    assert_eq!((machine.received(), machine.far_end.waiting()), (None, 2));
    machine.offer_many(2, 4096);
    machine.turn().unwrap();
    for len in [5000, 50] {
        assert_eq!(machine.received().unwrap().frame, pattern(len));
    }
    assert_eq!(machine.received(), None);
    machine.offer_many(1, 4096);
    machine.turn().unwrap();
    assert_eq!(machine.received().unwrap().frame, pattern(60));
}

#[test]
fn a_guest_without_buffers_can_still_send_and_hears_once_it_has_some() {
    let mut machine = Machine::new(FEATURES);
    machine.far_end.send(pattern(100));
    machine.transmit(&pattern(70));
    assert_eq!(machine.far_end.wait_received(1), [pattern(70)]);
    machine.offer_many(1, 1600);
    assert_eq!(machine.receive().frame, pattern(100));
}

#[test]
fn the_driver_is_asked_to_ring_only_while_a_frame_waits() {
    let mut machine = idle(FEATURES);
    machine.offer_many(2, 1600);
    machine.turn().unwrap();
    assert!(!machine.rx.must_kick());
    for _ in 0..3 {
        machine.far_end.send(pattern(100));
    }
    machine.turn().unwrap();
    assert!(machine.rx.must_kick());
    machine.offer_many(1, 1600);
    machine.turn().unwrap();
    assert!(!machine.rx.must_kick());
}

#[test]
fn frames_delivered_together_interrupt_once() {
    let mut machine = idle(FEATURES);
    machine.offer_many(20, 1600);
    for _ in 0..10 {
        machine.far_end.send(pattern(1000));
    }
    machine.turn().unwrap();
    assert_eq!(machine.rx.interrupt.count(), 1);
    machine.turn().unwrap();
    assert_eq!(machine.rx.interrupt.count(), 1);
}

#[test]
fn a_turn_is_bounded_and_rings_for_the_rest() {
    let mut machine = idle(FEATURES);
    machine.offer_many(RX_SIZE.into(), 200);
    for _ in 0..100 {
        machine.far_end.send(pattern(100));
    }
    assert!(machine.rx.kicked());
    machine.turn().unwrap();
    assert_eq!(machine.far_end.waiting(), 36);
    assert!(machine.rx.kicked());
    machine.turn().unwrap();
    assert_eq!(machine.far_end.waiting(), 0);
    assert!(!machine.rx.kicked());
}

#[test]
fn what_is_no_buffer_goes_back_empty() {
    let mut machine = idle(FEATURES);
    let at = 0x9_0000;
    let bad = [
        machine.rx.offer(&[writable(at, HEADER_LEN as u32 - 1)]),
        machine.rx.offer(&[readable(at, 4096)]),
        machine.rx.offer(&[readable(at, 4), writable(at, 4096)]),
        machine.rx.offer(&[writable(at, 100); MAX_SEGMENTS + 1]),
        machine.rx.offer(&[writable(at, 0)]),
    ];
    machine.far_end.send(pattern(100));
    machine.turn().unwrap();
    for head in bad {
        assert_eq!(machine.rx.used(), Some((head, 0)));
    }
    assert_eq!(machine.rx.interrupt.count(), 1);
    let good = machine.rx.offer(&[writable(at, 4096)]);
    machine.turn().unwrap();
    assert_eq!(machine.rx.used(), Some((good, 112)));
}

#[test]
fn a_buffer_of_as_many_pieces_as_we_look_at_is_used() {
    let mut machine = idle(FEATURES);
    machine.offer(&[20; MAX_SEGMENTS]);
    machine.far_end.send(pattern(20 * MAX_SEGMENTS - HEADER_LEN));
    machine.turn().unwrap();
    let got = machine.received().unwrap();
    assert_eq!(
        (got.frame.len(), got.buffers),
        (20 * MAX_SEGMENTS - HEADER_LEN, 1)
    );
}

#[test]
fn nothing_is_written_behind_a_frame() {
    let mut machine = idle(FEATURES);
    let at = 0x9_0000;
    machine
        .memory
        .write_slice(&[0xee; 300], GuestAddress(at))
        .unwrap();
    machine.rx.offer(&[writable(at, 300)]);
    machine.far_end.send(pattern(100));
    machine.turn().unwrap();
    assert_eq!(machine.rx.used(), Some((0, 112)));
    assert_eq!(machine.bytes(at + 112, 188), [0xee; 188]);
}

proptest! {
    #[test]
    fn frames_arrive_whole_and_in_order_in_whatever_buffers(
        buffers in prop::collection::vec(
            prop::collection::vec(prop_oneof![1..64u32, 1..5000u32], 1..4),
            1..(RX_SIZE as usize / 4),
        ),
        lens in prop::collection::vec(prop_oneof![14..100usize, 14..20_000usize], 1..10),
    ) {
        let mut machine = idle(FEATURES);
        let mut got = Vec::new();
        for len in &lens {
            machine.far_end.send(pattern(*len));
        }
        for buffer in buffers {
            // With room for a header at least.
            machine.offer(&[&[HEADER_LEN as u32], buffer.as_slice()].concat());
            machine.turn().unwrap();
            got.extend(machine.received().map(|got| got.frame));
        }
        machine.turn().unwrap();
        while let Some(next) = machine.received() {
            got.push(next.frame);
        }
        let arrived = got.len();
        prop_assert!(got.into_iter().eq(lens.iter().take(arrived).map(|len| pattern(*len))));
        let held = usize::from(arrived < lens.len());
        prop_assert_eq!(machine.far_end.waiting(), lens.len() - arrived - held);
    }
}
