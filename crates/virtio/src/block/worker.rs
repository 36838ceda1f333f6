//! The disk's thread.

use std::sync::Arc;

use virtio_bindings::virtio_blk::VIRTIO_BLK_ID_BYTES;

use super::{
    disk::Disk,
    request::{RequestError, Target, serve},
};
use crate::{
    Chain, DeviceQueue, Poll, QueueError, Readiness, Worker, WorkerError,
    rate_limit::warn_limited,
    turn::{Turn, take_turn},
};

const KICK: u64 = 0;

#[derive(Debug)]
pub(super) struct BlockWorker {
    queue: DeviceQueue,
    chain: Chain,
    disk: Arc<Disk>,
    id: [u8; VIRTIO_BLK_ID_BYTES as usize],
    write_through: bool,
}

impl BlockWorker {
    pub(super) fn new(
        queue: DeviceQueue,
        disk: Arc<Disk>,
        id: [u8; VIRTIO_BLK_ID_BYTES as usize],
        write_through: bool,
    ) -> Self {
        BlockWorker {
            queue,
            chain: Chain::default(),
            disk,
            id,
            write_through,
        }
    }

    pub(super) fn turn(&mut self) -> Result<Turn, QueueError> {
        let target = Target {
            disk: &self.disk,
            id: &self.id,
            write_through: self.write_through,
        };
        take_turn(&mut self.queue, &mut self.chain, |memory, chain| {
            let outcome = serve(&target, memory, chain);
            if let Some(error) = &outcome.error {
                tell(error);
            }
            Some(outcome.written)
        })
    }
}

impl Worker for BlockWorker {
    fn start(&mut self, poll: &Poll) -> Result<(), WorkerError> {
        poll.add(self.queue.kick(), KICK, true, false)
    }

    fn ready(&mut self, _poll: &Poll, _token: u64, _readiness: Readiness) -> Result<(), WorkerError> {
        self.turn()?;
        Ok(())
    }
}

/// A full or broken host disk fails the guest's request, not its machine; the owner has to hear of it.
fn tell(error: &RequestError) {
    match error {
        RequestError::Host(source) => {
            warn_limited!(error = %source, "host file of a disk failed a request");
        }
        RequestError::Unsupported(_) => {}
        error => warn_limited!(%error, "disk request failed"),
    }
}
