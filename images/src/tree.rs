//! The root file system of an image as a tree in memory; the bytes of its files lie in a spool file.
//!
//! Nothing is ever unpacked onto the host, so no entry of an archive, however it is named, can reach
//! anything but a node of this tree. Layers are applied one after another as container runtimes do:
//! a later entry replaces an earlier one, a directory met twice keeps its children, and a symbolic
//! link in the middle of a path is followed within the tree, `..` stopping at the root.

mod edit;
mod node;
mod path;
mod spool;

#[cfg(test)]
mod tests;

pub(crate) use edit::Content;
pub(crate) use node::{Device, Kind, Meta, Mtime, Node, NodeId, Xattrs};
pub(crate) use path::{Name, TreePath};
pub(crate) use spool::Extent;

use std::path::Path;

use crate::{Error, Result};
use node::Entry;
use spool::Spool;

/// Ten times the largest images seen. A node costs some 200 bytes of memory.
pub(crate) const MAX_ENTRIES: u64 = 2_000_000;
/// Names, link targets and attributes are held in memory: together no more than this.
const MAX_METADATA_BYTES: u64 = 512 << 20;
/// Deeper than any path that PATH_MAX lets a program name with ordinary names.
pub(crate) const MAX_DEPTH: usize = 512;
/// What Linux follows before it says ELOOP.
const MAX_SYMLINKS: usize = 40;
/// Path components looked at over the life of a tree: links that lead through links could
/// otherwise cost 80,000 steps for each entry.
const MAX_STEPS: u64 = 200_000_000;

#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    spool: Spool,
    /// Counts the layers, so that a whiteout removes only what older layers brought.
    layer: u32,
    metadata_bytes: u64,
    steps: u64,
}

impl Tree {
    const ROOT: NodeId = NodeId(0);

    /// An empty tree whose file contents will go to a nameless file in `directory`.
    pub(crate) fn new(directory: &Path) -> Result<Self> {
        let root = Node {
            meta: Meta::directory(),
            kind: Kind::Directory(Default::default()),
        };
        let spool = Spool::new(directory)?;
        Ok(Self {
            nodes: vec![root],
            spool,
            layer: 0,
            metadata_bytes: 0,
            steps: 0,
        })
    }

    pub(crate) fn begin_layer(&mut self) {
        self.layer += 1;
    }

    pub(crate) fn root(&self) -> NodeId {
        Self::ROOT
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    pub(crate) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Children in the byte order of their names; nothing for what is not a directory.
    pub(crate) fn children(&self, id: NodeId) -> impl DoubleEndedIterator<Item = (&Name, NodeId)> {
        let entries = match &self.node(id).kind {
            Kind::Directory(entries) => Some(entries),
            _ => None,
        };
        entries
            .into_iter()
            .flatten()
            .map(|(name, entry)| (name, entry.id))
    }

    pub(crate) fn child(&self, id: NodeId, name: &Name) -> Option<NodeId> {
        match &self.node(id).kind {
            Kind::Directory(entries) => entries.get(name).map(|entry| entry.id),
            _ => None,
        }
    }

    /// The node at `path`, symbolic links followed, the last one too.
    pub(crate) fn find(&mut self, path: &str) -> Option<NodeId> {
        let path = TreePath::parse(path.as_bytes()).ok()?;
        self.walk(path.names(), edit::Missing::Refuse)
            .ok()?
            .last()
            .copied()
    }

    /// The bytes of a regular file no longer than `limit`.
    pub(crate) fn read(&self, id: NodeId, limit: u64) -> Result<Option<Vec<u8>>> {
        let Kind::File(extent) = &self.node(id).kind else {
            return Ok(None);
        };
        if extent.length > limit {
            return Err(Error::OverLimit {
                what: "bytes in a file read whole",
                limit,
            });
        }
        let mut bytes = vec![0; usize::try_from(extent.length).unwrap_or(usize::MAX)];
        self.spool.read_exact_at(&mut bytes, extent.offset)?;
        Ok(Some(bytes))
    }

    pub(crate) fn read_at(&self, extent: &Extent, skip: u64, buffer: &mut [u8]) -> Result<()> {
        self.spool.read_exact_at(buffer, extent.offset + skip)
    }

    /// Sets every later time to `latest`: what an installation wrote "now" is the same in every run.
    pub(crate) fn clamp_times(&mut self, latest: Mtime) {
        for node in &mut self.nodes {
            node.meta.mtime = node.meta.mtime.min(latest);
        }
    }

    fn charge(&mut self, bytes: usize) -> Result<()> {
        self.metadata_bytes += bytes as u64;
        if self.metadata_bytes > MAX_METADATA_BYTES {
            return Err(Error::OverLimit {
                what: "bytes of names, links and attributes",
                limit: MAX_METADATA_BYTES,
            });
        }
        Ok(())
    }

    fn count_step(&mut self) -> Result<()> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(Error::OverLimit {
                what: "path components",
                limit: MAX_STEPS,
            });
        }
        Ok(())
    }

    fn entries_mut(&mut self, id: NodeId) -> Option<&mut std::collections::BTreeMap<Name, Entry>> {
        match &mut self.nodes[id.0 as usize].kind {
            Kind::Directory(entries) => Some(entries),
            _ => None,
        }
    }
}
