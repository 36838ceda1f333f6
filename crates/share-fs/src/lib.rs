//! A folder of the host as a file system that a guest cannot leave.
//!
//! [`HostFs`] serves one folder behind a descriptor that was opened before the guest ran. Names are looked up one
//! component at a time, relative to a directory that is held open, never through a symbolic link, never through a
//! mount, never upwards. What is found is remembered by what it is (device, inode, birth), so a name that means
//! something else later is noticed. [`Guarded`] puts the policy in front of it, and [`Exports`] puts many of them
//! into one device.
#![forbid(unsafe_code)]

mod config;
mod events;
mod exports;
mod guarded;
mod host;
mod janitor;

pub use config::{Cache, Limits, ShareConfig};
pub use exports::{AddError, Exports, ShareInfo};
pub use guarded::Guarded;
pub use host::{HostFs, OpenError, Shared};
