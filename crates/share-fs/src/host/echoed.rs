//! The guest's kernel is told, through operations that its agent repeats, what the host did. Nothing here touches the
//! folder: only what the guest's kernel believes of it.

use fuse::{Attributes, Entry, FileKind, NodeId, Reply, Timestamp};

use super::{HostFs, Place, State, identity::shown_owner, nodes::Nodes};

impl HostFs {
    /// What is gone, as if it were there, so that the guest's kernel can remove it.
    pub(crate) fn pretend(&self, parent: NodeId, name: &[u8], state: State) -> Reply<Entry> {
        let mut nodes = self.nodes();
        let parent = nodes.slot(parent)?;
        let place = Place {
            parent,
            name: name.into(),
        };
        let lives_on = |nodes: &Nodes| {
            let slot = nodes.find(state.identity);
            slot.is_some_and(|slot| nodes.place(slot).is_some())
        };
        // The node the kernel knows under this name, or one of what was there. Not one that is somewhere else by now:
        // a kernel that removes a file does not believe in it under another name.
        let identity = match nodes.at(parent, name).and_then(|slot| nodes.get(slot)) {
            Some(node) => node.identity,
            None if lives_on(&nodes) => state.identity.stand_in(),
            None => state.identity,
        };
        let slot = nodes.learn(identity, Some(place))?;
        Ok(Entry::Found {
            node: nodes.id(slot),
            generation: 0,
            attributes: remembered(identity.kind, identity.inode, state.size),
            valid: std::time::Duration::ZERO,
        })
    }

    /// The guest's kernel has removed the name. It need not have asked for it before, and the file may be known under
    /// another one.
    pub(crate) fn pretend_removed(&self, parent: NodeId, name: &[u8]) -> Reply<()> {
        let mut nodes = self.nodes();
        let parent = nodes.slot(parent)?;
        if let Some(slot) = nodes.at(parent, name) {
            nodes.displace(slot);
        }
        Ok(())
    }
}

/// Enough for a kernel that is about to remove it.
fn remembered(kind: FileKind, inode: u64, size: u64) -> Attributes {
    let never = Timestamp::default();
    Attributes {
        inode,
        kind,
        permissions: 0o755,
        size,
        blocks: 0,
        block_size: 4096,
        links: if kind == FileKind::Directory { 2 } else { 1 },
        uid: shown_owner(),
        gid: shown_owner(),
        device: 0,
        accessed: never,
        modified: never,
        changed: never,
        born: None,
        submount: false,
        valid: std::time::Duration::ZERO,
    }
}
