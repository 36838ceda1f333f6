//! From a root directory on the host into a tree, without following a single symbolic link.
//!
//! Every step is relative to an open directory, so a link swapped in while we read leads nowhere.
//! Other file systems mounted below are left out, as are sockets. Ownership is kept for root, who can
//! have made it so; anyone else's files become root's in the guest.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use crate::error::Context;
use crate::tree::{Content, Device, MAX_DEPTH, Meta, Mtime, Name, NodeId, Tree, TreePath, Xattrs};
use crate::{Error, Result};

pub(super) fn import(tree: &mut Tree, folder: &Path) -> Result<()> {
    tree.begin_layer();
    let root = rustix::fs::open(folder, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context("open", folder)?;
    let stat = rustix::fs::fstat(&root).context("read", folder)?;
    let mut walk = Walk {
        tree,
        folder,
        device: stat.st_dev,
        keep_owners: rustix::process::geteuid().is_root(),
        hard_links: BTreeMap::new(),
    };
    let meta = walk.meta(&stat, &root, b"")?;
    walk.tree
        .insert(&TreePath::parse(b"/")?, meta, Content::Directory)?;
    walk.directory(&root, &mut Vec::new(), 0)
}

struct Walk<'a> {
    tree: &'a mut Tree,
    folder: &'a Path,
    device: u64,
    keep_owners: bool,
    hard_links: BTreeMap<u64, NodeId>,
}

impl Walk<'_> {
    /// `path` is the directory's own, with a slash at its end unless it is the root.
    fn directory(&mut self, directory: &OwnedFd, path: &mut Vec<u8>, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(self.refuse(path, "a path too deep"));
        }
        let read = |e: rustix::io::Errno, walk: &Self| Error::Io {
            act: "read",
            path: walk.host_path(path),
            source: e.into(),
        };
        let entries = rustix::fs::Dir::read_from(directory).map_err(|e| read(e, self))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| read(e, self))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        names.sort_unstable(); // the order on disk must not show in the image
        for name in names {
            let length = path.len();
            path.extend(Name::parse(name.to_bytes())?.as_bytes());
            self.entry(directory, &name, path, depth)?;
            path.truncate(length);
        }
        Ok(())
    }

    fn entry(&mut self, directory: &OwnedFd, name: &CStr, path: &mut Vec<u8>, depth: usize) -> Result<()> {
        let host_path = self.host_path(path);
        let stat =
            rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).context("read", &host_path)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.subdirectory(directory, name, path, depth),
            FileType::RegularFile => self.file(directory, name, path),
            FileType::Symlink => {
                let target =
                    rustix::fs::readlinkat(directory, name, Vec::new()).context("read", &host_path)?;
                self.insert(
                    path,
                    &stat,
                    Xattrs::default(),
                    Content::Symlink(target.into_bytes()),
                )
            }
            FileType::CharacterDevice => {
                let content = Content::Character(self.device(&stat, path)?);
                self.insert(path, &stat, Xattrs::default(), content)
            }
            FileType::BlockDevice => {
                let content = Content::Block(self.device(&stat, path)?);
                self.insert(path, &stat, Xattrs::default(), content)
            }
            FileType::Fifo => self.insert(path, &stat, Xattrs::default(), Content::Fifo),
            FileType::Socket | FileType::Unknown => Ok(()), // nothing answers behind a copied socket
        }
    }

    fn subdirectory(&mut self, above: &OwnedFd, name: &CStr, path: &mut Vec<u8>, depth: usize) -> Result<()> {
        let (directory, stat) = self.open(above, name, OFlags::DIRECTORY, path)?;
        let meta = self.meta(&stat, &directory, path)?;
        self.tree
            .insert(&TreePath::parse(path)?, meta, Content::Directory)?;
        if stat.st_dev != self.device {
            return Ok(());
        }
        path.push(b'/');
        self.directory(&directory, path, depth + 1)
    }

    fn file(&mut self, directory: &OwnedFd, name: &CStr, path: &[u8]) -> Result<()> {
        let (file, stat) = self.open(directory, name, OFlags::NONBLOCK, path)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.refuse(path, "it changed while it was read"));
        }
        let tree_path = TreePath::parse(path)?;
        if let Some(id) = self.hard_links.get(&stat.st_ino) {
            return self.tree.link_to(&tree_path, *id);
        }
        let meta = self.meta(&stat, &file, path)?;
        let extent = self.tree.spool(File::from(file))?;
        let id = self.tree.insert(&tree_path, meta, Content::File(extent))?;
        if stat.st_nlink > 1 {
            self.hard_links.insert(stat.st_ino, id);
        }
        Ok(())
    }

    fn open(&self, directory: &OwnedFd, name: &CStr, flags: OFlags, path: &[u8]) -> Result<(OwnedFd, Stat)> {
        let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let host_path = self.host_path(path);
        let fd = rustix::fs::openat(directory, name, flags, Mode::empty()).context("open", &host_path)?;
        let stat = rustix::fs::fstat(&fd).context("read", &host_path)?;
        Ok((fd, stat))
    }

    fn insert(&mut self, path: &[u8], stat: &Stat, xattrs: Xattrs, content: Content) -> Result<()> {
        let meta = Meta {
            xattrs,
            ..self.meta_without_xattrs(stat)
        };
        self.tree.insert(&TreePath::parse(path)?, meta, content).map(drop)
    }

    fn meta(&self, stat: &Stat, fd: &impl AsFd, path: &[u8]) -> Result<Meta> {
        let xattrs = xattrs(fd).ok_or_else(|| self.refuse(path, "extended attributes over 4096 bytes"))?;
        Ok(Meta {
            xattrs,
            ..self.meta_without_xattrs(stat)
        })
    }

    fn meta_without_xattrs(&self, stat: &Stat) -> Meta {
        let (uid, gid) = if self.keep_owners {
            (stat.st_uid, stat.st_gid)
        } else {
            (0, 0)
        };
        let seconds = u64::try_from(stat.st_mtime).unwrap_or_default();
        let nanoseconds = stat.st_mtime_nsec as u32;
        let mtime = Mtime { seconds, nanoseconds }.min(Mtime::LATEST);
        Meta {
            mode: (stat.st_mode & 0o7777) as u16,
            uid,
            gid,
            mtime,
            xattrs: Xattrs::default(),
        }
    }

    fn device(&self, stat: &Stat, path: &[u8]) -> Result<Device> {
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        Device::new(major, minor).ok_or_else(|| self.refuse(path, "a device number that does not exist"))
    }

    fn refuse(&self, path: &[u8], problem: &'static str) -> Error {
        Error::BadEntry {
            entry: self.host_path(path).display().to_string(),
            problem,
        }
    }

    fn host_path(&self, path: &[u8]) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        self.folder.join(std::ffi::OsStr::from_bytes(path))
    }
}

/// What cannot be listed or read is not there: many file systems have no attributes at all.
fn xattrs(fd: &impl AsFd) -> Option<Xattrs> {
    const MAX_LIST: usize = 64 << 10; // XATTR_LIST_MAX and XATTR_SIZE_MAX
    let mut kept = Xattrs::default();
    let mut list = vec![0_u8; MAX_LIST];
    let length = rustix::fs::flistxattr(fd, &mut list[..]).unwrap_or_default();
    let mut value = if length > 0 {
        vec![0_u8; MAX_LIST]
    } else {
        Vec::new()
    };
    for name in list[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let Ok(length) = rustix::fs::fgetxattr(fd, name, &mut value[..]) else {
            continue;
        };
        if !kept.add(name, &value[..length]) {
            return None;
        }
    }
    Some(kept)
}
