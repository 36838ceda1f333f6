mod exchange;
mod far_end;
mod machine;
mod receive;
mod transmit;

use proptest::prelude::*;
use user_net::Offloads;

use self::{far_end::FarEnd, machine::Machine};
use super::{frame::HEADER_LEN, *};
use crate::testing::{
    CountedInterrupt, KeptFailures,
    driver::{DriverQueue, guest_memory, readable},
    hostile,
};

const MERGEABLE: u64 = 1 << VIRTIO_NET_F_MRG_RXBUF;
const CHECKSUMS: u64 = 1 << VIRTIO_NET_F_GUEST_CSUM;

/// Bytes of which no two pieces look alike.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7 % 251) as u8).collect()
}

#[test]
fn the_configuration_is_address_link_queues_and_mtu() {
    let far_end = FarEnd::new();
    let mut card = Net::new(far_end.network());
    let expected = [0x02, 0xc0, 0xff, 0xe4, 0, 2, 1, 0, 1, 0, 0xf0, 0xff, 0, 0];
    card.write_config(0, &[0xff; 12]);
    let mut config = [0xff; 14];
    card.read_config(0, &mut config);
    assert_eq!(config, expected);
    for (offset, byte) in expected.into_iter().enumerate() {
        let mut read = [0xff];
        card.read_config(offset, &mut read);
        assert_eq!(read, [byte]);
    }
}

#[test]
fn nothing_is_offered_that_needs_a_control_queue_or_large_receive_frames() {
    let card = Net::new(FarEnd::new().network());
    let offered: Vec<u32> = (0..64).filter(|bit| card.features() & (1 << bit) != 0).collect();
    assert_eq!(offered, [0, 1, 3, 5, 11, 12, 15, 16]);
    assert_eq!((card.kind().virtio_id(), card.queue_sizes().len()), (1, 2));
}

#[test]
fn a_driver_with_one_queue_is_told_so() {
    let memory = guest_memory(0x1_0000);
    let activation = Activation {
        memory: Arc::clone(&memory),
        features: 0,
        queues: vec![DriverQueue::new(&memory, 0, 8).device()],
        config_changed: Arc::new(CountedInterrupt::default()),
        failures: Arc::new(KeptFailures::default()),
    };
    let refused = Net::new(FarEnd::new().network()).activate(activation);
    assert!(matches!(
        refused,
        Err(ActivateError::MissingQueues {
            found: 1,
            expected: 2
        })
    ));
}

#[test]
fn frames_go_both_ways() {
    let mut machine = Machine::new(FEATURES);
    machine.offer_many(8, 4096);
    machine.transmit(&pattern(60));
    machine.transmit(&pattern(1514));
    assert_eq!(machine.far_end.wait_received(2), [pattern(60), pattern(1514)]);
    machine.far_end.send(pattern(100));
    machine.far_end.send(pattern(1000));
    assert_eq!(machine.receive().frame, pattern(100));
    assert_eq!(machine.receive().frame, pattern(1000));
}

#[test]
fn a_network_is_used_again_after_a_reset_with_what_the_next_driver_does_without() {
    let far_end = FarEnd::new();
    let mut card = Net::new(far_end.network());
    for features in [FEATURES, MERGEABLE, CHECKSUMS] {
        let mut machine = Machine::with_card(card, far_end.clone(), features);
        machine.offer_many(2, 1600);
        machine.transmit(&pattern(100));
        far_end.send(pattern(50));
        assert_eq!(machine.receive().frame, pattern(50));
        card = machine.into_card();
        card.reset();
    }
    let without = |receives_without_checksum| Offloads {
        receives_without_checksum,
    };
    assert_eq!(far_end.connects(), [without(true), without(false), without(true)]);
    assert_eq!(far_end.wait_received(3).len(), 3);
}

fn break_ring(queue: &mut DriverQueue) {
    queue.offer_head(u16::MAX);
    queue.offer(&[readable(u64::MAX, 4)]);
    queue.kick();
}

#[test]
fn a_driver_that_breaks_a_ring_is_served_no_more() {
    for at_tx in [false, true] {
        let mut machine = Machine::idle(FarEnd::new(), FEATURES);
        // So that the receive queue is looked at.
        machine.far_end.send(pattern(100));
        break_ring(if at_tx { &mut machine.tx } else { &mut machine.rx });
        assert!(machine.turn().is_err());
    }
}

#[test]
fn a_card_outlives_a_driver_that_breaks_a_ring() {
    let mut machine = Machine::new(FEATURES);
    break_ring(&mut machine.tx);
    let far_end = machine.far_end.clone();
    let mut card = machine.into_card();
    card.reset();
    let mut machine = Machine::with_card(card, far_end, FEATURES);
    machine.transmit(&pattern(200));
    assert_eq!(machine.far_end.wait_received(1), [pattern(200)]);
}

/// Well-formed, where a hostile ring leaves room.
const FREE: u64 = 0x8_0000;

fn worker(rx: &DriverQueue, tx: &DriverQueue, far_end: &FarEnd, features: u64) -> NetWorker {
    let cable = Cable(Arc::new(Mutex::new(far_end.network())));
    NetWorker::new(cable, rx.device(), tx.device(), features)
}

proptest! {
    #[test]
    fn no_transmit_ring_breaks_the_device(ring in hostile::ring()) {
        let tx = ring.lay_out(&guest_memory(hostile::RAM));
        let rx = DriverQueue::new(&tx.memory, FREE, 8);
        let far_end = FarEnd::new();
        let mut worker = worker(&rx, &tx, &far_end, FEATURES);
        hostile::exhaust(&tx, || worker.turn().is_ok());
        for frame in far_end.received() {
            prop_assert!(frame.len() >= frame::ETHERNET_LEN);
            prop_assert!(frame.len() <= frame::LARGEST_FROM_GUEST - HEADER_LEN);
        }
    }

    #[test]
    fn no_receive_ring_breaks_the_device(
        ring in hostile::ring(),
        features in prop_oneof![Just(0), Just(MERGEABLE), Just(FEATURES)],
        frames in prop::collection::vec(prop_oneof![14..64usize, 14..65_535usize], 1..16),
    ) {
        let rx = ring.lay_out(&guest_memory(hostile::RAM));
        let tx = DriverQueue::new(&rx.memory, FREE, 8);
        let far_end = FarEnd::new();
        for len in frames {
            far_end.send(pattern(len));
        }
        let mut worker = worker(&rx, &tx, &far_end, features);
        hostile::exhaust(&rx, || worker.turn().is_ok());
    }
}
