mod chains;
mod threads;

use std::{
    fs::File,
    os::fd::AsFd,
    sync::{Arc, Condvar, Mutex},
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use fuse::{Attributes, Caller, FileKind, FileSystem, NodeId, Payload, Reply, Target, Timestamp, WriteFlags};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::*;
use crate::{
    Activation, DeviceQueue,
    testing::{
        CountedInterrupt, KeptFailures,
        driver::{DriverQueue, NEXT, Piece, WRITE, guest_memory, readable, writable},
    },
};

const RAM: usize = 4 << 20;
/// Where tests put requests, data and replies.
const REQUEST: u64 = 0x10_0000;
const REPLY: u64 = 0x11_0000;
const DATA: u64 = 0x20_0000;

const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const READ: u32 = 15;
const WRITE_DATA: u32 = 16;
const FSYNC: u32 = 20;
const INIT: u32 = 26;

const HEADER: usize = 40;
const REPLY_HEADER: usize = 16;
const ATTRIBUTES_REPLY: u32 = 120;
const EIO: i32 = 5;
const EINVAL: i32 = 22;

/// A node whose answers do not come before the test says so.
const STUCK: u64 = 100;
/// And one whose answers come late.
const LATE: u64 = 101;

/// Far longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(20);

/// One file, which every node is, and a record of who asked for it.
#[derive(Default)]
struct Pond {
    file: Option<File>,
    asked: Mutex<Vec<(u64, ThreadId)>>,
    inside: Mutex<Inside>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
struct Inside {
    /// Calls that hang, and how many may leave.
    stuck: usize,
    free: bool,
}

impl Pond {
    fn note(&self, node: NodeId) {
        self.asked.lock().unwrap().push((node.0, thread::current().id()));
        match node.0 {
            STUCK => {
                let mut inside = self.inside.lock().unwrap();
                inside.stuck += 1;
                self.changed.notify_all();
                while !inside.free {
                    inside = self.changed.wait(inside).unwrap();
                }
                inside.stuck -= 1;
            }
            // The disk that takes its time.
            LATE => thread::sleep(Duration::from_millis(4)),
            _ => {}
        }
    }

    fn wait_until_stuck(&self, calls: usize) {
        let inside = self.inside.lock().unwrap();
        let (_inside, waited) = self
            .changed
            .wait_timeout_while(inside, DEADLINE, |inside| inside.stuck < calls)
            .unwrap();
        assert!(!waited.timed_out(), "no {calls} calls hang");
    }

    fn free(&self) {
        self.inside.lock().unwrap().free = true;
        self.changed.notify_all();
    }

    fn stuck(&self) -> usize {
        self.inside.lock().unwrap().stuck
    }

    fn who_answered(&self, node: u64) -> Vec<ThreadId> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|(asked, _)| *asked == node)
            .map(|(_, thread)| *thread)
            .collect()
    }
}

impl FileSystem for Pond {
    fn attributes(&self, _: Caller, node: NodeId) -> Reply<Attributes> {
        self.note(node);
        Ok(Attributes {
            inode: node.0,
            kind: FileKind::File,
            permissions: 0o644,
            size: 0,
            blocks: 0,
            block_size: 4096,
            links: 1,
            uid: 1000,
            gid: 1000,
            device: 0,
            accessed: Timestamp::default(),
            modified: Timestamp::default(),
            changed: Timestamp::default(),
            born: None,
            submount: false,
            valid: Duration::ZERO,
        })
    }

    fn forget(&self, node: NodeId, _: u64) {
        self.note(node);
    }

    fn sync(&self, _: Caller, node: NodeId, _: bool) -> Reply<()> {
        self.note(node);
        Ok(())
    }

    fn read(&self, _: Caller, _: NodeId, offset: u64, target: &mut dyn Target) -> Reply<()> {
        let file = self.file.as_ref().unwrap();
        let room = target.room();
        target.fill_from(file.as_fd(), offset, room).unwrap();
        Ok(())
    }

    fn write(
        &self,
        _: Caller,
        _: NodeId,
        offset: u64,
        payload: &mut dyn Payload,
        flags: WriteFlags,
    ) -> Reply<usize> {
        let file = self.file.as_ref().unwrap();
        let len = payload.left();
        Ok(payload.drain_to(file.as_fd(), offset, len, flags).unwrap())
    }
}

/// A device that runs, with the driver's end of its two queues.
struct Fixture {
    device: Arc<Mutex<Fs<Pond>>>,
    bell: Arc<dyn Ring>,
    pond: Arc<Pond>,
    memory: Arc<GuestMemoryMmap>,
    hiprio: DriverQueue,
    requests: DriverQueue,
}

impl Fixture {
    fn new(file: Option<File>) -> Self {
        let memory = guest_memory(RAM);
        let hiprio = DriverQueue::new(&memory, 0, 8);
        let requests = DriverQueue::new(&memory, 0x1_0000, 1024);
        let pond = pond(file);
        let mut device = Fs::new(Arc::clone(&pond), 1);
        activate(&mut device, &memory, vec![hiprio.device(), requests.device()]).unwrap();
        let mut fixture = Fixture {
            bell: device.ring().unwrap(),
            device: Arc::new(Mutex::new(device)),
            pond,
            memory,
            hiprio,
            requests,
        };
        fixture.handshake();
        fixture
    }

    fn handshake(&mut self) {
        let mut body = vec![0; 64];
        body[..4].copy_from_slice(&7u32.to_le_bytes());
        body[4..8].copy_from_slice(&38u32.to_le_bytes());
        let (len, error) = self.ask(INIT, 0, &body, 256);
        assert!(
            len > REPLY_HEADER as u32 && error == 0,
            "{len} bytes, error {error}"
        );
    }

    /// Offers a request of one descriptor with room for a reply in another, and does not ring.
    fn offer(&mut self, opcode: u32, node: u64, body: &[u8], room: u32) -> u16 {
        let len = put_request(&self.memory, REQUEST, opcode, node, body);
        self.requests
            .offer(&[readable(REQUEST, len), writable(REPLY, room)])
    }

    /// Asks and waits; returns the length of the reply and its error.
    fn ask(&mut self, opcode: u32, node: u64, body: &[u8], room: u32) -> (u32, i32) {
        self.offer(opcode, node, body, room);
        self.bell.rung(1);
        let (_, written) = self.answer();
        (written, self.error())
    }

    /// The next answer, which a worker may give.
    fn answer(&mut self) -> (u16, u32) {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(answer) = self.requests.used() {
                return answer;
            }
            assert!(Instant::now() < end, "no answer");
            thread::yield_now();
        }
    }

    fn error(&self) -> i32 {
        -self.memory.read_obj::<i32>(GuestAddress(REPLY + 4)).unwrap()
    }

    fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }
}

fn pond(file: Option<File>) -> Arc<Pond> {
    Arc::new(Pond {
        file,
        ..Pond::default()
    })
}

fn activate<F: FileSystem>(
    device: &mut Fs<F>,
    memory: &Arc<GuestMemoryMmap>,
    queues: Vec<DeviceQueue>,
) -> Result<(), ActivateError> {
    device.activate(Activation {
        memory: Arc::clone(memory),
        features: 0,
        queues,
        config_changed: Arc::new(CountedInterrupt::default()),
        failures: Arc::new(KeptFailures::default()),
    })
}

/// Writes a request to guest memory; returns its length.
fn put_request(memory: &GuestMemoryMmap, at: u64, opcode: u32, node: u64, body: &[u8]) -> u32 {
    let bytes = request(opcode, node, body);
    memory.write_slice(&bytes, GuestAddress(at)).unwrap();
    bytes.len() as u32
}

fn request(opcode: u32, node: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(((HEADER + body.len()) as u32).to_le_bytes());
    bytes.extend(opcode.to_le_bytes());
    bytes.extend(7u64.to_le_bytes());
    bytes.extend(node.to_le_bytes());
    bytes.extend([0; 16]);
    bytes.extend(body);
    bytes
}

/// `struct fuse_read_in` and `fuse_write_in`, which are alike.
fn transfer(offset: u64, size: u32, flags: u32) -> Vec<u8> {
    let mut body = vec![0; 8];
    body.extend(offset.to_le_bytes());
    body.extend(size.to_le_bytes());
    body.extend([0; 12]);
    body.extend(flags.to_le_bytes());
    body.extend([0; 4]);
    body
}

#[test]
fn the_driver_finds_a_tag_and_the_number_of_request_queues() {
    for (asked, had) in [(0, 1), (3, 3), (100, MAX_REQUEST_QUEUES)] {
        let device = Fs::new(pond(None), asked);
        let mut config = [0xff; 44];
        device.read_config(0, &mut config);
        assert_eq!(&config[..10], b"cofferdam\0");
        assert_eq!(config[36..40], u32::from(had).to_le_bytes());
        assert_eq!(config[40..], [0; 4]);
        assert_eq!(device.queue_sizes().len(), 1 + usize::from(had));
    }
}

#[test]
fn a_quick_request_is_answered_before_the_doorbell_returns_and_by_who_rang() {
    let mut fixture = Fixture::new(None);
    let head = fixture.offer(GETATTR, 9, &[0; 16], 512);
    fixture.bell.rung(1);
    assert_eq!(fixture.requests.used(), Some((head, ATTRIBUTES_REPLY)));
    assert_eq!(fixture.pond.who_answered(9), [thread::current().id()]);
    assert_eq!(
        fixture.requests.interrupt.count(),
        2,
        "one for INIT, one for this"
    );
}

#[test]
fn forgets_are_answered_with_nothing() {
    let mut fixture = Fixture::new(None);
    let len = put_request(&fixture.memory, REQUEST, FORGET, 9, &1u64.to_le_bytes());
    let head = fixture.hiprio.offer(&[readable(REQUEST, len)]);
    fixture.bell.rung(0);
    assert_eq!(fixture.hiprio.used(), Some((head, 0)));
    assert_eq!(fixture.pond.who_answered(9).len(), 1);
}

#[test]
fn forgets_after_the_first_need_no_ring_until_there_are_no_more() {
    let mut fixture = Fixture::new(None);
    let deadline = Instant::now() + Duration::from_secs(10);
    let rings = |fixture: &mut Fixture| {
        let len = put_request(&fixture.memory, REQUEST, FORGET, 9, &1u64.to_le_bytes());
        let head = fixture.hiprio.offer(&[readable(REQUEST, len)]);
        let must = fixture.hiprio.must_kick();
        if must {
            fixture.bell.rung(0);
        }
        while fixture.hiprio.used() != Some((head, 0)) {
            assert!(Instant::now() < deadline, "a FORGET nobody took");
            std::thread::yield_now();
        }
        must
    };
    assert!(rings(&mut fixture), "the first one");
    assert!(!rings(&mut fixture), "one right behind it");
    while !rings(&mut fixture) {
        assert!(Instant::now() < deadline, "no ring asked for after a pause");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn one_ring_answers_all_that_waits() {
    let mut fixture = Fixture::new(None);
    let heads = [(); 100].map(|()| fixture.offer(GETATTR, 9, &[0; 16], 512));
    fixture.bell.rung(1);
    let mut answered: Vec<u16> = heads.iter().map(|_| fixture.answer().0).collect();
    answered.sort_unstable();
    assert_eq!(answered, heads, "each once, by whoever");
}

#[test]
fn doorbells_of_no_queue_or_of_a_device_that_does_not_run_mean_nothing() {
    let mut fixture = Fixture::new(None);
    fixture.bell.rung(2);
    fixture.bell.rung(usize::MAX);
    fixture.offer(GETATTR, 9, &[0; 16], 512);
    fixture.device.lock().unwrap().reset();
    fixture.bell.rung(1);
    assert_eq!(fixture.requests.used(), None);
    assert!(fixture.pond.who_answered(9).is_empty());
}

#[test]
fn a_driver_without_a_queue_for_requests_gets_no_device() {
    let memory = guest_memory(RAM);
    let mut device = Fs::new(pond(None), 4);
    let hiprio = DriverQueue::new(&memory, 0, 8).device();
    assert!(matches!(
        activate(&mut device, &memory, vec![hiprio]),
        Err(ActivateError::MissingQueues { found: 1, .. })
    ));
}

#[test]
fn a_device_that_was_reset_serves_its_next_driver() {
    let mut fixture = Fixture::new(None);
    for _ in 0..3 {
        let mut device = fixture.device.lock().unwrap();
        device.reset();
        fixture.requests = DriverQueue::new(&fixture.memory, 0x1_0000, 1024);
        fixture
            .memory
            .write_slice(&[0; 0x1_0000], GuestAddress(0x1_0000))
            .unwrap();
        let queues = vec![fixture.hiprio.device(), fixture.requests.device()];
        activate(&mut device, &fixture.memory, queues).unwrap();
        drop(device);
        fixture.handshake();
    }
}
