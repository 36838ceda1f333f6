//! The content of a directory: blocks that each begin with their entries and end with the names.
//!
//! The kernel searches them by bisection, first over blocks and then within one, so names are in byte
//! order over the whole directory, `.` and `..` among them.

use super::BLOCK_BYTES;
use crate::tree::{Kind, NodeId, Tree};

/// Node number, offset of the name, file type, one byte of nothing.
const ENTRY_BYTES: usize = 12;

struct Item<'a> {
    name: &'a [u8],
    id: NodeId,
}

/// The bytes of a directory; the last block is as long as it needs to be.
pub(super) fn pack(tree: &Tree, id: NodeId, parent: NodeId, nid: impl Fn(NodeId) -> u64) -> Vec<u8> {
    let own = [
        Item { name: b".", id },
        Item {
            name: b"..",
            id: parent,
        },
    ];
    let children = tree.children(id).map(|(name, id)| Item {
        name: name.as_bytes(),
        id,
    });
    let mut items: Vec<_> = own.into_iter().chain(children).collect();
    items.sort_unstable_by_key(|item| item.name);
    let mut bytes = Vec::new();
    let mut rest = &items[..];
    while !rest.is_empty() {
        let (block, after) = rest.split_at(fitting(rest));
        bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        pack_block(tree, block, &nid, &mut bytes);
        rest = after;
    }
    bytes
}

/// How many of the items fit a block: at least one, for a name has at most 255 bytes.
fn fitting(items: &[Item<'_>]) -> usize {
    let mut used = 0;
    let fits = |item: &&Item<'_>| {
        used += ENTRY_BYTES + item.name.len();
        used <= BLOCK_BYTES
    };
    items.iter().take_while(fits).count().max(1)
}

fn pack_block(tree: &Tree, items: &[Item<'_>], nid: impl Fn(NodeId) -> u64, bytes: &mut Vec<u8>) {
    let mut name_offset = items.len() * ENTRY_BYTES;
    for item in items {
        bytes.extend(nid(item.id).to_le_bytes());
        bytes.extend((name_offset as u16).to_le_bytes());
        bytes.extend([entry_type(&tree.node(item.id).kind), 0]);
        name_offset += item.name.len();
    }
    items.iter().for_each(|item| bytes.extend(item.name));
}

/// `EROFS_FT_*`, the same numbers as in other file systems.
fn entry_type(kind: &Kind) -> u8 {
    match kind {
        Kind::File(_) => 1,
        Kind::Directory(_) => 2,
        Kind::Character(_) => 3,
        Kind::Block(_) => 4,
        Kind::Fifo => 5,
        Kind::Symlink(_) => 7,
    }
}
