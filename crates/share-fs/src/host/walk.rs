//! Looking at everything below a directory, for a decision that depends on it.

use std::os::fd::{AsFd, OwnedFd};

use fuse::{FileKind, Name, NodeId, Reply};
use rustix::{
    fs::{Dir, OFlags},
    io::Errno,
};
use share_policy::RelPath;

use super::{HostFs, Identity, beneath};

/// Something seen below a directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    /// From the directory the walk began in.
    pub(crate) path: &'a RelPath,
    pub(crate) kind: FileKind,
    pub(crate) links: u32,
    pub(crate) identity: Identity,
}

/// Directories open in each other during a walk.
const MAX_DEPTH: usize = 64;

impl HostFs {
    /// Shows `each` what is below `name` in `parent`, or below the folder when there is no name, itself left out; a
    /// directory is entered when `each` says so. More than `limit` entries, directories too deep, and what cannot be
    /// looked at are EMFILE: who asked must then assume the worst.
    pub(crate) fn walk(
        &self,
        start: Option<(NodeId, Name<'_>)>,
        limit: usize,
        each: &mut dyn FnMut(&Seen<'_>) -> Reply<bool>,
    ) -> Reply<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let (directory, name): (_, &[u8]) = match start {
            Some((parent, name)) => (self.parent(parent)?.1, name.as_bytes()),
            None => (self.directory(super::ROOT)?, b"."),
        };
        let top = match beneath::open(directory.as_fd(), name, flags, 0) {
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => return Ok(()),
            Err(Errno::ACCESS | Errno::PERM) => return Err(Errno::MFILE),
            other => other?,
        };
        let mut left = limit;
        let mut stack: Vec<(OwnedFd, Dir, RelPath)> = vec![open_dir(top, RelPath::root())?];
        while let Some((file, entries, path)) = stack.last_mut() {
            let Some(entry) = entries.next() else {
                stack.pop();
                continue;
            };
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            left = left.checked_sub(1).ok_or(Errno::MFILE)?;
            let found = match self.found_at(file.as_fd(), name) {
                Ok(found) => found,
                Err(Errno::NOENT) => continue,
                Err(_) => return Err(Errno::MFILE),
            };
            // Nobody gets onto another mount through this folder.
            if self.same_mount(&found).is_err() {
                continue;
            }
            let path = path.join(name).map_err(|_| Errno::MFILE)?;
            let seen = Seen {
                path: &path,
                kind: found.identity.kind,
                links: found.links(),
                identity: found.identity,
            };
            if each(&seen)? && found.identity.kind == FileKind::Directory {
                if stack.len() >= MAX_DEPTH {
                    return Err(Errno::MFILE);
                }
                let below = match stack.last() {
                    Some((file, ..)) => beneath::open(file.as_fd(), name, flags, 0),
                    None => continue,
                };
                match below {
                    Ok(below) => stack.push(open_dir(below, path)?),
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                    Err(_) => return Err(Errno::MFILE),
                }
            }
        }
        Ok(())
    }

    /// What a node is on the host.
    pub(crate) fn identity(&self, node: NodeId) -> Reply<Identity> {
        let nodes = self.nodes();
        let slot = nodes.slot(node)?;
        nodes.get(slot).map(|node| node.identity).ok_or(Errno::STALE)
    }
}

fn open_dir(file: OwnedFd, path: RelPath) -> Reply<(OwnedFd, Dir, RelPath)> {
    let entries = Dir::read_from(&file)?;
    Ok((file, entries, path))
}
