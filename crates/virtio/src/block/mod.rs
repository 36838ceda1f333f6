//! virtio-blk: a read-only image, or a sparse scratch disk that gives discarded space back.
//!
//! One queue and one thread that reads and writes the file straight from and to guest memory. Whatever
//! fails, in the guest's request or in the host's file, fails that request and nothing else.

mod disk;
mod request;
mod worker;

use std::{path::Path, sync::Arc};

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX,
    VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_ID_BYTES,
};

use self::{
    disk::{Disk, SECTOR},
    request::{
        MAX_DISCARD_RANGES, MAX_DISCARD_SECTORS, MAX_SEGMENT_BYTES, MAX_SEGMENTS, MAX_ZERO_RANGES,
        MAX_ZERO_SECTORS,
    },
    worker::BlockWorker,
};
use crate::{ActivateError, Activation, Device, DeviceKind, DeviceQueue, WorkerThread, config_space};

pub use self::disk::{DiskMode, OpenDiskError};

/// What Linux uses elsewhere too; more only helps a disk that is served in parallel.
const QUEUE_SIZE: u16 = 256;
/// log2 of the sectors in a block of the host's page cache: smaller writes are read first.
const PHYSICAL_BLOCK_EXPONENT: u8 = 3;
const PHYSICAL_BLOCK_SECTORS: u16 = 1 << PHYSICAL_BLOCK_EXPONENT;
/// The fields of the configuration up to the last one offered.
const CONFIG_BYTES: usize = 60;

/// A disk of the machine.
#[derive(Debug)]
pub struct Block {
    disk: Arc<Disk>,
    id: [u8; VIRTIO_BLK_ID_BYTES as usize],
    config: [u8; CONFIG_BYTES],
    thread: Option<WorkerThread>,
}

impl Block {
    /// Opens and locks the file at `path`; `id` is what the guest finds as the disk's serial number.
    pub fn open(path: &Path, mode: DiskMode, id: &str) -> Result<Self, OpenDiskError> {
        let id = padded_id(id)?;
        let disk = Disk::open(path, mode)?;
        Ok(Block {
            config: config(&disk),
            disk: Arc::new(disk),
            id,
            thread: None,
        })
    }

    /// The size of the disk in bytes.
    pub fn capacity(&self) -> u64 {
        self.disk.sectors() * SECTOR
    }
}

impl Device for Block {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Block
    }

    fn features(&self) -> u64 {
        let mut bits = vec![
            VIRTIO_BLK_F_SIZE_MAX,
            VIRTIO_BLK_F_SEG_MAX,
            VIRTIO_BLK_F_BLK_SIZE,
            VIRTIO_BLK_F_TOPOLOGY,
            VIRTIO_BLK_F_FLUSH,
        ];
        if self.disk.is_read_only() {
            bits.push(VIRTIO_BLK_F_RO);
        } else {
            bits.extend([VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES]);
        }
        bits.into_iter().fold(0, |features, bit| features | 1 << bit)
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        config_space::read(&self.config, offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let [queue] = <[DeviceQueue; 1]>::try_from(activation.queues).map_err(|queues| {
            ActivateError::MissingQueues {
                found: queues.len(),
                expected: 1,
            }
        })?;
        let write_through = activation.features & 1 << VIRTIO_BLK_F_FLUSH == 0;
        let worker = BlockWorker::new(queue, Arc::clone(&self.disk), self.id, write_through);
        let thread =
            WorkerThread::spawn("virtio-blk", worker, activation.failures).map_err(ActivateError::Thread)?;
        self.thread = Some(thread);
        Ok(())
    }

    fn reset(&mut self) {
        self.thread = None;
    }
}

fn padded_id(id: &str) -> Result<[u8; VIRTIO_BLK_ID_BYTES as usize], OpenDiskError> {
    let mut padded = [0; VIRTIO_BLK_ID_BYTES as usize];
    let fits = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic());
    match padded.get_mut(..id.len()) {
        Some(start) if fits => {
            start.copy_from_slice(id.as_bytes());
            Ok(padded)
        }
        _ => Err(OpenDiskError::Id { id: id.into() }),
    }
}

/// `struct virtio_blk_config` as of virtio 1.2, section 5.2.4.
fn config(disk: &Disk) -> [u8; CONFIG_BYTES] {
    let mut config = [0; CONFIG_BYTES];
    let mut put = |offset: usize, bytes: &[u8]| {
        for (index, byte) in bytes.iter().enumerate() {
            if let Some(target) = config.get_mut(offset + index) {
                *target = *byte;
            }
        }
    };
    put(0, &disk.sectors().to_le_bytes());
    put(8, &MAX_SEGMENT_BYTES.to_le_bytes());
    put(12, &MAX_SEGMENTS.to_le_bytes());
    put(20, &(SECTOR as u32).to_le_bytes());
    put(24, &[PHYSICAL_BLOCK_EXPONENT]);
    put(26, &PHYSICAL_BLOCK_SECTORS.to_le_bytes());
    if !disk.is_read_only() {
        put(36, &MAX_DISCARD_SECTORS.to_le_bytes());
        put(40, &MAX_DISCARD_RANGES.to_le_bytes());
        put(44, &u32::from(PHYSICAL_BLOCK_SECTORS).to_le_bytes());
        put(48, &MAX_ZERO_SECTORS.to_le_bytes());
        put(52, &MAX_ZERO_RANGES.to_le_bytes());
        put(56, &[1]);
    }
    config
}

#[cfg(test)]
mod tests;
