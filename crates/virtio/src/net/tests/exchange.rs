//! Long exchanges with a driver that rings only when it is asked to, and one that keeps to no rule.

use std::{
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
    thread,
};

use vm_memory::{Bytes, GuestAddress};

use super::{FEATURES, FarEnd, HEADER_LEN, Machine, pattern, worker};
use crate::testing::driver::{DriverQueue, guest_memory, readable, writable};

const FRAMES: usize = 20_000;
/// In 512 bytes each; a frame of 1,500 takes three.
const BUFFERS: usize = 16;
/// Frames under way; more than there are buffers for.
const WINDOW: usize = 24;

fn length(index: usize) -> usize {
    14 + index * 37 % 1486
}

fn fill_receive_queue(machine: &mut Machine, outstanding: &mut usize) {
    while *outstanding < BUFFERS {
        machine.offer(&[512]);
        *outstanding += 1;
        if machine.rx.must_kick() {
            machine.rx.kick();
        }
    }
}

/// Every frame comes back, in order, and nobody sleeps while there is something to do.
fn exchange(mut machine: Machine) {
    let (mut sent, mut done, mut got) = (0, 0u16, 0);
    let mut buffers = 0;
    let mut outstanding = 0;
    while got < FRAMES {
        let seen = machine.rx.interrupt.count();
        fill_receive_queue(&mut machine, &mut outstanding);
        while sent < FRAMES && sent - got < WINDOW {
            machine.queue_frame(&[0; HEADER_LEN], &pattern(length(sent)));
            sent += 1;
            if machine.tx.must_kick() {
                machine.tx.kick();
            }
        }
        machine.tx.set_used_event(done);
        machine.rx.set_used_event(buffers);
        fence(Ordering::SeqCst);
        let before = (got, done);
        while machine.tx.used().is_some() {
            done = done.wrapping_add(1);
        }
        while let Some(next) = machine.received() {
            assert!(next.frame == pattern(length(got)), "frame {got}");
            got += 1;
            outstanding -= next.buffers;
            buffers = buffers.wrapping_add(next.buffers as u16);
        }
        if before == (got, done) {
            machine.rx.interrupt.wait_for(seen + 1);
        }
    }
}

#[test]
fn a_driver_that_rings_only_when_asked_loses_nothing() {
    exchange(Machine::sparing(FarEnd::echo(), FEATURES, false));
}

#[test]
fn a_driver_that_rings_and_hears_by_index_loses_nothing() {
    exchange(Machine::sparing(FarEnd::echo(), FEATURES, true));
}

#[test]
fn a_driver_that_rewrites_everything_while_it_is_read_harms_only_itself() {
    let memory = guest_memory(0x10_0000);
    let at = 0x4_0000;
    let mut tx = DriverQueue::new(&memory, 0, 16);
    let mut rx = DriverQueue::new(&memory, 0x1000, 16);
    for index in 0..16 {
        tx.offer(&[readable(at, 100)]);
        rx.offer(&[writable(at + 0x1000 * index, 1600)]);
    }
    let racer = {
        let memory = Arc::clone(&memory);
        thread::spawn(move || {
            for round in 0..200_000u64 {
                let scramble = round.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                // Descriptors of either queue, then the header that the one points to.
                let queue = scramble % 2 * 0x1000;
                let _ = memory.write_obj(scramble, GuestAddress(queue + (scramble >> 8) % 32 * 8));
                let _ = memory.write_obj(scramble, GuestAddress(at));
            }
        })
    };
    while !racer.is_finished() {
        let far_end = FarEnd::new();
        for _ in 0..8 {
            far_end.send(pattern(1500));
        }
        // Either all is moved or the device gives up; both are fine, nothing else is.
        let _ = worker(&rx, &tx, &far_end, FEATURES).turn();
    }
    racer.join().unwrap();
}
