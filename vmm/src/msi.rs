//! Message interrupts, handed to KVM one by one.
//!
//! One ioctl delivers a message at the cost of writing an eventfd, and unlike an irqfd needs no route: the
//! driver reprograms vectors as it likes and no table is rebuilt. The irqfd is kept for the one interrupt that
//! is a line, the serial port's.

use std::sync::Arc;

use kvm_bindings::kvm_msi;
use kvm_ioctls::VmFd;
use virtio::pci::{MsiMessage, MsiSink};

#[derive(Debug)]
pub(crate) struct KvmMsi(pub(crate) Arc<VmFd>);

impl MsiSink for KvmMsi {
    /// A message no CPU listens to is the guest's own doing and goes nowhere.
    fn send(&self, message: MsiMessage) {
        let [low, high] = [message.address as u32, (message.address >> 32) as u32];
        let _ = self.0.signal_msi(kvm_msi {
            address_lo: low,
            address_hi: high,
            data: message.data,
            ..Default::default()
        });
    }
}
