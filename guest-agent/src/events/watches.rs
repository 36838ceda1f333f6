//! Who watches what: every inotify instance shows what it watches in `/proc/PID/fdinfo`.
//!
//! A look at every open file of every process, which is the only way the kernel offers; hence the
//! limits, and the pause in proportion to what it took.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
};

use rustix::fs::{CWD, Dir, Mode, OFlags, openat, readlinkat_raw};

use super::protocol;
use crate::folders::{
    mountinfo::{self, Device},
    side_door::{Handle, MAX_HANDLE},
};

/// Open files of one process, and of all, in one scan: what a service with many connections has, and a
/// few of them. Readlink on each takes about a microsecond.
const MAX_PER_PROCESS: usize = 8192;
const MAX_FILES: usize = 65_536;

/// What is read of one inotify instance: some eighty thousand watches, ten times the kernel's usual limit
/// of a user. They may all be of other file systems.
const MAX_FDINFO: u64 = 8 * 1024 * 1024;

/// Watches kept. More than the device is told of, so that which ones those are depends on their order
/// alone and not on who was looked at first.
const MAX_KEPT: usize = 4 * protocol::MAX_WATCHES;

/// How the kernel calls such a file, with brackets in some versions.
const INOTIFY: [&[u8]; 2] = [b"anon_inode:inotify", b"anon_inode:[inotify]"];

/// A shared folder as the kernel's tables have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Folder {
    pub(super) name: Vec<u8>,
    pub(super) device: Device,
}

/// What is watched in the shared folders, each file once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Watches(BTreeMap<(Vec<u8>, u64), Option<Handle>>);

impl Watches {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        protocol::encode(self.0.keys().map(|(folder, inode)| (*inode, folder.as_slice())))
    }

    /// The watched files of a folder that can be found again.
    pub(super) fn handles_in<'a>(&'a self, folder: &'a [u8]) -> impl Iterator<Item = &'a Handle> {
        let own = self.0.iter().filter(move |((name, _), _)| name == folder);
        own.filter_map(|(_, handle)| handle.as_ref())
    }

    pub(super) fn insert(&mut self, folder: &[u8], watch: Watch) {
        if self.0.len() < MAX_KEPT {
            self.0.insert((folder.to_vec(), watch.inode), watch.handle);
        }
    }
}

/// The folders mounted right below `mnt`, each once however often it is mounted.
pub(super) fn folders_in(mnt: &Path) -> Vec<Folder> {
    let mounts = mountinfo::below(mnt).into_iter();
    let folders: BTreeMap<Vec<u8>, Device> = mounts
        .filter(|mount| mount.at.parent() == Some(mnt))
        .filter_map(|mount| Some((mount.at.file_name()?.as_bytes().to_vec(), mount.device)))
        // A line of the set ends there.
        .filter(|(name, _)| !name.contains(&b'\n'))
        .collect();
    let folder = |(name, device)| Folder { name, device };
    folders.into_iter().map(folder).collect()
}

pub(super) fn scan(folders: &[Folder]) -> Watches {
    let mut watches = Watches::default();
    let mut left = MAX_FILES;
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in entries.filter(|entry| is_number(entry.file_name().as_bytes())) {
        // It may be gone by now, which is as good as watching nothing.
        let _ = scan_process(&process.path(), &mut left, folders, &mut watches);
        if left == 0 {
            break;
        }
    }
    watches
}

fn scan_process(
    process: &Path,
    left: &mut usize,
    folders: &[Folder],
    watches: &mut Watches,
) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, process.join("fd"), flags, Mode::empty())?;
    let links = Dir::read_from(&directory)?.flatten();
    for link in links
        .filter(|link| is_number(link.file_name().to_bytes()))
        .take(MAX_PER_PROCESS.min(*left))
    {
        *left -= 1;
        if is_inotify(&directory, link.file_name()) {
            let number = String::from_utf8_lossy(link.file_name().to_bytes()).into_owned();
            scan_instance(&process.join("fdinfo").join(number), folders, watches);
        }
    }
    Ok(())
}

fn is_number(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(u8::is_ascii_digit)
}

fn is_inotify(directory: &OwnedFd, link: &std::ffi::CStr) -> bool {
    // A target that fills the buffer is a longer one, and so another.
    let mut buffer = [MaybeUninit::uninit(); 32];
    readlinkat_raw(directory, link, &mut buffer).is_ok_and(|(target, _)| INOTIFY.contains(&&*target))
}

fn scan_instance(fdinfo: &Path, folders: &[Folder], watches: &mut Watches) {
    let Ok(file) = fs::File::open(fdinfo) else { return };
    let mut lines = BufReader::with_capacity(64 * 1024, file.take(MAX_FDINFO));
    let mut line = Vec::new();
    while matches!(lines.read_until(b'\n', &mut line), Ok(1..)) {
        if let Some(watch) = parse_line(&line)
            && let Some(folder) = folders.iter().find(|folder| folder.device == watch.device)
        {
            watches.insert(&folder.name, watch);
        }
        line.clear();
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Watch {
    pub(super) inode: u64,
    pub(super) device: Device,
    pub(super) handle: Option<Handle>,
}

/// `inotify wd:1 ino:9e7e sdev:800013 mask:800afce ignored_mask:0 fhandle-bytes:8 fhandle-type:1
/// f_handle:7e9e0000640d1b6d`: numbers in hex, and the handle, where the file system has them.
fn parse_line(line: &[u8]) -> Option<Watch> {
    let text = std::str::from_utf8(line).ok()?.trim_end();
    let fields = text.strip_prefix("inotify ")?;
    let device = u32::try_from(hex(field(fields, "sdev:")?)?).ok()?;
    Some(Watch {
        inode: hex(field(fields, "ino:")?)?,
        device: Device::from_kernel(device),
        handle: parse_handle(fields),
    })
}

fn parse_handle(fields: &str) -> Option<Handle> {
    let len = usize::try_from(hex(field(fields, "fhandle-bytes:")?)?).ok()?;
    let kind = i32::try_from(hex(field(fields, "fhandle-type:")?)?).ok()?;
    let digits = field(fields, "f_handle:")?;
    if len > MAX_HANDLE || digits.len() != 2 * len {
        return None;
    }
    let byte = |at: usize| u8::try_from(hex(digits.get(at..at + 2)?)?).ok();
    let bytes = (0..digits.len()).step_by(2).map(byte).collect::<Option<_>>()?;
    Some(Handle { kind, bytes })
}

fn field<'a>(fields: &'a str, name: &str) -> Option<&'a str> {
    fields.split(' ').find_map(|field| field.strip_prefix(name))
}

/// `from_str_radix` takes a sign, too.
fn hex(digits: &str) -> Option<u64> {
    let plain = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    plain.then(|| u64::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests;
