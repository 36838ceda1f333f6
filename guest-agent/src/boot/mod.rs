//! From the kernel's hands to a machine with a root file system.
//!
//! The kernel starts the agent as `/init` of an initramfs that holds nothing but it and the modules it
//! needs. From there: the kernel's own file systems, the modules, the disks, and a root made of the
//! read-only image below and the scratch disk above it.

mod loopback;
mod modules;
mod mounts;
mod root;

use std::fs;

use rustix::process::{Resource, Rlimit, setrlimit};

pub use loopback::bring_up as bring_up_loopback;
pub use modules::load_all as load_modules;
pub use root::{Root, enter as enter_root};

use crate::{Error, log};

/// Descriptors of the agent: a thousand operations of some eight each, with room to spare.
const OPEN_FILES: u64 = 65_536;

/// What a command may raise its own limit to; see `exec`.
const OPEN_FILES_MAX: u64 = 524_288;

pub fn mount_kernel_filesystems() -> Result<(), Error> {
    mounts::mount_all(mounts::KERNEL)?;
    log::use_kernel_log();
    Ok(())
}

/// The agent goes last when memory runs out: without it nobody learns what happened.
pub fn protect_this_process() {
    if let Err(error) = fs::write("/proc/self/oom_score_adj", "-1000") {
        log::warn(format_args!(
            "cannot protect the agent from memory pressure: {error}"
        ));
    }
    let open_files = Rlimit {
        current: Some(OPEN_FILES),
        maximum: Some(OPEN_FILES_MAX),
    };
    if let Err(error) = setrlimit(Resource::Nofile, open_files) {
        log::warn(format_args!("cannot raise the limit on open files: {error}"));
    }
}
