//! What a device is to its transport, and what it is given when the driver is ready.

use std::{fmt, io, sync::Arc};

use vm_memory::GuestMemoryMmap;

use crate::DeviceQueue;

/// A virtio device, without its transport. Called from the thread of whichever vCPU touches a register,
/// under the transport's lock; work belongs on the device's own thread, or into its [`Ring`].
pub trait Device: Send {
    fn kind(&self) -> DeviceKind;

    /// Feature bits of this device type. The transport adds those that belong to it and to the rings.
    fn features(&self) -> u64;

    /// The largest size of each queue, a power of two. Their number is the number of queues.
    fn queue_sizes(&self) -> &[u16];

    /// Fills `data` from the device configuration; what lies outside it reads as zero.
    fn read_config(&self, offset: usize, data: &mut [u8]);

    /// Writes to the device configuration; most devices have nothing to write.
    fn write_config(&mut self, _offset: usize, _data: &[u8]) {}

    /// For a device that answers its doorbells on the thread that rings them, and has no other use for them.
    /// Asked once.
    fn ring(&self) -> Option<Arc<dyn Ring>> {
        None
    }

    /// The driver is ready: start serving. Called once between resets.
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError>;

    /// Stop serving and forget the queues. When this returns, no thread of the device touches guest memory,
    /// and no thread that rings does so for the device.
    fn reset(&mut self);
}

/// A device's doorbells, for one that answers them at once: the driver's write comes here, on the thread of
/// the vCPU that wrote.
pub trait Ring: Send + Sync {
    /// The driver rang for the queue of this number, if there is one of this number. Called by any number of
    /// threads at once and at any time, before activation, during a reset and after it; under no lock of the
    /// transport.
    fn rung(&self, queue: usize);
}

/// Device types by their virtio number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    Net,
    Block,
    Rng,
    Balloon,
    Vsock,
    Fs,
}

impl DeviceKind {
    pub fn virtio_id(self) -> u16 {
        match self {
            DeviceKind::Net => 1,
            DeviceKind::Block => 2,
            DeviceKind::Rng => 4,
            DeviceKind::Balloon => 5,
            DeviceKind::Vsock => 19,
            DeviceKind::Fs => 26,
        }
    }
}

/// Tells the guest something happened. Cheap, from any thread.
pub trait Interrupt: Send + Sync + fmt::Debug {
    fn signal(&self);
}

/// Where a device's thread reports that it ended for a reason that is ours, not the guest's.
pub trait FailureSink: Send + Sync + fmt::Debug {
    fn device_failed(&self, device: &str, reason: &str);
}

/// All a device needs to serve its driver. The queues are final: no register changes them until a reset.
#[derive(Debug)]
pub struct Activation {
    pub memory: Arc<GuestMemoryMmap>,
    /// The device's own feature bits, as the driver accepted them.
    pub features: u64,
    /// From the first one on, without gaps; not all there are, if the driver needs fewer.
    pub queues: Vec<DeviceQueue>,
    /// Tells the driver that the device configuration changed.
    pub config_changed: Arc<dyn Interrupt>,
    pub failures: Arc<dyn FailureSink>,
}

#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    #[error("driver set up {found} of {expected} queues")]
    MissingQueues { found: usize, expected: usize },
    #[error("cannot start the device's thread")]
    Thread(#[source] io::Error),
}
