//! Going down in order: processes asked, then killed; disks made whole; the machine reset.
//!
//! A reset is how it ends, and the VMM sees it as the end: unlike switching off it needs no ACPI in the kernel.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::sync,
    mount::{MountFlags, mount_remount},
    system::{RebootCommand, reboot},
};

use crate::reap;

/// What killed processes get to be gone. One stuck in the kernel longer than this stays behind.
const AFTER_KILL: Duration = Duration::from_secs(2);

pub(crate) fn end_all_processes(grace: Duration) {
    reap::signal_everyone(libc::SIGTERM);
    reap::signal_everyone(libc::SIGCONT);
    if !reap::wait_childless(Instant::now() + grace) {
        reap::signal_everyone(libc::SIGKILL);
        reap::wait_childless(Instant::now() + AFTER_KILL);
    }
}

/// The scratch disk is left clean when nothing holds it, and with all data on it in any case: `sync`
/// has committed its journal, which the next mount replays.
pub(crate) fn settle_disks(scratch: Option<&OwnedFd>) {
    sync();
    let _ = mount_remount(Path::new("/"), MountFlags::RDONLY, "");
    if let Some(scratch) = scratch {
        let path = format!("/proc/self/fd/{}", scratch.as_raw_fd());
        let _ = mount_remount(path, MountFlags::RDONLY, "");
    }
}

/// Resets the machine. Only PID 1 of a machine of its own calls this.
pub fn restart() -> ! {
    sync();
    let _ = reboot(RebootCommand::Restart);
    // Not reached: PID 1 may reboot. Exiting instead would be a kernel panic with a misleading text.
    loop {
        thread::park();
    }
}
