//! The content of files.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, PoisonError, atomic::Ordering},
};

use fuse::{Attributes, Changes, FileKind, Payload, Reply, Target, TimeChange, WriteFlags};
use rustix::{
    fs::{AtFlags, FallocateFlags, Mode, OFlags, SeekFrom, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT},
    io::Errno,
};

use share_policy::Standing;

use super::{
    HostFs, Known, Open,
    descriptors::{Access, now},
    identity::{PERMISSIONS, is_shown_owner},
    nodes::Slot,
    quota::Growth,
};

/// Bytes copied from file to file in one request: more is asked for again, and a request has an end in sight.
const MAX_COPY: u64 = 64 << 20;
/// Permission bits without which our own user cannot open a file.
const OWNER_READ_WRITE: u32 = 0o600;

impl HostFs {
    /// The file of a node, open for `wanted`, and where the guest last saw it as of a moment ago.
    pub(super) fn data(&self, slot: Slot, wanted: Access) -> Reply<Arc<Open>> {
        {
            let nodes = self.nodes();
            let node = nodes.get(slot).ok_or(Errno::STALE)?;
            match node.identity.kind {
                FileKind::File => {}
                FileKind::Directory => return Err(Errno::ISDIR),
                _ => return Err(Errno::INVAL),
            }
            if self.is_fresh(node.checked)
                && let Some(open) = nodes.open(slot, wanted)
            {
                return Ok(open);
            }
        }
        let Known {
            identity,
            place,
            open,
        } = self.known_now(slot)?;
        let had = match open {
            Some(open) if open.access.serves(wanted) => return Ok(open),
            Some(open) if place.is_none() => return self.widen(slot, &open, wanted),
            Some(open) => open.access,
            None => Access::Path,
        };
        let place = place.ok_or(Errno::STALE)?;
        let parent = self.directory(place.parent)?;
        let open = |flags| self.open_known((parent.as_fd(), &place.name), identity, flags);
        let open = self.open_data(slot, wanted, had, open)?;
        let mut nodes = self.nodes();
        nodes.keep(slot, &open);
        if let Some(node) = nodes.get_mut(slot) {
            node.checked = now();
        }
        Ok(open)
    }

    fn before_first_write(&self, open: &Open) -> Reply<()> {
        self.shared.bell.ring();
        // The kernel takes the bits away at a write, but not from root.
        if self.who.is_root() {
            self.drop_privilege_bits(open)
        } else {
            Ok(())
        }
    }

    /// A file without a name, opened again through the descriptor that is all we have of it.
    fn widen(&self, slot: Slot, open: &Arc<Open>, wanted: Access) -> Reply<Arc<Open>> {
        let number = through_proc(open);
        let again = |flags: OFlags| {
            let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
            rustix::fs::openat(&*self.shared.proc, &*number, flags, Mode::empty())
        };
        let wider = self.open_data(slot, wanted, open.access, again)?;
        if !self.nodes().pin(slot, &wider) {
            self.nodes().keep(slot, &wider);
        }
        Ok(wider)
    }

    /// Opens for what is wanted, or for more where that will be wanted next.
    fn open_data(
        &self,
        slot: Slot,
        wanted: Access,
        had: Access,
        open: impl Fn(OFlags) -> Reply<OwnedFd> + Copy,
    ) -> Reply<Arc<Open>> {
        let (file, access) = self.with_permissions(slot, || open_for(wanted, had, open))?;
        let open = Open::new(file, access, &self.shared.budget);
        if access.writes() {
            self.before_first_write(&open)?;
        }
        Ok(open)
    }

    /// Opens a file, also one of our own whose permissions forbid it. The guest's kernel has checked them where they count, when
    /// its program opened the file: a program goes on writing to what it made read-only, or closed to all, since.
    fn with_permissions<T>(&self, slot: Slot, open: impl Fn() -> Reply<T>) -> Reply<T> {
        match open() {
            Err(Errno::ACCESS) => {}
            other => return other,
        }
        if self.untouchable || self.nodes().standing(slot).is_some_and(Standing::is_protected) {
            return Err(Errno::ACCESS);
        }
        let _alone = self.permissions.lock().unwrap_or_else(PoisonError::into_inner);
        let place = self.place(slot)?;
        let permissions = self.found(place.as_fd())?.raw_permissions();
        self.expect_change(slot);
        // Not ours: the host says that it is not permitted.
        self.store_permissions(&place, permissions | OWNER_READ_WRITE)
            .map_err(|_| Errno::ACCESS)?;
        let opened = open();
        self.store_permissions(&place, permissions)?;
        opened
    }

    fn store_permissions(&self, place: &Open, permissions: u32) -> Reply<()> {
        let mode = Mode::from_raw_mode(permissions);
        rustix::fs::chmodat(&*self.shared.proc, &*through_proc(place), mode, AtFlags::empty())
    }

    pub(super) fn read_file(&self, slot: Slot, mut offset: u64, target: &mut dyn Target) -> Reply<()> {
        let file = self.data(slot, Access::Read)?;
        while target.room() > 0 {
            let room = target.room();
            let n = target
                .fill_from(file.as_fd(), offset, room)
                .map_err(|error| errno(&error))?;
            if n == 0 {
                break;
            }
            offset = offset.saturating_add(n as u64);
            self.read_bytes.fetch_add(n as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    pub(super) fn write_file(
        &self,
        slot: Slot,
        offset: u64,
        payload: &mut dyn Payload,
        flags: WriteFlags,
    ) -> Reply<usize> {
        let _alone = self.alone(slot)?;
        let file = self.data(slot, Access::Write)?;
        let len = payload.left() as u64;
        let growth = if flags.contains(WriteFlags::APPEND) {
            Growth::By(len)
        } else {
            Growth::To(offset.saturating_add(len))
        };
        self.quota.before_write(&file, growth, len)?;
        let written = self
            .quota
            .resizing(&file, growth, || self.write_to(&file, offset, payload, flags))?;
        self.written_bytes.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn write_to(
        &self,
        file: &Open,
        mut offset: u64,
        payload: &mut dyn Payload,
        flags: WriteFlags,
    ) -> Reply<usize> {
        if flags.contains(WriteFlags::KILL_PRIVILEGES) {
            self.drop_privilege_bits(file)?;
        }
        let mut written = 0;
        while payload.left() > 0 {
            let left = payload.left();
            match payload.drain_to(file.as_fd(), offset, left, flags) {
                Ok(0) => break,
                Ok(n) => {
                    written += n;
                    offset = offset.saturating_add(n as u64);
                }
                // What is written is written; the error comes again with the rest.
                Err(_) if written > 0 => break,
                Err(error) => return Err(errno(&error)),
            }
        }
        Ok(written)
    }

    fn drop_privilege_bits(&self, file: &Open) -> Reply<()> {
        let found = self.found(file.as_fd())?;
        if found.has_privilege_bits() {
            rustix::fs::fchmod(file, Mode::from_raw_mode(found.raw_permissions() & PERMISSIONS))?;
        }
        Ok(())
    }

    pub(super) fn change(&self, slot: Slot, changes: &Changes) -> Reply<Attributes> {
        for owner in [changes.uid, changes.gid].into_iter().flatten() {
            if !is_shown_owner(owner) {
                return Err(Errno::PERM);
            }
        }
        if let Some(size) = changes.size {
            self.truncate(slot, size, changes.kill_privileges)?;
        }
        self.expect_change(slot);
        if let Some(permissions) = changes.permissions {
            self.set_permissions(slot, permissions & PERMISSIONS)?;
        }
        if changes.accessed.is_some() || changes.modified.is_some() {
            self.set_times(slot, changes)?;
        }
        self.show_now(slot)
    }

    fn truncate(&self, slot: Slot, size: u64, kill_privileges: bool) -> Reply<()> {
        let _alone = self.alone(slot)?;
        let file = self.data(slot, Access::Write)?;
        // A longer file has a hole at its end, which takes no room on the host.
        self.quota.resizing(&file, Growth::To(size), || {
            if kill_privileges {
                self.drop_privilege_bits(&file)?;
            }
            rustix::fs::ftruncate(&file, size)
        })
    }

    fn set_permissions(&self, slot: Slot, permissions: u32) -> Reply<()> {
        let _alone = self.permissions.lock().unwrap_or_else(PoisonError::into_inner);
        let place = self.place(slot)?;
        let found = self.found(place.as_fd())?;
        if found.identity.kind == FileKind::Symlink {
            return Err(Errno::OPNOTSUPP);
        }
        self.store_permissions(&place, permissions)
    }

    fn set_times(&self, slot: Slot, changes: &Changes) -> Reply<()> {
        let times = Timestamps {
            last_access: timespec(changes.accessed),
            last_modification: timespec(changes.modified),
        };
        let place = self.place(slot)?;
        if place.access == Access::Path {
            return rustix::fs::utimensat(&*place, c"", &times, AtFlags::EMPTY_PATH);
        }
        rustix::fs::futimens(&*place, &times)
    }

    pub(super) fn sync_node(&self, slot: Slot, data_only: bool) -> Reply<()> {
        let file = self.any(slot)?;
        if data_only {
            rustix::fs::fdatasync(file)
        } else {
            rustix::fs::fsync(file)
        }
    }

    /// A file or directory, open for reading or, if that is all that is allowed, for writing.
    pub(super) fn any(&self, slot: Slot) -> Reply<Arc<Open>> {
        let is_directory = {
            let nodes = self.nodes();
            let node = nodes.get(slot).ok_or(Errno::STALE)?;
            node.identity.kind == FileKind::Directory
        };
        if is_directory {
            return self.directory_for_reading(slot);
        }
        match self.data(slot, Access::Read) {
            Err(Errno::ACCESS) => self.data(slot, Access::Write),
            other => other,
        }
    }

    /// A directory, opened anew: its position is its own.
    pub(super) fn directory_for_reading(&self, slot: Slot) -> Reply<Arc<Open>> {
        let place = self.directory(slot)?;
        let number = through_proc(&place);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // By its descriptor: by name, `.` would need the right to search it.
        let open = || rustix::fs::openat(&*self.shared.proc, &*number, flags, Mode::empty());
        let file = self.with_permissions(slot, open)?;
        Ok(Open::new(file, Access::Read, &self.shared.budget))
    }

    pub(super) fn sync_everything(&self, slot: Slot) -> Reply<()> {
        rustix::fs::syncfs(self.any(slot)?)
    }

    pub(super) fn allocate_range(&self, slot: Slot, (offset, len): (u64, u64), mode: u32) -> Reply<()> {
        let mode = FallocateFlags::from_bits(mode).ok_or(Errno::OPNOTSUPP)?;
        let known = FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
        if !known.contains(mode) {
            return Err(Errno::OPNOTSUPP);
        }
        let _alone = self.alone(slot)?;
        let file = self.data(slot, Access::Write)?;
        let act = || rustix::fs::fallocate(&*file, mode, offset, len);
        if mode.contains(FallocateFlags::PUNCH_HOLE) {
            return act();
        }
        let end = offset.checked_add(len).ok_or(Errno::FBIG)?;
        let keep_size = mode.contains(FallocateFlags::KEEP_SIZE);
        self.quota.before_allocate(&file, end, len, keep_size)?;
        self.quota.resizing(&file, Growth::To(end), act)
    }

    pub(super) fn seek_in(&self, slot: Slot, offset: u64, hole: bool) -> Reply<u64> {
        let file = self.any(slot)?;
        let to = if hole {
            SeekFrom::Hole(offset)
        } else {
            SeekFrom::Data(offset)
        };
        rustix::fs::seek(&*file, to)
    }

    pub(super) fn copy(&self, from: (Slot, u64), to: (Slot, u64), len: u64) -> Reply<usize> {
        let _alone = self.alone(to.0)?;
        let source = self.data(from.0, Access::Read)?;
        let target = self.data(to.0, Access::Write)?;
        let len = len.min(MAX_COPY);
        let growth = Growth::To(to.1.saturating_add(len));
        self.quota.before_write(&target, growth, len)?;
        let (mut read_at, mut write_at) = (from.1, to.1);
        let (reader, writer) = (source.as_fd(), target.as_fd());
        let n = self.quota.resizing(&target, growth, || {
            rustix::fs::copy_file_range(
                reader,
                Some(&mut read_at),
                writer,
                Some(&mut write_at),
                len as usize,
            )
        })?;
        self.read_bytes.fetch_add(n as u64, Ordering::Relaxed);
        self.written_bytes.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// Opens for what is wanted, and for what was had, if both are allowed.
fn open_for(
    wanted: Access,
    had: Access,
    open: impl Fn(OFlags) -> Reply<OwnedFd>,
) -> Reply<(OwnedFd, Access)> {
    if wanted == Access::Read && !had.writes() {
        return Ok((open(OFlags::RDONLY)?, Access::Read));
    }
    match open(OFlags::RDWR) {
        Ok(file) => Ok((file, Access::ReadWrite)),
        Err(Errno::ACCESS | Errno::TXTBSY | Errno::ROFS) if wanted == Access::Read => {
            Ok((open(OFlags::RDONLY)?, Access::Read))
        }
        Err(Errno::ACCESS) if wanted == Access::Write => Ok((open(OFlags::WRONLY)?, Access::Write)),
        Err(error) => Err(error),
    }
}

/// The name of an open file in `/proc/self/fd`.
pub(super) fn through_proc(open: &Open) -> String {
    use std::os::fd::AsRawFd;
    open.as_fd().as_raw_fd().to_string()
}

fn timespec(change: Option<TimeChange>) -> Timespec {
    match change {
        None => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        Some(TimeChange::Now) => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        },
        Some(TimeChange::To(time)) => Timespec {
            tv_sec: time.seconds,
            tv_nsec: time.nanoseconds.into(),
        },
    }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
