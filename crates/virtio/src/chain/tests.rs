use std::sync::Arc;

use proptest::prelude::*;
use vm_memory::Bytes;

use super::*;
use crate::{
    DeviceQueue, QueueError,
    testing::driver::{
        DriverQueue, INDIRECT, NEXT, Piece, WRITE, describe_at, guest_memory, readable, writable,
    },
};

const RAM: usize = 16 << 20;
const SIZE: u16 = 16;
const BUFFER: u64 = 0x1_0000;
const TABLE: u64 = 0x20_0000;

fn queue() -> (DriverQueue, DeviceQueue) {
    let driver = DriverQueue::new(&guest_memory(RAM), 0, SIZE);
    let device = driver.device();
    (driver, device)
}

fn pop(device: &mut DeviceQueue) -> Result<Chain, QueueError> {
    let mut chain = Chain::default();
    assert!(device.pop(&mut chain)?);
    Ok(chain)
}

fn popped(pieces: &[Piece]) -> Result<Chain, QueueError> {
    let (mut driver, mut device) = queue();
    driver.offer(pieces);
    pop(&mut device)
}

fn indirect(bytes: u32) -> Piece {
    Piece {
        address: TABLE,
        len: bytes,
        flags: INDIRECT,
    }
}

#[test]
fn buffers_come_out_in_order_and_by_direction() {
    let chain = popped(&[
        readable(BUFFER, 3),
        readable(BUFFER + 8, 5),
        writable(BUFFER + 16, 7),
    ])
    .unwrap();
    assert_eq!((chain.readable_len(), chain.writable_len()), (8, 7));
    assert_eq!(chain.readable().len(), 2);
    assert_eq!(chain.head(), 0);
}

#[test]
fn descriptors_that_loop_end_at_the_size_of_the_queue() {
    for next in [0, 1] {
        let (mut driver, mut device) = queue();
        driver.describe(0, readable(BUFFER, 1), NEXT, next);
        driver.describe(1, readable(BUFFER, 1), NEXT, 0);
        driver.offer_head(0);
        assert_eq!(pop(&mut device).unwrap().readable().len(), usize::from(SIZE));
    }
}

#[test]
fn buffers_outside_ram_break_the_chain() {
    let ram = RAM as u64;
    let outside = [
        (ram, 1),
        (ram - 1, 2),
        (0, RAM as u32 + 1),
        (u64::MAX, 1),
        (u64::MAX - 1, 1 << 31),
        (1 << 63, 4096),
    ];
    for (address, len) in outside {
        for piece in [readable(address, len), writable(address, len)] {
            let broken = popped(&[readable(BUFFER, 1), piece]);
            assert!(
                matches!(broken, Err(QueueError::Chain(ChainError::Memory(_)))),
                "{piece:?}"
            );
        }
    }
    assert!(popped(&[readable(ram - 1, 1)]).is_ok());
}

#[test]
fn a_readable_buffer_behind_a_writable_one_breaks_the_chain() {
    let broken = popped(&[writable(BUFFER, 1), readable(BUFFER, 1)]);
    assert!(matches!(
        broken,
        Err(QueueError::Chain(ChainError::ReadableAfterWritable))
    ));
}

#[test]
fn empty_buffers_count_for_nothing() {
    let chain = popped(&[writable(BUFFER, 0), readable(u64::MAX, 0), readable(BUFFER, 1)]).unwrap();
    assert_eq!((chain.readable().len(), chain.writable().len()), (1, 0));
}

#[test]
fn buffers_may_overlap_each_other_and_the_queue() {
    let chain = popped(&[readable(0, 512), readable(256, 512), writable(0, 1024)]).unwrap();
    assert_eq!((chain.readable_len(), chain.writable_len()), (1024, 1024));
}

#[test]
fn a_link_out_of_the_table_ends_the_chain() {
    let (mut driver, mut device) = queue();
    driver.describe(0, readable(BUFFER, 1), NEXT, SIZE);
    driver.offer_head(0);
    assert_eq!(pop(&mut device).unwrap().readable().len(), 1);
}

#[test]
fn a_chain_never_holds_more_bytes_than_the_used_ring_can_report() {
    let memory = guest_memory(RAM);
    let mut driver = DriverQueue::new(&memory, 0, 512);
    let mut device = driver.device();
    driver.describe(0, readable(0, RAM as u32), NEXT, 0);
    driver.offer_head(0);
    let chain = pop(&mut device).unwrap();
    assert!(chain.readable_len() <= MAX_CHAIN_BYTES);
}

#[test]
fn an_indirect_table_is_followed_and_its_loops_end() {
    let (mut driver, mut device) = queue();
    describe_at(&driver.memory, TABLE, readable(BUFFER, 4), NEXT, 1);
    describe_at(&driver.memory, TABLE + 16, writable(BUFFER, 8), WRITE, 0);
    driver.offer(&[indirect(32)]);
    let chain = pop(&mut device).unwrap();
    assert_eq!((chain.readable_len(), chain.writable_len()), (4, 8));

    describe_at(&driver.memory, TABLE, readable(BUFFER, 4), NEXT, 0);
    driver.offer(&[indirect(32)]);
    assert_eq!(pop(&mut device).unwrap().readable().len(), 2);
}

#[test]
fn an_indirect_table_of_the_wrong_shape_holds_nothing() {
    for bytes in [0, 1, 15, 17, 16 * 65536, u32::MAX] {
        let (mut driver, mut device) = queue();
        driver.offer(&[indirect(bytes)]);
        let chain = pop(&mut device).unwrap();
        assert_eq!((chain.readable_len(), chain.writable_len()), (0, 0), "{bytes}");
    }
    let (mut driver, mut device) = queue();
    describe_at(&driver.memory, TABLE, indirect(32), INDIRECT, 0);
    driver.offer(&[indirect(32)]);
    assert_eq!(pop(&mut device).unwrap().readable_len(), 0, "a table in a table");
    driver.offer(&[Piece {
        address: u64::MAX - 15,
        ..indirect(32)
    }]);
    assert_eq!(pop(&mut device).unwrap().readable_len(), 0, "a table outside RAM");
}

#[test]
fn a_chain_longer_than_any_driver_needs_is_refused_before_it_costs_memory() {
    for len in [0, 1] {
        let (mut driver, mut device) = queue();
        for entry in 0..u64::from(u16::MAX) {
            let next = (entry + 1) as u16;
            describe_at(
                &driver.memory,
                TABLE + entry * 16,
                writable(BUFFER, len),
                WRITE | NEXT,
                next,
            );
        }
        driver.offer(&[indirect(u32::from(u16::MAX) * 16)]);
        let mut chain = Chain::default();
        let broken = device.pop(&mut chain);
        assert!(
            matches!(broken, Err(QueueError::Chain(ChainError::TooManyDescriptors))),
            "{broken:?}"
        );
        assert!(chain.writable.capacity() <= MAX_DESCRIPTORS);
    }
}

#[test]
fn a_chain_taken_no_longer_changes_with_the_table() {
    let (mut driver, mut device) = queue();
    driver.offer(&[readable(BUFFER, 8)]);
    let chain = pop(&mut device).unwrap();
    driver.describe(0, writable(u64::MAX, 9), WRITE, 0);
    let taken = Segment {
        address: GuestAddress(BUFFER),
        len: 8,
    };
    assert_eq!((chain.readable(), chain.writable().len()), (&[taken][..], 0));
}

/// Buffers side by side or not, but never over one another: a flat byte string cut into pieces.
fn pieces() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0usize..40, 1..SIZE as usize)
}

proptest! {
    #[test]
    fn reading_at_an_offset_is_reading_from_one_flat_buffer(
        lens in pieces(), offset in 0usize..700, want in 0usize..700,
    ) {
        let (mut driver, mut device) = queue();
        let mut flat = Vec::new();
        let mut offered = Vec::new();
        for (index, len) in lens.iter().enumerate() {
            let at = BUFFER + index as u64 * 64;
            let bytes: Vec<u8> = (0..*len).map(|byte| (index * 40 + byte) as u8).collect();
            driver.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
            offered.push(readable(at, *len as u32));
            flat.extend(bytes);
        }
        driver.offer(&offered);
        let chain = pop(&mut device).unwrap();
        let mut out = vec![0; want];
        let found = chain.read_at(&driver.memory, offset, &mut out).unwrap();
        let expected = flat.get(offset.min(flat.len())..(offset + want).min(flat.len())).unwrap_or(&[]);
        prop_assert_eq!(&out[..found], expected);
    }

    #[test]
    fn writing_at_an_offset_touches_those_bytes_and_no_others(
        lens in pieces(), offset in 0usize..700, len in 0usize..700,
    ) {
        let (mut driver, mut device) = queue();
        let memory = Arc::clone(&driver.memory);
        let offered: Vec<_> = (0..).zip(&lens).map(|(i, len)| writable(BUFFER + i * 64, *len as u32)).collect();
        driver.offer(&offered);
        let chain = pop(&mut device).unwrap();
        let written = chain.write_at(&memory, offset, &vec![0xff; len]).unwrap();
        let total: usize = lens.iter().sum();
        prop_assert_eq!(written, len.min(total.saturating_sub(offset)));
        let mut around = vec![0u8; lens.len() * 64];
        memory.read_slice(&mut around, GuestAddress(BUFFER)).unwrap();
        prop_assert_eq!(around.iter().filter(|byte| **byte == 0xff).count(), written);
        let mut flat: Vec<u8> = Vec::new();
        for (index, len) in lens.iter().enumerate() {
            flat.extend(&around[index * 64..index * 64 + len]);
        }
        prop_assert!(flat.iter().skip(offset).take(written).all(|byte| *byte == 0xff));
    }
}
