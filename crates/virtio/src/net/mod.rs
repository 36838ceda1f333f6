//! virtio-net: the guest's cable.
//!
//! What is at its other end is a [`Network`]; here frames are moved between it and the queues, one copy each way.
//! Checksums and segments are left undone on both sides where the driver agrees: the frames never leave the
//! machine, so nobody would look at them.

mod frame;
mod rx;
mod tx;
mod worker;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use user_net::{Network, addresses};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS, VIRTIO_NET_S_LINK_UP,
};

use self::worker::NetWorker;
use crate::{ActivateError, Activation, Device, DeviceKind, DeviceQueue, WorkerThread, config_space};

/// A Linux guest fills the queue with buffers of 1.5 KiB, and of 4 KiB once it has seen large frames: 0.75 to
/// 2 MiB, while a flow has at most 1 MiB under way. With half of that, one flow would wait for the guest now and
/// then; with twice of it, the guest would give up 4 MiB for good.
const RX_QUEUE_SIZE: u16 = 512;
/// A frame of 64 KiB is one descriptor with indirect ones and up to 19 without, so this is 13 of them at the least:
/// most of what a flow has under way.
const TX_QUEUE_SIZE: u16 = 256;

const FEATURES: u64 = (1 << VIRTIO_NET_F_MAC)
    | (1 << VIRTIO_NET_F_MTU)
    | (1 << VIRTIO_NET_F_STATUS)
    | (1 << VIRTIO_NET_F_MRG_RXBUF)
    | (1 << VIRTIO_NET_F_CSUM)
    | (1 << VIRTIO_NET_F_GUEST_CSUM)
    | (1 << VIRTIO_NET_F_HOST_TSO4)
    | (1 << VIRTIO_NET_F_HOST_TSO6);

/// The network card of a machine.
#[derive(Debug)]
pub struct Net {
    cable: Cable,
    thread: Option<WorkerThread>,
}

impl Net {
    pub fn new(network: Box<dyn Network>) -> Self {
        Net {
            cable: Cable(Arc::new(Mutex::new(network))),
            thread: None,
        }
    }
}

impl Device for Net {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Net
    }

    fn features(&self) -> u64 {
        FEATURES
    }

    fn queue_sizes(&self) -> &[u16] {
        &[RX_QUEUE_SIZE, TX_QUEUE_SIZE]
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        config_space::read(&configuration(), offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let [rx, tx] = <[DeviceQueue; 2]>::try_from(activation.queues).map_err(|queues| {
            ActivateError::MissingQueues {
                found: queues.len(),
                expected: 2,
            }
        })?;
        let worker = NetWorker::new(self.cable.clone(), rx, tx, activation.features);
        let thread =
            WorkerThread::spawn("virtio-net", worker, activation.failures).map_err(ActivateError::Thread)?;
        self.thread = Some(thread);
        Ok(())
    }

    fn reset(&mut self) {
        self.thread = None;
    }
}

/// As `struct virtio_net_config` lays it out, up to the MTU: address, status, pairs of queues, MTU.
fn configuration() -> [u8; 12] {
    let mut config = [0; 12];
    let fields = addresses::GUEST_MAC
        .into_iter()
        .chain((VIRTIO_NET_S_LINK_UP as u16).to_le_bytes())
        .chain(1u16.to_le_bytes())
        .chain(addresses::MTU.to_le_bytes());
    for (byte, field) in config.iter_mut().zip(fields) {
        *byte = field;
    }
    config
}

/// The network, which outlives every driver. Only the worker of the moment takes it, so nobody ever waits for it.
#[derive(Clone)]
struct Cable(Arc<Mutex<Box<dyn Network>>>);

impl Cable {
    fn hold(&self) -> MutexGuard<'_, Box<dyn Network>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Cable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cable").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
