use std::{ops::Range, sync::Arc};

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::{
    worker::{BalloonWorker, MAX_PFNS, MAX_RANGES, Run, runs},
    *,
};
use crate::testing::{
    CountedInterrupt, KeptFailures,
    driver::{DriverQueue, Piece, guest_memory, readable, writable},
    hostile,
};

const RAM: usize = 16 << 20;
const RAM_PAGES: u32 = 4096;
/// Where the driver puts its page numbers, and the pages the tests give away.
const PFNS: u64 = 0x10_0000;
const GIVEN: u64 = 0x80_0000;
const GIVEN_PFN: u32 = 0x800;

struct Fixture {
    memory: Arc<GuestMemoryMmap>,
    queues: [DriverQueue; 3],
    worker: BalloonWorker,
    handle: BalloonHandle,
}

impl Fixture {
    fn new() -> Self {
        let memory = guest_memory(RAM);
        let queues = [0, 0x8000, 0x1_0000].map(|base| DriverQueue::new(&memory, base, 128));
        let balloon = Balloon::new();
        let devices = queues.iter().map(DriverQueue::device).collect();
        Fixture {
            worker: BalloonWorker::new(devices, Arc::clone(&balloon.state)),
            handle: balloon.handle(),
            memory,
            queues,
        }
    }

    fn send(&mut self, queue: usize, pieces: &[Piece]) {
        let head = self.queues[queue].offer(pieces);
        self.worker.turn(queue).unwrap();
        assert_eq!(self.queues[queue].used(), Some((head, 0)));
    }

    fn inflate(&mut self, pfns: &[u32]) {
        let bytes: Vec<u8> = pfns.iter().flat_map(|pfn| pfn.to_le_bytes()).collect();
        self.memory.write_slice(&bytes, GuestAddress(PFNS)).unwrap();
        self.send(0, &[readable(PFNS, bytes.len() as u32)]);
    }

    /// Fills pages of guest memory with ones, so that a dropped page is one that reads as zeros.
    fn fill(&self, pages: Range<u32>) {
        for page in pages {
            let at = GuestAddress(u64::from(page) * PAGE_BYTES);
            self.memory.write_slice(&[1; PAGE_BYTES as usize], at).unwrap();
        }
    }

    fn dropped(&self, pages: Range<u32>) -> Vec<u32> {
        let first_byte = |page: &u32| -> u8 {
            self.memory
                .read_obj(GuestAddress(u64::from(*page) * PAGE_BYTES))
                .unwrap()
        };
        pages.filter(|page| first_byte(page) == 0).collect()
    }

    fn resident_bytes(&self) -> u64 {
        let host = self.memory.get_host_address(GuestAddress(0)).unwrap() as usize;
        let start = format!("{host:x}-");
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = maps.lines().skip_while(|line| !line.starts_with(&start));
        let rss = lines.find(|line| line.starts_with("Rss:")).unwrap();
        let kib: u64 = rss.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }
}

#[test]
fn inflated_pages_go_back_to_the_host_and_their_neighbours_stay() {
    let mut fixture = Fixture::new();
    fixture.fill(GIVEN_PFN..GIVEN_PFN + 8);
    fixture.inflate(&[GIVEN_PFN + 1, GIVEN_PFN + 2, GIVEN_PFN + 5]);
    assert_eq!(
        fixture.dropped(GIVEN_PFN..GIVEN_PFN + 8),
        [GIVEN_PFN + 1, GIVEN_PFN + 2, GIVEN_PFN + 5]
    );
    assert_eq!(
        fixture.handle.counts(),
        BalloonCounts {
            inflated_bytes: 3 * PAGE_BYTES,
            ..BalloonCounts::default()
        }
    );
}

#[test]
fn memory_given_up_is_resident_no_more() {
    let mut fixture = Fixture::new();
    fixture.fill(GIVEN_PFN..GIVEN_PFN + 1024);
    let before = fixture.resident_bytes();
    fixture.send(2, &[writable(GIVEN, 4 << 20)]);
    let after = fixture.resident_bytes();
    // The queues themselves have become resident meanwhile.
    assert!(after < 64 * 1024, "{before} bytes before, {after} after");
    assert_eq!(fixture.handle.counts().reported_bytes, 4 << 20);
}

#[test]
fn a_report_drops_whole_pages_only() {
    let mut fixture = Fixture::new();
    fixture.fill(GIVEN_PFN..GIVEN_PFN + 4);
    fixture.send(
        2,
        &[writable(GIVEN + 1, 3 * PAGE_BYTES as u32), writable(GIVEN, 4095)],
    );
    assert_eq!(
        fixture.dropped(GIVEN_PFN..GIVEN_PFN + 4),
        [GIVEN_PFN + 1, GIVEN_PFN + 2]
    );
    let counts = fixture.handle.counts();
    assert_eq!((counts.reported_bytes, counts.ignored), (2 * PAGE_BYTES, 1));
}

#[test]
fn pages_outside_ram_are_ignored_and_counted() {
    let mut fixture = Fixture::new();
    fixture.fill(GIVEN_PFN..GIVEN_PFN + 2);
    fixture.inflate(&[RAM_PAGES, u32::MAX, GIVEN_PFN, u32::MAX - 1, 0x10_0000]);
    assert_eq!(fixture.dropped(GIVEN_PFN..GIVEN_PFN + 2), [GIVEN_PFN]);
    let counts = fixture.handle.counts();
    assert_eq!((counts.inflated_bytes, counts.ignored), (PAGE_BYTES, 4));
}

#[test]
fn a_run_that_leaves_ram_is_ignored_as_a_whole() {
    let mut fixture = Fixture::new();
    fixture.fill(RAM_PAGES - 1..RAM_PAGES);
    fixture.inflate(&[RAM_PAGES - 1, RAM_PAGES]);
    assert!(fixture.dropped(RAM_PAGES - 1..RAM_PAGES).is_empty());
    assert_eq!(fixture.handle.counts().ignored, 2);
}

#[test]
fn a_page_given_twice_and_ranges_that_overlap_are_no_error() {
    let mut fixture = Fixture::new();
    fixture.fill(GIVEN_PFN..GIVEN_PFN + 3);
    fixture.inflate(&[GIVEN_PFN; 7]);
    fixture.send(2, &[writable(GIVEN, 8192), writable(GIVEN + 4096, 8192)]);
    assert_eq!(fixture.dropped(GIVEN_PFN..GIVEN_PFN + 3).len(), 3);
    assert_eq!(fixture.handle.counts().ignored, 0);
}

#[test]
fn page_numbers_and_ranges_beyond_the_limits_are_left_alone() {
    let mut fixture = Fixture::new();
    let last = GIVEN_PFN + MAX_PFNS as u32;
    fixture.fill(last..last + 1);
    fixture.inflate(&(GIVEN_PFN..=last).collect::<Vec<_>>());
    assert!(fixture.dropped(last..last + 1).is_empty());
    assert_eq!(fixture.handle.counts().ignored, 1);

    fixture.fill(GIVEN_PFN..GIVEN_PFN + 1);
    let ranges = [writable(GIVEN, 4096); MAX_RANGES];
    fixture.send(2, &ranges);
    assert_eq!(
        fixture.handle.counts().reported_bytes,
        MAX_RANGES as u64 * PAGE_BYTES
    );
    assert_eq!(fixture.handle.counts().ignored, 1);
}

#[test]
fn odd_requests_do_nothing() {
    let mut fixture = Fixture::new();
    fixture.fill(0x100..0x101);
    fixture.send(0, &[readable(PFNS, 3)]);
    fixture.send(0, &[writable(PFNS, 4096)]);
    fixture.send(1, &[readable(PFNS, 4096), writable(GIVEN, 64)]);
    fixture.send(2, &[readable(PFNS, 4096)]);
    assert!(fixture.dropped(0x100..0x101).is_empty());
    assert_eq!(fixture.handle.counts(), BalloonCounts::default());
}

#[test]
fn a_driver_that_gives_away_its_own_queue_loses_that_queue_only() {
    let mut fixture = Fixture::new();
    fixture.memory.write_obj(0u32, GuestAddress(PFNS)).unwrap();
    fixture.queues[0].offer(&[readable(PFNS, 4)]);
    assert!(fixture.worker.turn(0).is_err(), "its ring is zeros now");
    fixture.fill(GIVEN_PFN..GIVEN_PFN + 1);
    fixture.send(2, &[writable(GIVEN, 4096)]);
    assert_eq!(fixture.handle.counts().reported_bytes, PAGE_BYTES);
}

#[test]
fn neighbours_become_one_run_up_or_down() {
    let run = |first, count| Run { first, count };
    let found: Vec<_> = runs([5, 6, 7, 3, 2, 1, 9, 9, 0, u32::MAX].into_iter()).collect();
    assert_eq!(
        found,
        [
            run(5, 3),
            run(1, 3),
            run(9, 1),
            run(9, 1),
            run(0, 1),
            run(u32::MAX.into(), 1)
        ]
    );
}

fn activate(balloon: &mut Balloon, fixture: &Fixture, queues: usize) -> Arc<CountedInterrupt> {
    let config_changed = Arc::new(CountedInterrupt::default());
    let devices = fixture
        .queues
        .iter()
        .take(queues)
        .map(DriverQueue::device)
        .collect();
    balloon
        .activate(Activation {
            memory: Arc::clone(&fixture.memory),
            features: balloon.features(),
            queues: devices,
            config_changed: Arc::clone(&config_changed) as _,
            failures: Arc::<KeptFailures>::default(),
        })
        .unwrap();
    config_changed
}

#[test]
fn a_new_target_reaches_the_driver_and_its_answer_the_owner() {
    let fixture = Fixture::new();
    let mut balloon = Balloon::new();
    let handle = balloon.handle();
    handle.set_target(3);
    let config_changed = activate(&mut balloon, &fixture, 3);
    assert_eq!(
        config_changed.count(),
        0,
        "it reads the first target when it starts"
    );
    handle.set_target(5);
    assert_eq!(config_changed.count(), 1);
    let mut target = [0; 4];
    balloon.read_config(0, &mut target);
    assert_eq!(u32::from_le_bytes(target), 5 * PAGES_PER_MIB);

    balloon.write_config(ACTUAL_OFFSET, &(4 * PAGES_PER_MIB).to_le_bytes());
    assert_eq!(handle.held_mib(), 4);
    balloon.reset();
    assert_eq!(handle.held_mib(), 0);
    handle.set_target(u32::MAX);
    assert_eq!(config_changed.count(), 1, "nobody is there to be told");
}

#[test]
fn the_driver_writes_its_own_field_and_no_other() {
    let mut balloon = Balloon::new();
    let handle = balloon.handle();
    handle.set_target(7);
    for offset in [0, 3, 5, 8, 4096, usize::MAX - 1, usize::MAX] {
        balloon.write_config(offset, &[0xff]);
    }
    balloon.write_config(usize::MAX - 1, &[0xff; 4]);
    let mut target = [0; 4];
    balloon.read_config(0, &mut target);
    assert_eq!(u32::from_le_bytes(target), 7 * PAGES_PER_MIB);
    assert_eq!(handle.held_mib(), 0xff00 / PAGES_PER_MIB);
}

#[test]
fn a_driver_without_reporting_has_a_balloon_all_the_same() {
    let mut fixture = Fixture::new();
    let mut balloon = Balloon::new();
    activate(&mut balloon, &fixture, 2);
    fixture.fill(GIVEN_PFN..GIVEN_PFN + 1);
    fixture.memory.write_obj(GIVEN_PFN, GuestAddress(PFNS)).unwrap();
    let queue = &mut fixture.queues[0];
    let head = queue.offer(&[readable(PFNS, 4)]);
    queue.kick();
    queue.interrupt.wait_for(1);
    assert_eq!(queue.used(), Some((head, 0)));
    assert_eq!(balloon.handle().counts().inflated_bytes, PAGE_BYTES);
}

proptest! {
    #[test]
    fn no_ring_breaks_the_balloon(ring in hostile::ring(), queue in 0..3usize) {
        let memory = guest_memory(hostile::RAM);
        let drivers = [ring.lay_out(&memory), ring.lay_out(&memory), ring.lay_out(&memory)];
        let devices = drivers.iter().map(DriverQueue::device).collect();
        let mut worker = BalloonWorker::new(devices, Arc::default());
        hostile::exhaust(&drivers[queue], || worker.turn(queue).is_ok());
    }
}
