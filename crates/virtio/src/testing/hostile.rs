//! Rings full of anything, to hold against a device: it answers or it gives up, and returns.

use std::sync::Arc;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::driver::{DriverQueue, INDIRECT, NEXT, Piece, WRITE};

/// The guest's memory these rings are made for.
pub(crate) const RAM: usize = 1 << 20;
const SIZE: u16 = 8;
pub(crate) const REQUESTS: u64 = 0x1000;

/// A ring as a hostile driver might leave it.
#[derive(Clone, Debug)]
pub(crate) struct Ring {
    table: Vec<(Piece, u16)>,
    heads: Vec<u16>,
    ahead: u16,
    /// What the descriptors mostly point at: headers of requests, or page numbers.
    requests: Vec<[u32; 4]>,
}

pub(crate) fn ring() -> impl Strategy<Value = Ring> {
    let address = prop_oneof![
        6 => (0..32u64).prop_map(|slot| REQUESTS + slot * 16),
        2 => 0..RAM as u64,
        1 => RAM as u64 - 8..RAM as u64 + 8,
        1 => any::<u64>(),
    ];
    let len = prop_oneof![4 => 0..32u32, 3 => Just(512), 2 => 0..RAM as u32, 1 => any::<u32>()];
    let flags = prop_oneof![
        Just(0),
        Just(NEXT),
        Just(WRITE),
        Just(NEXT | WRITE),
        Just(INDIRECT),
        any::<u16>()
    ];
    let descriptor = (address, len, flags, 0..SIZE + 2)
        .prop_map(|(address, len, flags, next)| (Piece { address, len, flags }, next));
    let request = (
        0..16u32,
        any::<u32>(),
        prop_oneof![0..80u32, any::<u32>()],
        prop_oneof![Just(0), any::<u32>()],
    )
        .prop_map(|(kind, reserved, low, high)| [kind, reserved, low, high]);
    (
        prop::collection::vec(descriptor, SIZE as usize),
        prop::collection::vec(0..SIZE + 2, SIZE as usize),
        prop_oneof![9 => 0..=SIZE, 1 => any::<u16>()],
        prop::collection::vec(request, 32),
    )
        .prop_map(|(table, heads, ahead, requests)| Ring {
            table,
            heads,
            ahead,
            requests,
        })
}

impl Ring {
    pub(crate) fn lay_out(&self, memory: &Arc<GuestMemoryMmap>) -> DriverQueue {
        let mut driver = DriverQueue::new(memory, 0, SIZE);
        for (index, (piece, next)) in (0..).zip(&self.table) {
            driver.describe(index, *piece, piece.flags, *next);
        }
        for head in &self.heads {
            driver.offer_head(*head);
        }
        driver.set_avail_index(self.ahead);
        for (index, request) in (0..).zip(&self.requests) {
            let at = GuestAddress(REQUESTS + index * 16);
            memory.write_obj(*request, at).unwrap();
        }
        driver
    }
}

/// Takes turns until the device gives up or has nothing left to do; there can be only so many, for the
/// driver does nothing meanwhile.
pub(crate) fn exhaust(driver: &DriverQueue, mut turn: impl FnMut() -> bool) {
    driver.kick();
    for _ in 0..=SIZE {
        if !driver.kicked() || !turn() {
            return;
        }
    }
    panic!("a device keeps itself busy");
}
