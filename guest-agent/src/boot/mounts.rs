//! The file systems every machine has, as data.

use std::{ffi::CStr, fs, io, os::unix::fs::symlink, path::Path};

use rustix::{
    io::Errno,
    mount::{MountFlags, mount},
};

use crate::{Error, log};

pub(super) struct Mount {
    pub(super) what: &'static str,
    pub(super) at: &'static str,
    flags: MountFlags,
    options: &'static CStr,
}

const SAFE: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// Before there is a root; carried over into it.
pub(super) const KERNEL: &[Mount] = &[
    Mount {
        what: "proc",
        at: "/proc",
        flags: SAFE,
        options: c"",
    },
    Mount {
        what: "sysfs",
        at: "/sys",
        flags: SAFE,
        options: c"",
    },
    Mount {
        what: "devtmpfs",
        at: "/dev",
        flags: MountFlags::NOSUID,
        options: c"mode=0755",
    },
];

/// In the root.
pub(super) const SYSTEM: &[Mount] = &[
    Mount {
        what: "devpts",
        at: "/dev/pts",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        options: c"gid=5,mode=0620,ptmxmode=0666",
    },
    Mount {
        what: "tmpfs",
        at: "/dev/shm",
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        options: c"mode=1777",
    },
    Mount {
        what: "tmpfs",
        at: "/run",
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        options: c"mode=0755",
    },
];

/// What a kernel may lack without being of no use.
pub(super) const OPTIONAL: &[Mount] = &[
    Mount {
        what: "cgroup2",
        at: "/sys/fs/cgroup",
        flags: SAFE,
        options: c"",
    },
    Mount {
        what: "mqueue",
        at: "/dev/mqueue",
        flags: SAFE,
        options: c"",
    },
];

/// Names shells and programs expect that devtmpfs does not make.
const LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

pub(super) fn mount_all(mounts: &[Mount]) -> Result<(), Error> {
    mounts.iter().try_for_each(mount_one)
}

pub(super) fn mount_optional() {
    for wanted in OPTIONAL {
        if let Err(error) = mount_one(wanted) {
            log::warn(log::with_causes(&error));
        }
    }
    for (target, link) in LINKS {
        let _ = symlink(target, link);
    }
}

fn mount_one(wanted: &Mount) -> Result<(), Error> {
    make_directory(Path::new(wanted.at))?;
    match mount(wanted.what, wanted.at, wanted.what, wanted.flags, wanted.options) {
        // The kernel has mounted it already.
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(errno) => Err(Error::Mount {
            what: wanted.what.into(),
            at: wanted.at.into(),
            source: errno.into(),
        }),
    }
}

pub(super) fn make_directory(path: &Path) -> Result<(), Error> {
    match fs::create_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(Error::Prepare {
            path: path.into(),
            source: error,
        }),
        _ => Ok(()),
    }
}
