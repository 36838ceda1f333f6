//! Virtio over PCI, modern interface only: one memory BAR, MSI-X, no interrupt pin.
//!
//! ```text
//! config space ─ capabilities ─▶ BAR 0   0x0000 common configuration   0x3000 doorbells, 4 bytes a queue
//!                                        0x1000 ISR                    0x4000 MSI-X table
//!                                        0x2000 device configuration   0x5000 MSI-X pending bits
//! ```
//!
//! The BAR stays where the VMM put it: a driver may size it and write it, and moves nothing by that.

mod common;
mod config_space;
mod msix;
mod transport;

pub use msix::{MsiMessage, MsiSink};
pub use transport::{BAR_BYTES, Doorbell, PciDevice};

#[cfg(test)]
mod tests;
