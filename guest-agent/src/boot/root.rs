//! The root file system: the image, read-only, under a scratch disk that takes every change.
//!
//! ```text
//! /dev/vda  erofs ──▶ /mnt/lower ───┐
//! /dev/vdb  ext4  ──▶ /mnt/scratch ─┴─ overlay ──▶ /mnt/root ── moved to / ; /proc /sys /dev come along
//! ```
//! Without a scratch disk changes go to memory; without any disk the initramfs stays the root, which is
//! enough to try a kernel.

use std::{
    ffi::CStr,
    fs,
    os::fd::OwnedFd,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    mount::{MountFlags, mount, mount_move},
    process::{chdir, chroot},
};

use super::mounts;
use crate::{Error, log};

/// A disk whose driver is loaded has its node within milliseconds; one that is broken never will.
const DISK_DEADLINE: Duration = Duration::from_secs(10);
const DISK_STEP: Duration = Duration::from_millis(1);

/// How virtio names a block device in `/sys/bus/virtio/devices/*/device`.
const VIRTIO_BLOCK: &str = "0x0002";

const IMAGE: &str = "/dev/vda";
const SCRATCH: &str = "/dev/vdb";

/// Freed blocks go back to the host. Inode tables need no zeroing: a fresh sparse file reads as zeros,
/// and writing them would fill it.
const SCRATCH_OPTIONS: &CStr = c"discard,noinit_itable";

/// Directories of the image can be renamed like any other, which package managers count on. Inode numbers
/// say which layer they are of, so that what lists a directory and what looks at an entry say the same.
const OVERLAY_OPTIONS: &CStr =
    c"lowerdir=/mnt/lower,upperdir=/mnt/scratch/upper,workdir=/mnt/scratch/work,redirect_dir=on,xino=on";

/// `/tmp`, where everybody may write.
const SHARED_MODE: u32 = 0o1777;

#[derive(Debug)]
pub struct Root {
    /// The root directory of the scratch disk, which no path leads to any more.
    pub scratch: Option<OwnedFd>,
}

pub fn enter() -> Result<Root, Error> {
    let disks = count_disks();
    let scratch = match disks {
        0 => None,
        1 => build(None)?,
        _ => build(Some(SCRATCH))?,
    };
    mounts::mount_all(mounts::SYSTEM)?;
    mounts::mount_optional();
    mounts::make_directory(Path::new("/tmp"))?;
    set_shared(Path::new("/tmp"));
    Ok(Root { scratch })
}

/// Devices, not their nodes: those of a disk that is there may still be on their way.
fn count_disks() -> usize {
    let Ok(devices) = fs::read_dir("/sys/bus/virtio/devices") else {
        return 0;
    };
    let is_disk = |path: &Path| fs::read_to_string(path).is_ok_and(|id| id.trim() == VIRTIO_BLOCK);
    devices
        .flatten()
        .filter(|device| is_disk(&device.path().join("device")))
        .count()
}

/// Returns the scratch disk's root, when there is one.
fn build(scratch: Option<&str>) -> Result<Option<OwnedFd>, Error> {
    for directory in ["/mnt/lower", "/mnt/scratch", "/mnt/root"] {
        mounts::make_directory(Path::new(directory))?;
    }
    wait_for(IMAGE)?;
    mount_at(IMAGE, "/mnt/lower", "erofs", MountFlags::RDONLY, c"")?;
    let handle = match scratch {
        Some(disk) => {
            wait_for(disk)?;
            mount_at(disk, "/mnt/scratch", "ext4", MountFlags::NOATIME, SCRATCH_OPTIONS)?;
            Some(open_directory("/mnt/scratch")?)
        }
        None => {
            log::warn("no scratch disk: what the session writes is kept in memory");
            mount_at(
                "tmpfs",
                "/mnt/scratch",
                "tmpfs",
                MountFlags::NOATIME,
                c"mode=0755",
            )?;
            None
        }
    };
    for directory in ["/mnt/scratch/upper", "/mnt/scratch/work"] {
        mounts::make_directory(Path::new(directory))?;
    }
    mount_at(
        "overlay",
        "/mnt/root",
        "overlay",
        MountFlags::NOATIME,
        OVERLAY_OPTIONS,
    )?;
    for directory in ["proc", "sys", "dev"] {
        mounts::make_directory(&Path::new("/mnt/root").join(directory))?;
    }
    switch_root().map_err(|errno| Error::EnterRoot(errno.into()))?;
    Ok(handle)
}

fn switch_root() -> Result<(), Errno> {
    for directory in ["/proc", "/sys", "/dev"] {
        mount_move(directory, format!("/mnt/root{directory}"))?;
    }
    chdir("/mnt/root")?;
    mount_move(".", "/")?;
    chroot(".")?;
    chdir("/")
}

fn mount_at(what: &str, at: &str, kind: &str, flags: MountFlags, options: &CStr) -> Result<(), Error> {
    mount(what, at, kind, flags, options).map_err(|errno| Error::Mount {
        what: what.into(),
        at: at.into(),
        source: errno.into(),
    })
}

fn wait_for(device: &str) -> Result<(), Error> {
    let deadline = Instant::now() + DISK_DEADLINE;
    while !Path::new(device).exists() {
        if Instant::now() > deadline {
            return Err(Error::NoDisk {
                device: device.into(),
                seconds: DISK_DEADLINE.as_secs(),
            });
        }
        thread::sleep(DISK_STEP);
    }
    Ok(())
}

fn open_directory(path: &str) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(|errno| Error::Prepare {
        path: path.into(),
        source: errno.into(),
    })
}

fn set_shared(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let shared = fs::Permissions::from_mode(SHARED_MODE);
    if let Err(error) = fs::set_permissions(path, shared) {
        log::warn(format_args!(
            "cannot open {} to everybody: {error}",
            path.display()
        ));
    }
}
