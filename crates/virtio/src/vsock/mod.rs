//! virtio-vsock: the guest's only line to the host's processes.
//!
//! The connections themselves live in the `vsock-mux` crate; here packets are moved between it and the
//! queues. Payload goes straight between guest memory and the host's sockets: several packets of one
//! connection in one system call, headers put around them afterwards.

mod rx;
mod tx;
mod worker;

use std::{path::PathBuf, sync::Arc};

use vsock_mux::{Mux, Routes};

pub use vsock_mux::ConfigError;

use self::worker::{Queues, VsockWorker};
use crate::{ActivateError, Activation, Device, DeviceKind, DeviceQueue, WorkerThread, config_space};

/// A Linux guest fills the queue with buffers of 4 KiB each, 2 MiB in all: what two connections can have
/// under way to it.
const RX_QUEUE_SIZE: u16 = 512;
/// Packets of up to 64 KiB, of which credit lets a connection have four under way.
const TX_QUEUE_SIZE: u16 = 256;
/// Events tell of a migration, which does not happen while the machine runs.
const EVENT_QUEUE_SIZE: u16 = 16;

/// Who the guest is and where its connections lead: to port `P`, which must be one of `ports`, leads to the
/// AF_UNIX socket named `socket`, an underscore, and `P`.
#[derive(Clone, Debug)]
pub struct VsockConfig {
    pub guest_cid: u32,
    pub socket: PathBuf,
    pub ports: Vec<u32>,
}

/// The vsock device of a machine.
#[derive(Debug)]
pub struct Vsock {
    routes: Arc<Routes>,
    thread: Option<WorkerThread>,
}

impl Vsock {
    pub fn new(config: &VsockConfig) -> Result<Self, ConfigError> {
        let routes = Routes::new(config.guest_cid, &config.socket, &config.ports)?;
        Ok(Vsock {
            routes: Arc::new(routes),
            thread: None,
        })
    }
}

impl Device for Vsock {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Vsock
    }

    /// None: without any, stream sockets are what a driver gets.
    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[RX_QUEUE_SIZE, TX_QUEUE_SIZE, EVENT_QUEUE_SIZE]
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        config_space::read(&self.routes.guest_cid().to_le_bytes(), offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let [rx, tx, event] = <[DeviceQueue; 3]>::try_from(activation.queues).map_err(|queues| {
            ActivateError::MissingQueues {
                found: queues.len(),
                expected: 3,
            }
        })?;
        let mux = Mux::new(Arc::clone(&self.routes));
        let thread = VsockWorker::new(mux, Queues { rx, tx, event }, activation.memory)
            .and_then(|worker| WorkerThread::spawn("virtio-vsock", worker, activation.failures))
            .map_err(ActivateError::Thread)?;
        self.thread = Some(thread);
        Ok(())
    }

    fn reset(&mut self) {
        self.thread = None;
    }
}

#[cfg(test)]
mod tests;
