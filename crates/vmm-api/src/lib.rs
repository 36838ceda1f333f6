//! What the host bridge tells a machine, and what it hears back.
//!
//! A [`MachineConfig`] arrives as one line of JSON on the VMM's standard input; parsing it is validating it.
//! The VMM answers on standard output with one [`Event`] a line. While it runs, its control socket takes one
//! [`Request`] a line and gives one [`Response`] a line. Standard input stays open as the owner's lifeline:
//! when it closes, the owner is gone and the machine ends.
#![forbid(unsafe_code)]

mod config;
mod control;
mod share;

pub use config::{
    CONFIG_VERSION, ConfigError, Console, Disk, DiskMode, GuestCid, MAX_DISKS, MAX_MEMORY_MIB, MAX_VCPUS,
    MIN_MEMORY_MIB, MachineConfig, MemoryMib, Vcpus, Vsock,
};
pub use control::{Event, ExitReason, MachineState, Request, Response, Statistics};
pub use share::{
    MAX_PATTERN, MAX_PATTERNS, MAX_SHARE_NAME, MAX_SHARES, Share, ShareCache, ShareCounts, ShareLimits,
    ShareMode, ShareName, ShareNameError, ShareStatus,
};

/// The longest control line: a folder with two full lists of long patterns, or the state of every folder.
pub const MAX_LINE: usize = 512 * 1024;
