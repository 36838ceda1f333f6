mod files;
mod machine;
mod requests;

use std::{
    fs,
    io::Write,
    os::unix::fs::{FileExt, MetadataExt},
    sync::Arc,
    thread,
};

use proptest::prelude::*;
use tempfile::NamedTempFile;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::*;
use crate::{
    Activation, Chain,
    block::request::{Target, serve},
    testing::{
        CountedInterrupt, KeptFailures,
        driver::{DriverQueue, Piece, guest_memory, readable, writable},
        hostile,
    },
    turn::Turn,
};

const RAM: usize = 16 << 20;
/// Where tests put the request's header, its data and its status.
const HEADER: u64 = 0x10_0000;
const DATA: u64 = 0x20_0000;
const STATUS: u64 = 0x11_0000;
const SECTORS: u64 = 256;
const OK: u8 = VIRTIO_BLK_S_OK as u8;
const IOERR: u8 = VIRTIO_BLK_S_IOERR as u8;
const UNSUPP: u8 = VIRTIO_BLK_S_UNSUPP as u8;
const UNTOUCHED: u8 = 0xee;

/// A disk of 256 sectors, each filled with its own number, behind a driver.
struct Fixture {
    file: NamedTempFile,
    disk: Disk,
    memory: Arc<GuestMemoryMmap>,
    queue: DriverQueue,
}

impl Fixture {
    fn new(mode: DiskMode) -> Self {
        let file = numbered_sectors(SECTORS);
        let memory = guest_memory(RAM);
        Fixture {
            disk: Disk::open(file.path(), mode).unwrap(),
            file,
            queue: DriverQueue::new(&memory, 0, 256),
            memory,
        }
    }

    /// Sends a request with these data buffers and returns its status and its used length.
    fn request(&mut self, kind: u32, sector: u64, data: &[Piece]) -> (u8, u32) {
        put_header(&self.memory, HEADER, kind, sector);
        let mut pieces = vec![readable(HEADER, 16)];
        pieces.extend(data);
        pieces.push(writable(STATUS, 1));
        self.send(&pieces)
    }

    fn send(&mut self, pieces: &[Piece]) -> (u8, u32) {
        self.memory.write_obj(UNTOUCHED, GuestAddress(STATUS)).unwrap();
        let mut device = self.queue.device();
        let mut chain = Chain::default();
        // A new device end starts at the first entry again.
        self.queue = DriverQueue::new(&self.memory, 0, 256);
        self.queue.offer(pieces);
        assert!(device.pop(&mut chain).unwrap());
        let target = Target {
            disk: &self.disk,
            id: b"serial\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            write_through: false,
        };
        let outcome = serve(&target, &self.memory, &chain);
        (
            self.memory.read_obj(GuestAddress(STATUS)).unwrap(),
            outcome.written,
        )
    }

    fn ranges(&mut self, kind: u32, ranges: &[(u64, u32, u32)]) -> u8 {
        for (index, (sector, count, flags)) in (0..).zip(ranges) {
            let at = DATA + index * 16;
            self.memory.write_obj(*sector, GuestAddress(at)).unwrap();
            self.memory
                .write_obj([*count, *flags], GuestAddress(at + 8))
                .unwrap();
        }
        self.request(kind, 0, &[readable(DATA, ranges.len() as u32 * 16)])
            .0
    }

    fn guest_bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    fn content(&self) -> Vec<u8> {
        fs::read(self.file.path()).unwrap()
    }
}

fn numbered_sectors(count: u64) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    for sector in 0..count {
        file.write_all(&[sector as u8; 512]).unwrap();
    }
    file.flush().unwrap();
    file
}

fn put_header(memory: &GuestMemoryMmap, at: u64, kind: u32, sector: u64) {
    memory.write_obj([kind, 0], GuestAddress(at)).unwrap();
    memory.write_obj(sector, GuestAddress(at + 8)).unwrap();
}
