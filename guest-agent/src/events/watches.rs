//! What is watched: every inotify instance shows it in `/proc/PID/fdinfo`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use super::protocol;
use crate::folders::mountinfo::{self, Device};

/// What is read of one inotify instance: some eighty thousand watches, ten times the kernel's usual limit
/// of a user. They may all be of other file systems.
const MAX_FDINFO: u64 = 8 * 1024 * 1024;

/// Watches kept. More than the device is told of, so that which ones those are depends on their order
/// alone and not on who was looked at first.
const MAX_KEPT: usize = 4 * protocol::MAX_WATCHES;

/// A shared folder as the kernel's tables have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Folder {
    pub(super) name: Vec<u8>,
    pub(super) device: Device,
}

/// What is watched in the shared folders, each file once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Watches(BTreeSet<(Vec<u8>, u64)>);

impl Watches {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        protocol::encode(self.0.iter().map(|(folder, inode)| (*inode, folder.as_slice())))
    }

    /// Adds what an inotify instance says it watches in these folders.
    pub(super) fn read(&mut self, fdinfo: impl Read, folders: &[Folder]) {
        let mut lines = BufReader::with_capacity(64 * 1024, fdinfo.take(MAX_FDINFO));
        let mut line = Vec::new();
        while matches!(lines.read_until(b'\n', &mut line), Ok(1..)) {
            if let Some(watch) = parse_line(&line)
                && let Some(folder) = folders.iter().find(|folder| folder.device == watch.device)
            {
                self.insert(&folder.name, watch.inode);
            }
            line.clear();
        }
    }

    pub(super) fn insert(&mut self, folder: &[u8], inode: u64) {
        if self.0.len() < MAX_KEPT {
            self.0.insert((folder.to_vec(), inode));
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

#[derive(Clone, Debug, PartialEq, Eq)]
struct Watch {
    inode: u64,
    device: Device,
}

/// `inotify wd:1 ino:9e7e sdev:800013 mask:800afce ignored_mask:0 fhandle-bytes:8 …`: numbers in hex.
fn parse_line(line: &[u8]) -> Option<Watch> {
    let text = std::str::from_utf8(line).ok()?.trim_end();
    let fields = text.strip_prefix("inotify ")?;
    let device = u32::try_from(hex(field(fields, "sdev:")?)?).ok()?;
    Some(Watch {
        inode: hex(field(fields, "ino:")?)?,
        device: Device::from_kernel(device),
    })
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
