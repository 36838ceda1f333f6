//! The folders of the host in `/sessions/NAME/mnt`.
//!
//! One virtio-fs device lists them all in its root, which is mounted there. Each folder is a file system of
//! its own to the kernel, mounted by it when somebody first walks in: attaching is walking in, and
//! detaching an ordinary unmount, which the kernel refuses while the folder is in use.
//!
//! What may be done in a folder the device decides. The agent makes the usual words come early
//! (`Read-only file system`), and names who is in the way of an unmount.

mod holders;
pub(crate) mod mountinfo;
pub(crate) mod side_door;

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs, io,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use agent_protocol::{Failure, FailureKind, Folder, Reply, Request};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{AtFlags, CWD, StatxFlags, statx},
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount_remount, unmount},
};

use self::{
    mountinfo::{Device, MountPoint},
    side_door::SideDoor,
};
use crate::{
    Error, Machine, events,
    failure::{cannot, failure, quoted},
    lock::lock,
    log,
    shutdown::within,
    stream::{Stream, timespec},
};

/// What the device calls itself.
pub(crate) const TAG: &str = "cofferdam";

/// No name of a folder is longer: it is one component of a path.
const MAX_NAME: usize = 255;

/// Files of a share are programs and data, never a way to more rights in the guest or a device of it.
pub(crate) const SAFE: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// A request to the host costs as much as copying some hundred kilobytes; the kernel's 128 KiB ahead leave
/// a reader waiting half of the time.
const READ_AHEAD_KIB: &str = "1024";

/// The longest wait for a folder that is in use, whatever the host asks for: the thread is ours.
const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Between two attempts to unmount.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// What has been written gets so long to reach the host before an unmount. The kernel writes the rest back
/// in the unmount itself, unless the folder is cut off.
const WRITE_BACK: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(crate) struct Folders {
    /// Where the device is mounted, once it is.
    mounted: Mutex<Option<PathBuf>>,
    /// Names that something is being done with.
    claimed: Mutex<BTreeSet<Vec<u8>>>,
}

impl Folders {
    pub(crate) fn mounted(&self) -> Option<PathBuf> {
        lock(&self.mounted).clone()
    }

    /// Mounts the device at `mnt`, and attaches `wanted`. A host that asks for nothing may have no device.
    pub(crate) fn open(
        self: &Arc<Self>,
        machine: &dyn Machine,
        mnt: &Path,
        wanted: &[Folder],
    ) -> Result<(), Error> {
        match self.mount(machine, mnt) {
            Err(error) if wanted.is_empty() => {
                log::warn(format_args!("no folders: {}", log::with_causes(&error)));
                return Ok(());
            }
            mounted => mounted?,
        }
        // One that fails does not keep the others away from a session that goes on without it.
        let failed: Vec<Failure> = wanted
            .iter()
            .filter_map(|folder| self.attach(folder).err())
            .collect();
        match failed.into_iter().next() {
            Some(failure) => Err(Error::Folder {
                what: failure.message,
            }),
            None => Ok(()),
        }
    }

    fn mount(self: &Arc<Self>, machine: &dyn Machine, mnt: &Path) -> Result<(), Error> {
        let mut mounted = lock(&self.mounted);
        // A host that was lost and came back welcomes us again.
        if mounted.as_deref() == Some(mnt) && mountinfo::at(mnt).is_some() {
            return Ok(());
        }
        machine.mount_folders(mnt).map_err(|source| Error::NoFolders {
            at: mnt.into(),
            missing: missing(&source),
            source,
        })?;
        if let Some(mount) = mountinfo::at(mnt) {
            read_ahead(mount.device);
        }
        if mounted.replace(mnt.into()).is_none() {
            events::start(Arc::clone(self));
        }
        Ok(())
    }

    pub(crate) fn run(&self, request: &Request, mut stream: Stream) {
        let done = match request {
            Request::AttachFolder(folder) => self.attach(folder),
            Request::DetachFolder { name, wait_ms, cut } => {
                let patience = match cut {
                    true => Patience::Cut,
                    false => Patience::Until(Instant::now() + Duration::from_millis(*wait_ms).min(MAX_WAIT)),
                };
                self.detach(name, patience, &mut stream)
            }
            _ => Err(failure(FailureKind::Invalid, "no operation on a folder")),
        };
        match done {
            Ok(()) => stream.finish(&Reply::Done),
            Err(failure) => stream.finish(&Reply::Failed(failure)),
        }
    }

    fn attach(&self, folder: &Folder) -> Result<(), Failure> {
        let name = &folder.name;
        let _claim = self.claim(name)?;
        let Some(mnt) = self.mounted() else {
            return Err(failure(
                FailureKind::NotFound,
                "the sandbox has no device for folders",
            ));
        };
        let path = mnt.join(OsStr::from_bytes(name));
        // Going through the name, to something behind it, is what makes the kernel mount the folder.
        fs::metadata(path.join(".")).map_err(|error| cannot("attach", name, &error))?;
        let Some(mount) = mountinfo::at(&path) else {
            let message = format!("cannot attach {}: it is no folder of the device", quoted(name));
            return Err(failure(FailureKind::NotFound, message));
        };
        let rights = match folder.read_only {
            true => MountFlags::RDONLY,
            false => MountFlags::empty(),
        };
        mount_remount(&path, MountFlags::BIND | SAFE | rights, "")
            .map_err(|errno| cannot("set the rights of", name, &errno.into()))?;
        read_ahead(mount.device);
        // What was listed a moment ago does not have the folder yet: the kernel asks anew.
        let _ = statx(CWD, &mnt, AtFlags::STATX_FORCE_SYNC, StatxFlags::MTIME);
        Ok(())
    }

    /// `Ok` when the folder is not mounted any more, and when it was not.
    fn detach(&self, name: &[u8], patience: Patience, stream: &mut Stream) -> Result<(), Failure> {
        let _claim = self.claim(name)?;
        // The Hello: a host that does not know its stream could not call the wait off.
        let _ = stream.flush();
        let Some(mnt) = self.mounted() else { return Ok(()) };
        let path = mnt.join(OsStr::from_bytes(name));
        let mut pause = FIRST_PAUSE;
        let mut written = false;
        while let Some(mount) = mountinfo::at(&path) {
            if !written {
                write_back(&path, WRITE_BACK);
                written = true;
            }
            match unmount(&path, UnmountFlags::NOFOLLOW | patience.flags()) {
                // Another may be below it.
                Ok(()) => continue,
                Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
                Err(Errno::BUSY) => {}
                Err(errno) => return Err(cannot("detach", name, &errno.into())),
            }
            let left = patience.left();
            if left.is_zero() {
                return Err(busy(name, &path, &mount));
            }
            if is_cancelled_within(stream, pause.min(left)) {
                return Err(failure(FailureKind::Busy, "the host has called it off"));
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Ok(())
    }

    fn claim<'a>(&'a self, name: &'a [u8]) -> Result<Claim<'a>, Failure> {
        if !is_name(name) {
            let message = format!("{} is not the name of a folder", quoted(name));
            return Err(failure(FailureKind::Invalid, message));
        }
        if !lock(&self.claimed).insert(name.to_vec()) {
            let message = format!("{} is being attached or detached already", quoted(name));
            return Err(failure(FailureKind::Busy, message));
        }
        Ok(Claim { folders: self, name })
    }
}

/// One operation at a time on each folder.
struct Claim<'a> {
    folders: &'a Folders,
    name: &'a [u8],
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        lock(&self.folders.claimed).remove(self.name);
    }
}

/// What to do about a folder that is in use.
#[derive(Clone, Copy)]
enum Patience {
    Until(Instant),
    /// Whoever has files of it open keeps them until the device takes them away.
    Cut,
}

impl Patience {
    fn flags(self) -> UnmountFlags {
        match self {
            Patience::Until(_) => UnmountFlags::empty(),
            Patience::Cut => UnmountFlags::DETACH,
        }
    }

    fn left(self) -> Duration {
        match self {
            Patience::Until(deadline) => deadline.saturating_duration_since(Instant::now()),
            Patience::Cut => Duration::ZERO,
        }
    }
}

/// One component of a path that is not hidden: the device's own files are.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name.first() != Some(&b'.')
        && !name.iter().any(|byte| matches!(byte, 0 | b'/' | b'\n'))
}

/// What a person can do something about.
fn missing(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENODEV) => "the kernel has no virtio-fs",
        Some(libc::EINVAL | libc::ENOENT) => "the machine has no virtio-fs device of the name 'cofferdam'",
        _ => "virtio-fs does not work",
    }
}

/// Folders share the device's setting in the kernels we know, and then have none of their own.
fn read_ahead(device: Device) {
    let path = format!("/sys/class/bdi/{device}/read_ahead_kb");
    match fs::write(&path, READ_AHEAD_KIB) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            log::warn(format_args!("cannot write {path}: {error}"));
        }
        _ => {}
    }
}

/// Through a mount of its own: nothing this leaves behind, should the host not answer, holds the folder.
pub(crate) fn write_back(path: &Path, limit: Duration) -> bool {
    let path = path.to_owned();
    within(limit, move || {
        if let Ok(door) = SideDoor::open(&path) {
            let _ = rustix::fs::syncfs(door.root());
        }
    })
}

fn busy(name: &[u8], path: &Path, mount: &MountPoint) -> Failure {
    let by = match holders::describe(&holders::of(mount.device)) {
        Some(who) => format!(" by {who}"),
        None if mountinfo::below(path).is_empty() => String::new(),
        None => ": something is mounted in it".into(),
    };
    failure(FailureKind::Busy, format!("{} is in use{by}", quoted(name)))
}

/// Waits so long; whether the host has closed the stream meanwhile.
fn is_cancelled_within(stream: &mut Stream, pause: Duration) -> bool {
    let deadline = Instant::now() + pause;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let fd = stream.as_fd();
        let ready = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timespec(left)));
        match ready {
            Ok(0) => return false,
            Ok(_) if matches!(stream.try_discard(), Ok(1..)) => {}
            Err(Errno::INTR) => {}
            _ => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_visible_component_of_a_path() {
        for good in [&b"docs"[..], b"my project", b"\xff", b"a..b", &[b'x'; 255]] {
            assert!(is_name(good), "{good:?}");
        }
        for bad in [
            &b""[..],
            b".",
            b"..",
            b".coffer-events",
            b"a/b",
            b"/",
            b"a\0",
            b"a\nb",
            &[b'x'; 256],
        ] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_name_is_claimed_once_until_it_is_given_back() {
        let folders = Folders::default();
        let first = folders.claim(b"docs").unwrap_or_else(|_| panic!("free"));
        assert_eq!(folders.claim(b"docs").err().unwrap().kind, FailureKind::Busy);
        assert!(folders.claim(b"other").is_ok());
        drop(first);
        assert!(folders.claim(b"docs").is_ok());
    }
}
