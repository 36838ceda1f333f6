//! Repeating what the host did, through the guest's own file system calls.
//!
//! Only the thread the device knows may do this: from any other the same calls would change the host.
//! Every path starts at an open folder, follows no link, and cannot leave it. Errors are of no
//! consequence: what cannot be repeated, because the guest knows it already or never will, is left.

use std::{
    collections::HashMap,
    ffi::OsStr,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::{
    fs::{
        Advice, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, chmodat, fadvise, fstat, ftruncate,
        mkdirat, mknodat, openat2, symlinkat, unlinkat,
    },
    io::{Errno, Result},
};

use super::protocol::{Event, Kind};
use crate::folders::side_door::SideDoor;

/// Nothing but what is plainly below the folder, in the folder's own file system.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Of what the device pretends to make; it says itself what the guest sees.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// In order. A folder is open only as long as this takes.
pub(super) fn repeat(mnt: &Path, events: &[Event<'_>]) {
    let mut doors: HashMap<&[u8], Option<SideDoor>> = HashMap::new();
    for event in events {
        let path = || mnt.join(OsStr::from_bytes(event.folder));
        let door = doors
            .entry(event.folder)
            .or_insert_with(|| SideDoor::open(&path()).ok());
        if let Some(door) = door {
            let _ = echo(door, event);
        }
    }
}

fn echo(door: &SideDoor, event: &Event<'_>) -> Result<()> {
    match event.kind {
        Kind::FileAppeared => appear(door, event, |parent, name| {
            mknodat(parent, name, FileType::RegularFile, MODE, 0)
        }),
        Kind::DirectoryAppeared => appear(door, event, |parent, name| {
            mkdirat(parent, name, MODE.union(Mode::XUSR))
        }),
        Kind::SymlinkAppeared => appear(door, event, |parent, name| symlinkat("x", parent, name)),
        Kind::ContentChanged => change_content(door, event.path),
        Kind::AttributesChanged => change_attributes(&find(door, event.path)?),
        Kind::FileGone => disappear(door, event.path, AtFlags::empty()),
        Kind::DirectoryGone => disappear(door, event.path, AtFlags::REMOVEDIR),
    }
}

/// One that the guest has seen meanwhile is said to have changed instead.
fn appear(
    door: &SideDoor,
    event: &Event<'_>,
    make: impl FnOnce(&OwnedFd, &[u8]) -> Result<()>,
) -> Result<()> {
    let (parent, name) = parent(door, event.path)?;
    match make(&parent, name) {
        Err(Errno::EXIST) => change_attributes(&find(door, event.path)?),
        made => made,
    }
}

fn disappear(door: &SideDoor, path: &[u8], flags: AtFlags) -> Result<()> {
    let (parent, name) = parent(door, path)?;
    unlinkat(&parent, name, flags)
}

/// Sizes it to the size it has. What the kernel has of its content is of before.
fn change_content(door: &SideDoor, path: &[u8]) -> Result<()> {
    // A FIFO or a terminal, should the device ever show one, is not waited for and not adopted.
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = openat2(door.root(), path, flags, Mode::empty(), BENEATH)?;
    let stat = fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    ftruncate(&file, u64::try_from(stat.st_size).unwrap_or(0))?;
    fadvise(&file, 0, None, Advice::DontNeed)
}

/// Gives it the mode it has, by the name of its descriptor: that is the one way that follows no link and
/// works with a descriptor that opens nothing. Links have no mode.
fn change_attributes(file: &OwnedFd) -> Result<()> {
    let stat = fstat(file)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        return Ok(());
    }
    let path = format!("/proc/thread-self/fd/{}", file.as_raw_fd());
    chmodat(CWD, path, Mode::from_raw_mode(stat.st_mode), AtFlags::empty())
}

fn find(door: &SideDoor, path: &[u8]) -> Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(door.root(), path, flags, Mode::empty(), BENEATH)
}

/// The open parent and the last component. The folder itself has neither.
fn parent<'a>(door: &SideDoor, path: &'a [u8]) -> Result<(OwnedFd, &'a [u8])> {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    let (parent, name) = match slash {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&b"."[..], path),
    };
    if name.is_empty() {
        return Err(Errno::INVAL);
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = openat2(door.root(), parent, flags, Mode::empty(), BENEATH)?;
    Ok((parent, name))
}

#[cfg(test)]
mod tests;
