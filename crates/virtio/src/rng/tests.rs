use std::{sync::Arc, time::Instant};

use proptest::proptest;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{
    budget::{BURST, BYTES_PER_SECOND, MIN_COST},
    worker::{MAX_ANSWER, RngWorker},
    *,
};
use crate::testing::{
    CountedInterrupt, KeptFailures,
    driver::{DriverQueue, guest_memory, readable, writable},
    hostile,
};

const RAM: usize = 1 << 20;
const DATA: u64 = 0x1_0000;

fn bytes(memory: &GuestMemoryMmap, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
    bytes
}

#[test]
fn random_bytes_fill_the_buffers_and_nothing_beside_them() {
    let memory = guest_memory(RAM);
    let mut queue = DriverQueue::new(&memory, 0, 16);
    let mut worker = RngWorker::new(queue.device()).unwrap();
    let head = queue.offer(&[writable(DATA, 64), writable(DATA + 128, 64)]);
    assert_eq!(worker.turn(Instant::now()).unwrap(), None);
    assert_eq!(queue.used(), Some((head, 128)));
    let filled = bytes(&memory, DATA, 256);
    // Sixty-four random bytes are all zero about never.
    assert_ne!(filled[..64], [0; 64]);
    assert_eq!(filled[64..128], [0; 64]);
    assert_ne!(filled[128..192], [0; 64]);
    assert_ne!(filled[..64], filled[128..192]);
    assert_eq!(filled[192..], [0; 64]);
}

#[test]
fn a_huge_request_gets_a_few_bytes_at_once() {
    let memory = guest_memory(RAM);
    let mut queue = DriverQueue::new(&memory, 0, 16);
    let mut worker = RngWorker::new(queue.device()).unwrap();
    let head = queue.offer(&[writable(DATA, 0x8_0000)]);
    worker.turn(Instant::now()).unwrap();
    assert_eq!(queue.used(), Some((head, MAX_ANSWER as u32)));
    assert_eq!(bytes(&memory, DATA + MAX_ANSWER as u64, 4096), [0; 4096]);
}

#[test]
fn a_request_for_nothing_or_without_room_gets_nothing() {
    let memory = guest_memory(RAM);
    let mut queue = DriverQueue::new(&memory, 0, 16);
    let mut worker = RngWorker::new(queue.device()).unwrap();
    let heads = [
        queue.offer(&[readable(DATA, 64)]),
        queue.offer(&[writable(DATA, 0)]),
    ];
    worker.turn(Instant::now()).unwrap();
    assert_eq!(heads.map(|head| queue.used() == Some((head, 0))), [true; 2]);
    assert_eq!(bytes(&memory, DATA, 64), [0; 64]);
}

#[test]
fn a_guest_that_asks_too_much_waits_and_is_answered_later() {
    let memory = guest_memory(RAM);
    let mut queue = DriverQueue::new(&memory, 0, 16);
    let mut worker = RngWorker::new(queue.device()).unwrap();
    let start = Instant::now();
    let mut given = 0;
    let wait = loop {
        queue.offer(&[writable(DATA, MAX_ANSWER as u32)]);
        let wait = worker.turn(start).unwrap();
        given += queue.used().map_or(0, |(_, len)| u64::from(len));
        if let Some(wait) = wait {
            break wait;
        }
    };
    assert!(
        (BURST - MIN_COST..=BURST + MIN_COST).contains(&given),
        "{given} bytes at once"
    );
    assert!(wait.as_secs_f64() <= MAX_ANSWER as f64 / BYTES_PER_SECOND as f64 + 1e-6);
    assert_eq!(
        worker.turn(start).unwrap(),
        Some(wait),
        "asking again does not help"
    );
    assert_eq!(queue.used(), None);
    assert_eq!(worker.turn(start + wait).unwrap(), None);
    assert!(queue.used().is_some());
}

#[test]
fn the_thread_answers_what_it_put_off_without_another_kick() {
    let memory = guest_memory(RAM);
    let mut queue = DriverQueue::new(&memory, 0, 256);
    let failures = Arc::new(KeptFailures::default());
    let mut rng = Rng::new();
    let requests = BURST as usize / MAX_ANSWER + 8;
    for _ in 0..requests {
        queue.offer(&[writable(DATA, MAX_ANSWER as u32)]);
    }
    rng.activate(Activation {
        memory: Arc::clone(&memory),
        features: 0,
        queues: vec![queue.device()],
        config_changed: Arc::<CountedInterrupt>::default(),
        failures: Arc::clone(&failures) as _,
    })
    .unwrap();
    queue.kick();
    let mut answered = 0;
    while answered < requests {
        let heard = queue.interrupt.count();
        answered += std::iter::from_fn(|| queue.used()).count();
        if answered < requests {
            queue.interrupt.wait_for(heard + 1);
        }
    }
    rng.reset();
    assert!(failures.0.lock().unwrap().is_empty());
}

proptest! {
    #[test]
    fn no_ring_breaks_the_source_of_entropy(ring in hostile::ring()) {
        let driver = ring.lay_out(&guest_memory(hostile::RAM));
        let mut worker = RngWorker::new(driver.device()).unwrap();
        hostile::exhaust(&driver, || worker.turn(Instant::now()).is_ok());
    }
}
