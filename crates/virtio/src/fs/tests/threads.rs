//! Who answers, and what happens while somebody does.

use super::*;

/// Offers a request at a place of its own, so that many can be under way.
fn offer_at(fixture: &mut Fixture, slot: u64, opcode: u32, node: u64) -> u16 {
    let (request, reply) = (REQUEST + slot * 128, REPLY + slot * 256);
    let len = put_request(&fixture.memory, request, opcode, node, &[0; 16]);
    fixture
        .requests
        .offer(&[readable(request, len), writable(reply, 256)])
}

fn ring_elsewhere(fixture: &Fixture, queue: usize) -> thread::JoinHandle<()> {
    let bell = Arc::clone(&fixture.bell);
    thread::spawn(move || bell.rung(queue))
}

#[test]
fn what_may_take_long_is_answered_by_a_worker() {
    let mut fixture = Fixture::new(None);
    let head = fixture.offer(FSYNC, 9, &[0; 16], 512);
    fixture.bell.rung(1);
    assert_eq!(fixture.answer(), (head, 16));
    let who = fixture.pond.who_answered(9);
    assert_eq!(who.len(), 1);
    assert_ne!(who[0], thread::current().id());
}

#[test]
fn a_doorbell_does_not_wait_for_what_a_worker_does() {
    let mut fixture = Fixture::new(None);
    fixture.offer(FSYNC, STUCK, &[0; 16], 512);
    fixture.bell.rung(1);
    fixture.pond.wait_until_stuck(1);
    let quick = offer_at(&mut fixture, 1, GETATTR, 9);
    fixture.bell.rung(1);
    assert_eq!(fixture.answer().0, quick, "out of order");
    fixture.pond.free();
    fixture.answer();
}

#[test]
fn after_late_answers_workers_answer() {
    let mut fixture = Fixture::new(None);
    let me = thread::current().id();
    let late = |fixture: &mut Fixture| {
        fixture.ask(GETATTR, LATE, &[0; 16], 512);
        *fixture.pond.who_answered(LATE).last().unwrap()
    };
    assert_eq!(late(&mut fixture), me);
    let end = Instant::now() + DEADLINE;
    while late(&mut fixture) == me {
        assert!(Instant::now() < end, "the vCPU waits for a slow disk for ever");
    }
}

#[test]
fn while_one_vcpu_is_stuck_the_requests_of_others_are_answered_by_workers() {
    let mut fixture = Fixture::new(None);
    fixture.offer(GETATTR, STUCK, &[0; 16], 512);
    let stuck = ring_elsewhere(&fixture, 1);
    fixture.pond.wait_until_stuck(1);
    let end = Instant::now() + DEADLINE;
    for node in 1000.. {
        offer_at(&mut fixture, 1, GETATTR, node);
        fixture.bell.rung(1);
        fixture.answer();
        if fixture.pond.who_answered(node) != [thread::current().id()] {
            break;
        }
        assert!(Instant::now() < end, "another vCPU still risks getting stuck");
    }
    assert_eq!(fixture.pond.stuck(), 1);
    fixture.pond.free();
    stuck.join().unwrap();
}

#[test]
fn what_waits_behind_a_stuck_request_is_answered_though_nobody_rings_again() {
    let mut fixture = Fixture::new(None);
    let first = fixture.offer(GETATTR, STUCK, &[0; 16], 512);
    let second = offer_at(&mut fixture, 1, GETATTR, 9);
    let stuck = ring_elsewhere(&fixture, 1);
    assert_eq!(fixture.answer().0, second);
    fixture.pond.free();
    assert_eq!(fixture.answer().0, first);
    stuck.join().unwrap();
}

#[test]
fn a_reset_waits_for_the_request_that_is_being_answered_and_takes_no_other() {
    for opcode in [GETATTR, FSYNC] {
        let mut fixture = Fixture::new(None);
        fixture.offer(opcode, STUCK, &[0; 16], 512);
        let ringing = ring_elsewhere(&fixture, 1);
        fixture.pond.wait_until_stuck(1);
        let (pond, device) = (Arc::clone(&fixture.pond), Arc::clone(&fixture.device));
        let reset = thread::spawn(move || {
            device.lock().unwrap().reset();
            pond.stuck()
        });
        let end = Instant::now() + DEADLINE;
        while fixture.device.try_lock().is_ok() {
            assert!(Instant::now() < end, "no reset has begun");
            thread::yield_now();
        }
        fixture.bell.rung(1);
        assert!(!reset.is_finished(), "a request is still being answered");
        fixture.pond.free();
        assert_eq!(reset.join().unwrap(), 0, "calls inside when the reset returned");
        ringing.join().unwrap();
        offer_at(&mut fixture, 1, GETATTR, 9);
        fixture.bell.rung(1);
        assert!(fixture.pond.who_answered(9).is_empty());
    }
}

const THREADS: usize = 3;
const REQUESTS: usize = 3000;

/// Virtual CPUs that share a queue and ring only when they are told to, as Linux does.
#[test]
fn no_request_is_lost_between_threads_that_ring() {
    let memory = guest_memory(RAM);
    let hiprio = DriverQueue::new(&memory, 0, 8);
    let queue = DriverQueue::new(&memory, 0x1_0000, 16).with_event_idx();
    let mut device = Fs::new(pond(None), 1);
    activate(&mut device, &memory, vec![hiprio.device(), queue.device()]).unwrap();
    let bell = device.ring().unwrap();
    let queue = Mutex::new((queue, [0; THREADS]));
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (queue, memory, bell) = (&queue, &memory, &bell);
            scope.spawn(move || {
                for turn in 0..REQUESTS {
                    if offer_in_turn(&mut queue.lock().unwrap().0, memory, number, turn) {
                        bell.rung(1);
                    }
                    let end = Instant::now() + DEADLINE;
                    while answers_so_far(&mut queue.lock().unwrap(), number) <= turn {
                        assert!(Instant::now() < end, "request {turn} of {number} is lost");
                        thread::yield_now();
                    }
                }
            });
        }
    });
    let (mut queue, answers) = queue.into_inner().unwrap();
    assert_eq!((queue.used(), answers), (None, [REQUESTS; THREADS]));
    device.reset();
}

/// Every seventh goes to a worker. Nobody has said INIT, so each is refused, and that is an answer. Returns
/// whether the device wants to hear of it.
fn offer_in_turn(queue: &mut DriverQueue, memory: &GuestMemoryMmap, number: usize, turn: usize) -> bool {
    let (request, reply) = (REQUEST + number as u64 * 128, REPLY + number as u64 * 256);
    let opcode = if turn.is_multiple_of(7) { FSYNC } else { GETATTR };
    let len = put_request(memory, request, opcode, 9, &[0; 16]);
    let head = number as u16 * 2;
    queue.describe(head, readable(request, len), NEXT, head + 1);
    queue.describe(head + 1, writable(reply, 256), WRITE, 0);
    queue.offer_head(head);
    queue.must_kick()
}

fn answers_so_far((queue, answers): &mut (DriverQueue, [usize; THREADS]), number: usize) -> usize {
    while let Some((head, _)) = queue.used() {
        answers[usize::from(head) / 2] += 1;
    }
    answers[number]
}
