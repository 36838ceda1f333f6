//! Virtio: queues, the PCI transport, and one thin adapter per device.
//!
//! A device implements [`Device`]. Its transport negotiates features, freezes the queues when the driver
//! says DRIVER_OK, and hands them over in an [`Activation`]; the device then serves them on a thread of its
//! own, or on those that ring ([`Ring`]). Everything read through a queue is hostile: [`DeviceQueue::pop`] copies a chain's descriptors
//! once, checks them once, and what it returns points into guest RAM and nowhere else.

pub mod balloon;
pub mod block;
mod chain;
mod config_space;
mod device;
mod doorbell;
pub mod fs;
mod iovec;
pub mod net;
pub mod pci;
mod queue;
mod rate_limit;
pub mod rng;
mod stock;
mod turn;
pub mod vsock;
mod worker;

pub use chain::{Chain, ChainError, Segment};
pub use device::{ActivateError, Activation, Device, DeviceKind, FailureSink, Interrupt, Ring};
pub use doorbell::Doorbell;
pub use queue::{DeviceQueue, QueueError};
pub use rate_limit::RateLimit;
pub use worker::{Poll, Readiness, Worker, WorkerError, WorkerThread};

#[cfg(test)]
mod testing;
