use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;
use crate::testing::{
    CountedInterrupt,
    driver::{DriverQueue, guest_memory, readable},
};

const RAM: usize = 1 << 20;
const SIZE: u16 = 16;
const BUFFER: u64 = 0x1_0000;

fn queue() -> (DriverQueue, DeviceQueue) {
    let driver = DriverQueue::new(&guest_memory(RAM), 0, SIZE);
    let device = driver.device();
    (driver, device)
}

#[test]
fn requests_go_round_the_ring_past_the_end_of_its_index() {
    let (mut driver, mut device) = queue();
    let mut chain = Chain::default();
    for round in 0..70_000u32 {
        let head = driver.offer(&[readable(BUFFER, 1)]);
        assert!(device.pop(&mut chain).unwrap());
        assert!(!device.pop(&mut Chain::default()).unwrap());
        device.push(chain.head(), round).unwrap();
        assert_eq!(driver.used(), Some((head, round)));
    }
}

#[test]
fn an_index_further_ahead_than_the_ring_is_long_breaks_the_queue() {
    for ahead in [SIZE + 1, 0x8000, u16::MAX] {
        let (driver, mut device) = queue();
        driver.set_avail_index(ahead);
        assert!(device.waiting().is_err());
        assert!(matches!(
            device.pop(&mut Chain::default()),
            Err(QueueError::Ring(_))
        ));
    }
    let (driver, device) = queue();
    driver.set_avail_index(SIZE);
    assert_eq!(device.waiting().unwrap(), SIZE);
}

#[test]
fn a_head_outside_the_table_cannot_be_answered() {
    for head in [SIZE, SIZE + 1, u16::MAX] {
        let (mut driver, mut device) = queue();
        let mut chain = Chain::default();
        driver.offer_head(head);
        assert!(device.pop(&mut chain).unwrap());
        assert_eq!((chain.readable_len(), chain.writable_len()), (0, 0));
        assert!(matches!(device.push(chain.head(), 0), Err(QueueError::Ring(_))));
        assert_eq!(driver.used(), None);
    }
}

#[test]
fn the_same_head_offered_twice_is_answered_twice() {
    let (mut driver, mut device) = queue();
    let head = driver.offer(&[readable(BUFFER, 1)]);
    driver.offer_head(head);
    let mut chain = Chain::default();
    for _ in 0..2 {
        assert!(device.pop(&mut chain).unwrap());
        device.push(chain.head(), 0).unwrap();
    }
    assert_eq!(
        [driver.used(), driver.used(), driver.used()],
        [Some((head, 0)), Some((head, 0)), None]
    );
}

#[test]
fn a_request_put_back_is_taken_again() {
    let (mut driver, mut device) = queue();
    driver.offer(&[readable(BUFFER, 1)]);
    let second = driver.offer(&[readable(BUFFER, 2)]);
    let mut chain = Chain::default();
    assert!(device.pop(&mut chain).unwrap());
    assert!(device.pop(&mut chain).unwrap());
    device.unpop();
    assert_eq!(device.waiting().unwrap(), 1);
    assert!(device.pop(&mut chain).unwrap());
    assert_eq!(chain.head(), second);
}

#[test]
fn the_driver_is_interrupted_when_it_asked_to_be() {
    let mut driver = DriverQueue::new(&guest_memory(RAM), 0, SIZE).with_event_idx();
    let mut device = driver.device();
    let mut chain = Chain::default();
    driver.set_used_event(2);
    for interrupts in [0, 0, 1, 1] {
        driver.offer(&[readable(BUFFER, 1)]);
        assert!(device.pop(&mut chain).unwrap());
        device.push(chain.head(), 0).unwrap();
        device.signal().unwrap();
        assert_eq!(driver.interrupt.count(), interrupts);
    }
}

#[test]
fn unmuting_tells_of_requests_that_came_in_meanwhile() {
    for event_idx in [false, true] {
        let mut driver = DriverQueue::new(&guest_memory(RAM), 0, SIZE);
        if event_idx {
            driver = driver.with_event_idx();
        }
        let mut device = driver.device();
        device.mute().unwrap();
        assert!(!device.unmute().unwrap());
        device.mute().unwrap();
        driver.offer(&[readable(BUFFER, 1)]);
        assert!(device.unmute().unwrap());
    }
}

#[test]
fn rings_outside_ram_make_no_queue() {
    let memory = guest_memory(RAM);
    let ram = RAM as u32;
    for (table, avail, used) in [(ram, 0x1000, 0x2000), (0, ram - 2, 0x2000), (0, 0x1000, ram - 4)] {
        let mut ring = Queue::new(SIZE).unwrap();
        ring.set_desc_table_address(Some(table), Some(0));
        ring.set_avail_ring_address(Some(avail), Some(0));
        ring.set_used_ring_address(Some(used), Some(0));
        ring.set_ready(true);
        let kick = EventFd::new(EFD_NONBLOCK).unwrap();
        let interrupt = Arc::<CountedInterrupt>::default();
        assert!(DeviceQueue::new(ring, Arc::clone(&memory), kick, interrupt).is_none());
    }
}

#[test]
fn answers_pushed_together_are_seen_together() {
    let (mut driver, mut device) = queue();
    device.push_together([(3, 30), (1, 10), (2, 20)]).unwrap();
    let seen = [driver.used(), driver.used(), driver.used(), driver.used()];
    assert_eq!(seen, [Some((3, 30)), Some((1, 10)), Some((2, 20)), None]);
    // One that cannot be answered keeps those before it from being seen.
    assert!(device.push_together([(4, 40), (SIZE, 50)]).is_err());
    assert_eq!(driver.used(), None);
}

#[test]
fn the_driver_is_interrupted_when_what_it_waits_for_is_anywhere_among_the_answers() {
    for (awaited, interrupts) in [(0, 1), (1, 1), (2, 1), (3, 0), (u16::MAX, 0)] {
        let driver = DriverQueue::new(&guest_memory(RAM), 0, SIZE).with_event_idx();
        let mut device = driver.device();
        driver.set_used_event(awaited);
        device.push_together([(0, 0), (1, 0), (2, 0)]).unwrap();
        device.signal().unwrap();
        assert_eq!(driver.interrupt.count(), interrupts, "waits for {awaited}");
        device.signal().unwrap();
        assert_eq!(driver.interrupt.count(), interrupts, "nothing new");
    }
}
