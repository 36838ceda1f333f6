//! The whole device: its thread, its turns, and drivers that mean harm.

use super::*;

fn activation(
    memory: &Arc<GuestMemoryMmap>,
    queue: &DriverQueue,
    failures: &Arc<KeptFailures>,
) -> Activation {
    Activation {
        memory: Arc::clone(memory),
        features: 1 << VIRTIO_BLK_F_FLUSH,
        queues: vec![queue.device()],
        config_changed: Arc::<CountedInterrupt>::default(),
        failures: Arc::clone(failures) as _,
    }
}

#[test]
fn a_machine_reads_through_the_thread_and_again_after_a_reset() {
    let file = numbered_sectors(8);
    let mut block = Block::open(file.path(), DiskMode::ReadOnly, "a").unwrap();
    let failures = Arc::new(KeptFailures::default());
    for sector in [3, 5] {
        let memory = guest_memory(RAM);
        let mut queue = DriverQueue::new(&memory, 0, 16);
        block.activate(activation(&memory, &queue, &failures)).unwrap();
        put_header(&memory, HEADER, VIRTIO_BLK_T_IN, sector);
        let head = queue.offer(&[readable(HEADER, 16), writable(DATA, 512), writable(STATUS, 1)]);
        queue.kick();
        queue.interrupt.wait_for(1);
        assert_eq!(queue.used(), Some((head, 513)));
        let byte: u8 = memory.read_obj(GuestAddress(DATA)).unwrap();
        assert_eq!(u64::from(byte), sector);
        block.reset();
    }
    assert!(failures.0.lock().unwrap().is_empty());
}

fn worker(queue: &DriverQueue, file: &NamedTempFile) -> BlockWorker {
    let disk = Arc::new(Disk::open(file.path(), DiskMode::Scratch).unwrap());
    BlockWorker::new(queue.device(), disk, [0; 20], false)
}

#[test]
fn many_requests_are_answered_in_order_with_one_interrupt_a_turn() {
    let file = numbered_sectors(64);
    let memory = guest_memory(RAM);
    let mut queue = DriverQueue::new(&memory, 0, 256).with_event_idx();
    let mut worker = worker(&queue, &file);
    put_header(&memory, HEADER, VIRTIO_BLK_T_FLUSH, 0);
    let heads: Vec<_> = (0..40)
        .map(|_| queue.offer(&[readable(HEADER, 16), writable(STATUS, 1)]))
        .collect();
    let mut turns = 0;
    queue.kick();
    while queue.kicked() {
        assert_eq!(worker.turn().unwrap(), Turn::Over);
        queue.set_used_event((turns + 1) * 16);
        turns += 1;
    }
    assert_eq!(turns, 3, "sixteen requests are one turn");
    let answered: Vec<_> = std::iter::from_fn(|| queue.used())
        .map(|(head, _)| head)
        .collect();
    assert_eq!(answered, heads);
    assert_eq!(queue.interrupt.count(), 3);
}

#[test]
fn a_failed_request_leaves_the_next_one_unharmed() {
    let file = numbered_sectors(64);
    let memory = guest_memory(RAM);
    let mut queue = DriverQueue::new(&memory, 0, 16);
    let mut worker = worker(&queue, &file);
    put_header(&memory, HEADER, VIRTIO_BLK_T_IN, 9);
    let bad = queue.offer(&[readable(HEADER, 16)]);
    let good = queue.offer(&[readable(HEADER, 16), writable(DATA, 512), writable(STATUS, 1)]);
    worker.turn().unwrap();
    assert_eq!(queue.used(), Some((bad, 0)));
    assert_eq!(queue.used(), Some((good, 513)));
    assert_eq!(queue.used(), None);
}

#[test]
fn a_driver_that_rewrites_everything_while_it_is_read_harms_only_itself() {
    let file = numbered_sectors(64);
    let memory = guest_memory(RAM);
    let mut queue = DriverQueue::new(&memory, 0, 16);
    put_header(&memory, HEADER, VIRTIO_BLK_T_IN, 9);
    for _ in 0..4 {
        queue.offer(&[readable(HEADER, 16), writable(DATA, 512), writable(STATUS, 1)]);
    }
    let disk = Arc::new(Disk::open(file.path(), DiskMode::ReadOnly).unwrap());
    let racer = {
        let memory = Arc::clone(&memory);
        thread::spawn(move || {
            for round in 0..200_000u64 {
                let scramble = round.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                // Descriptors, then the header they point to.
                let _ = memory.write_obj(scramble, GuestAddress(scramble % 32 * 8));
                let _ = memory.write_obj(scramble >> 32, GuestAddress(HEADER + scramble % 2 * 8));
            }
        })
    };
    while !racer.is_finished() {
        let mut worker = BlockWorker::new(queue.device(), Arc::clone(&disk), [0; 20], false);
        // Either every request is answered or the device gives up; both are fine, nothing else is.
        let _ = worker.turn();
    }
    racer.join().unwrap();
}

proptest! {
    #[test]
    fn no_ring_breaks_a_disk_or_grows_its_file(ring in hostile::ring()) {
        let file = numbered_sectors(64);
        let driver = ring.lay_out(&guest_memory(hostile::RAM));
        let mut worker = worker(&driver, &file);
        hostile::exhaust(&driver, || worker.turn().is_ok());
        prop_assert_eq!(fs::metadata(file.path()).unwrap().len(), 64 * 512);
    }
}
