//! Going down in order: processes asked, then killed; disks made whole; the machine reset.
//!
//! A reset is how it ends, and the VMM sees it as the end: unlike switching off it needs no ACPI in the kernel.

use std::{
    collections::BTreeMap,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{sync, syncfs},
    mount::{MountFlags, UnmountFlags, mount_remount, unmount},
    system::{RebootCommand, reboot},
};

use crate::{
    folders::{
        mountinfo::{self, MountPoint},
        side_door::SideDoor,
    },
    log, reap,
};

/// What killed processes get to be gone. One stuck in the kernel longer than this stays behind.
const AFTER_KILL: Duration = Duration::from_secs(2);

/// What the host gets to take what was written to its folders. It answers in milliseconds, or not at all.
const FOLDERS: Duration = Duration::from_secs(5);

/// What the last look at all disks gets. They are whole by then, unless the machine never came up.
const LAST_SYNC: Duration = Duration::from_secs(2);

/// Threads that wait for one system call.
const STACK: usize = 64 * 1024;

pub(crate) fn end_all_processes(grace: Duration) {
    reap::signal_everyone(libc::SIGTERM);
    reap::signal_everyone(libc::SIGCONT);
    if !reap::wait_childless(Instant::now() + grace) {
        reap::signal_everyone(libc::SIGKILL);
        reap::wait_childless(Instant::now() + AFTER_KILL);
    }
}

/// Hands the host what was written to its folders, all at once, and takes them out of the machine. `false`
/// when one does not answer: whatever waits for all file systems would then wait for ever.
pub(crate) fn settle_folders() -> bool {
    let mut mounts = mountinfo::all();
    mounts.retain(|mount| mount.kind == b"virtiofs");
    let settled = settle(mounts, FOLDERS);
    if !settled {
        log::warn("a folder of the host does not answer: going down without it");
    }
    settled
}

fn settle(mounts: Vec<MountPoint>, limit: Duration) -> bool {
    let mut folders: BTreeMap<_, Vec<PathBuf>> = BTreeMap::new();
    for mount in mounts {
        folders.entry(mount.device).or_default().push(mount.at);
    }
    let waiting: Vec<_> = folders
        .into_values()
        .map(|places| start(move || settle_folder(&places)))
        .collect();
    let deadline = Instant::now() + limit;
    waiting.iter().all(|done| is_done_by(done, deadline))
}

fn settle_folder(places: &[PathBuf]) {
    if let Some(place) = places.first()
        && let Ok(door) = SideDoor::open(place)
    {
        let _ = syncfs(door.root());
    }
    for place in places {
        let _ = unmount(place, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH);
    }
}

/// What the session has mounted itself.
pub(crate) fn settle_others() {
    sync();
}

/// Does `work` on a thread that is left behind when it takes longer. Whether it was done.
pub(crate) fn within(limit: Duration, work: impl FnOnce() + Send + 'static) -> bool {
    is_done_by(&start(work), Instant::now() + limit)
}

/// Without a thread the work is never done.
fn start(work: impl FnOnce() + Send + 'static) -> mpsc::Receiver<()> {
    let (sender, done) = mpsc::sync_channel(1);
    let thread = thread::Builder::new().name("settle".into()).stack_size(STACK);
    let started = thread.spawn(move || {
        work();
        let _ = sender.send(());
    });
    if let Err(error) = started {
        log::warn(format_args!("cannot start a thread: {error}"));
    }
    done
}

fn is_done_by(done: &mpsc::Receiver<()>, deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now());
    done.recv_timeout(left).is_ok()
}

/// The scratch disk is left clean when nothing holds it, and with all data on it in any case: `syncfs`
/// has committed its journal, which the next mount replays.
pub(crate) fn settle_disks(scratch: Option<&OwnedFd>) {
    if let Some(scratch) = scratch {
        let _ = syncfs(scratch);
    }
    let _ = mount_remount(Path::new("/"), MountFlags::RDONLY, "");
    if let Some(scratch) = scratch {
        let path = format!("/proc/self/fd/{}", scratch.as_raw_fd());
        let _ = mount_remount(path, MountFlags::RDONLY, "");
    }
}

/// Resets the machine. Only PID 1 of a machine of its own calls this.
pub fn restart() -> ! {
    within(LAST_SYNC, sync);
    let _ = reboot(RebootCommand::Restart);
    // Not reached: PID 1 may reboot. Exiting instead would be a kernel panic with a misleading text.
    loop {
        thread::park();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;
    use crate::testing::{mount_dead_share, mount_tmpfs, private_mounts};

    #[test]
    fn work_that_never_ends_is_left_behind() {
        let (keep, never) = mpsc::channel::<()>();
        let stuck = move || {
            let _ = never.recv();
        };
        assert!(!within(Duration::from_millis(20), stuck));
        assert!(within(Duration::from_secs(20), || {}));
        drop(keep);
    }

    #[test]
    fn folders_are_taken_out_and_one_that_does_not_answer_holds_up_neither_them_nor_the_end() {
        if !private_mounts() {
            return;
        }
        let mnt = tempfile::tempdir().unwrap();
        let path = |name: &str| mnt.path().join(name);
        for name in ["dead", "docs", "pics"] {
            fs::create_dir(path(name)).unwrap();
        }
        let _silent = mount_dead_share(&path("dead"));
        mount_tmpfs(&path("docs"));
        mount_tmpfs(&path("pics"));
        let _in_use = File::create(path("docs/file")).unwrap();

        assert!(!settle(mountinfo::below(mnt.path()), Duration::from_millis(500)));
        let deadline = Instant::now() + Duration::from_secs(20);
        while mountinfo::below(mnt.path()).len() > 1 {
            assert!(Instant::now() < deadline, "the others are held up");
            thread::yield_now();
        }
        assert!(mountinfo::at(&path("dead")).is_some());
        assert!(settle(Vec::new(), Duration::ZERO));
    }

    #[test]
    fn a_folder_that_answers_is_settled() {
        if !private_mounts() {
            return;
        }
        let mnt = tempfile::tempdir().unwrap();
        mount_tmpfs(mnt.path());
        let mounts = vec![mountinfo::at(mnt.path()).unwrap()];
        assert!(settle(mounts, Duration::from_secs(20)));
        assert_eq!(mountinfo::at(mnt.path()), None);
    }
}
