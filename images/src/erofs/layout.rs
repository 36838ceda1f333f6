//! Where everything goes, decided before the first byte is written.

use super::{BLOCK, INODE_BYTES, SLOT, attributes, directory};
use crate::tree::{Kind, NodeId, Tree};
use crate::{Error, Result};

/// A tail up to this long goes beside its inode and saves a block; a longer one would waste as much
/// in the gap before the inode as it saves.
const MAX_INLINE_TAIL: u64 = 2048;
/// Contents above this are whole blocks only: half a block is nothing to them, and reading them
/// never has to look at metadata.
const MAX_INLINE_SIZE: u64 = 64 << 10;
/// The superblock is block 0, the inodes begin in the next.
const FIRST_INODE: u64 = BLOCK;

#[derive(Debug)]
pub(super) struct Layout {
    /// In the order of their positions; the root is the first.
    pub(super) inodes: Vec<Placed>,
    pub(super) first_data_block: u64,
    pub(super) blocks: u32,
    /// Slot of each node, by the node's index in the tree; zero where a node is in no directory.
    nids: Vec<u64>,
}

#[derive(Debug)]
pub(super) struct Placed {
    pub(super) id: NodeId,
    pub(super) parent: NodeId,
    /// Counts from 1 in the order of the image: what `st_ino` is on 32-bit systems.
    pub(super) number: u32,
    pub(super) links: u32,
    pub(super) size: u64,
    /// Byte position of the inode in the image.
    pub(super) position: u64,
    /// Where the full blocks lie, if there are any.
    pub(super) first_block: u64,
    inline: bool,
}

impl Placed {
    pub(super) fn inline_tail(&self) -> u64 {
        if self.inline { self.size % BLOCK } else { 0 }
    }

    /// Blocks outside of the inode; the last may be partly filled when nothing is inline.
    pub(super) fn full_blocks(&self) -> u64 {
        (self.size - self.inline_tail()).div_ceil(BLOCK)
    }
}

impl Layout {
    pub(super) fn of(tree: &Tree) -> Result<Self> {
        let mut inodes = visit(tree);
        let mut nids = vec![0; tree.node_count()];
        let mut end = FIRST_INODE;
        for placed in &mut inodes {
            let header = INODE_BYTES + attributes(&tree.node(placed.id).meta).len() as u64;
            placed.inline = placed.size % BLOCK != 0 && goes_inline(tree, placed, header);
            placed.position = position(end, header, placed.inline_tail());
            end = placed.position + header + placed.inline_tail();
            nids[placed.id.index()] = placed.position / SLOT;
        }
        let first_data_block = end.div_ceil(BLOCK);
        let mut next = first_data_block;
        for placed in &mut inodes {
            placed.first_block = next;
            next += placed.full_blocks();
        }
        let blocks = u32::try_from(next).map_err(|_| Error::OverLimit {
            what: "blocks of 4096 bytes",
            limit: u32::MAX.into(),
        })?;
        Ok(Self {
            inodes,
            first_data_block,
            blocks,
            nids,
        })
    }

    pub(super) fn nid(&self, id: NodeId) -> u64 {
        self.nids[id.index()]
    }
}

/// Every node once, directories before what lies in them, with the number of its names.
fn visit(tree: &Tree) -> Vec<Placed> {
    let mut links = vec![0_u32; tree.node_count()];
    let mut inodes = Vec::new();
    let mut pending = vec![(tree.root(), tree.root())];
    while let Some((id, parent)) = pending.pop() {
        links[id.index()] += 1;
        if links[id.index()] > 1 {
            continue;
        }
        let number = inodes.len() as u32 + 1;
        let size = size(tree, id, parent);
        inodes.push(Placed {
            id,
            parent,
            number,
            links: 1,
            size,
            position: 0,
            first_block: 0,
            inline: false,
        });
        pending.extend(tree.children(id).rev().map(|(_, child)| (child, id)));
    }
    for placed in &mut inodes {
        placed.links = match &tree.node(placed.id).kind {
            Kind::Directory(_) => 2 + subdirectories(tree, placed.id),
            _ => links[placed.id.index()],
        };
    }
    inodes
}

fn subdirectories(tree: &Tree, id: NodeId) -> u32 {
    let is_directory = |child: NodeId| matches!(tree.node(child).kind, Kind::Directory(_));
    tree.children(id)
        .filter(|(_, child)| is_directory(*child))
        .count() as u32
}

fn size(tree: &Tree, id: NodeId, parent: NodeId) -> u64 {
    match &tree.node(id).kind {
        Kind::File(extent) => extent.length,
        Kind::Symlink(target) => target.len() as u64,
        Kind::Directory(_) => directory::pack(tree, id, parent, |_| 0).len() as u64,
        Kind::Character(_) | Kind::Block(_) | Kind::Fifo => 0,
    }
}

fn goes_inline(tree: &Tree, placed: &Placed, header: u64) -> bool {
    let tail = placed.size % BLOCK;
    // The kernel refuses a tail that crosses into another block.
    let fits = header + tail <= BLOCK;
    match tree.node(placed.id).kind {
        Kind::File(_) => fits && tail <= MAX_INLINE_TAIL && placed.size <= MAX_INLINE_SIZE,
        _ => fits,
    }
}

/// The first slot from `end` on such that the tail does not cross into another block.
fn position(end: u64, header: u64, tail: u64) -> u64 {
    let slot = end.next_multiple_of(SLOT);
    let start = slot + header;
    let crosses = tail > 0 && start / BLOCK != (start + tail - 1) / BLOCK;
    if crosses {
        slot.next_multiple_of(BLOCK)
    } else {
        slot
    }
}
