//! virtio-fs: folders of the host, answered on the thread of the virtual CPU that asks.
//!
//! A guest that opens a file waits for the answer, and most answers take the host some microseconds. A thread of
//! the device's own would have to be woken for each, the guest's CPU to be put to sleep and woken again: more than
//! the answer costs. So this device has no doorbell to wait at ([`crate::Ring`]): the driver's write leads straight
//! here, and the interrupt is pending when the guest goes on. What may take long, and everything while the host's
//! disk is slow, is left to [`worker`]s; [`pace`] decides. docs/decisions/0009 tells more.

mod pace;
mod request;
mod service;
mod waits;
mod worker;

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use fuse::{FileSystem, Server};

use self::{
    service::{Place, Service},
    worker::Workers,
};
use crate::{ActivateError, Activation, Device, DeviceKind, Ring, config_space};

/// Where the guest finds the device: what it mounts.
const TAG: &[u8] = b"cofferdam";
const TAG_BYTES: usize = 36;
const CONFIG_BYTES: usize = TAG_BYTES + 4;

/// FORGETs, which nobody waits for.
const HIPRIO_QUEUE_SIZE: u16 = 256;
/// Linux makes no request longer than its queue, less four for headers: 1024 lets it send whatever its own limit
/// on pages, 256 unless raised, and a chain's limit here allow.
const REQUEST_QUEUE_SIZE: u16 = 1024;
/// Linux has a queue for each virtual CPU if there are as many; beyond this, CPUs share.
pub const MAX_REQUEST_QUEUES: u16 = 8;

/// The folders of a machine.
pub struct Fs<F: FileSystem + 'static> {
    server: Arc<Server<F>>,
    sizes: Vec<u16>,
    config: [u8; CONFIG_BYTES],
    door: Arc<Door<F>>,
}

impl<F: FileSystem + 'static> Fs<F> {
    /// `request_queues`: as many as virtual CPUs, as a rule; 1 to [`MAX_REQUEST_QUEUES`] are had.
    pub fn new(file_system: Arc<F>, request_queues: u16) -> Self {
        let request_queues = request_queues.clamp(1, MAX_REQUEST_QUEUES);
        let mut sizes = vec![HIPRIO_QUEUE_SIZE];
        sizes.resize(1 + usize::from(request_queues), REQUEST_QUEUE_SIZE);
        Fs {
            server: Arc::new(Server::sharing(file_system)),
            sizes,
            config: config(request_queues),
            door: Arc::new(Door(RwLock::new(None))),
        }
    }
}

impl<F: FileSystem + 'static> Device for Fs<F> {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Fs
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.sizes
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        config_space::read(&self.config, offset, data);
    }

    fn ring(&self) -> Option<Arc<dyn Ring>> {
        Some(Arc::clone(&self.door) as Arc<dyn Ring>)
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        // FORGETs and at least one queue for everything else.
        if activation.queues.len() < 2 {
            return Err(ActivateError::MissingQueues {
                found: activation.queues.len(),
                expected: 2,
            });
        }
        let server = Arc::clone(&self.server);
        let service = Arc::new(Service::new(server, activation.memory, activation.queues));
        let workers = Workers::start(&service).map_err(ActivateError::Thread)?;
        self.door.set(Some(Open {
            service,
            _workers: workers,
        }));
        Ok(())
    }

    fn reset(&mut self) {
        self.door.set(None);
    }
}

impl<F: FileSystem + 'static> fmt::Debug for Fs<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fs")
            .field("sizes", &self.sizes)
            .finish_non_exhaustive()
    }
}

/// Lets threads that ring in while the device runs.
struct Door<F: FileSystem + 'static>(RwLock<Option<Open<F>>>);

struct Open<F: FileSystem + 'static> {
    service: Arc<Service<F>>,
    _workers: Workers<F>,
}

impl<F: FileSystem + 'static> Door<F> {
    /// Waits until nobody is inside. The workers of before have ended when this returns.
    fn set(&self, open: Option<Open<F>>) {
        let mut inside = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *inside = open;
    }
}

impl<F: FileSystem + 'static> Ring for Door<F> {
    /// Never waits for [`Self::set`]: during an activation or a reset no doorbell means anything.
    fn rung(&self, queue: usize) {
        if let Ok(inside) = self.0.try_read()
            && let Some(open) = &*inside
        {
            open.service.visit(queue, Place::Vcpu);
        }
    }
}

/// `struct virtio_fs_config` as of virtio 1.2, section 5.11.4.
fn config(request_queues: u16) -> [u8; CONFIG_BYTES] {
    let mut config = [0; CONFIG_BYTES];
    let number = u32::from(request_queues).to_le_bytes();
    let padding = [0; TAG_BYTES - TAG.len()];
    let fields = TAG.iter().chain(&padding).chain(&number);
    config
        .iter_mut()
        .zip(fields)
        .for_each(|(byte, field)| *byte = *field);
    config
}

#[cfg(test)]
mod tests;
