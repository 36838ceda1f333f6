//! Changing the tree: adding what an entry says, and taking away what a whiteout names.

use std::collections::VecDeque;
use std::io::Read;

use super::node::{Device, Entry};
use super::path::bad_entry;
use super::{Extent, Kind, MAX_DEPTH, MAX_ENTRIES, MAX_SYMLINKS, Meta, Name, Node, NodeId, Tree, TreePath};
use crate::{Error, Result};

/// PATH_MAX less its NUL: what symlink(2) takes.
const MAX_LINK: usize = 4095;

/// What an entry is, its file content already spooled.
#[derive(Debug)]
pub(crate) enum Content {
    Directory,
    File(Extent),
    Symlink(Vec<u8>),
    Character(Device),
    Block(Device),
    Fifo,
}

/// What to do about a directory in the middle of a path that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Create,
    Refuse,
}

impl Tree {
    pub(crate) fn spool(&mut self, content: impl Read) -> Result<Extent> {
        self.spool.append(content)
    }

    /// Adds an entry, replacing what was there; a directory over a directory keeps its children.
    pub(crate) fn insert(&mut self, path: &TreePath, meta: Meta, content: Content) -> Result<NodeId> {
        let is_directory = matches!(content, Content::Directory);
        let Some((name, above)) = path.split_last() else {
            if !is_directory {
                return Err(bad_entry(b"/", "the root is not a directory"));
            }
            self.nodes[0].meta = meta;
            return Ok(self.root());
        };
        let parent = self.parent(above)?;
        if let Some(old) = self.child(parent, name)
            && is_directory
            && matches!(self.node(old).kind, Kind::Directory(_))
        {
            self.charge(meta.xattrs.bytes())?;
            self.nodes[old.index()].meta = meta;
            self.enter(parent, name, old);
            return Ok(old);
        }
        let kind = kind_of(path, content)?;
        let id = self.add_node(name, meta, kind)?;
        self.enter(parent, name, id);
        Ok(id)
    }

    /// A second name for the file at `target`, which is not followed when it is itself a symbolic link.
    pub(crate) fn link(&mut self, path: &TreePath, target: &TreePath) -> Result<()> {
        let missing = || Error::BadEntry {
            entry: path.to_string(),
            problem: "a hard link to a file that is not there",
        };
        let (target_name, target_above) = target.split_last().ok_or_else(missing)?;
        let target_parent = *self
            .walk(target_above, Missing::Refuse)?
            .last()
            .ok_or_else(missing)?;
        let id = self.child(target_parent, target_name).ok_or_else(missing)?;
        self.link_to(path, id)
    }

    /// A second name for a node.
    pub(crate) fn link_to(&mut self, path: &TreePath, id: NodeId) -> Result<()> {
        if matches!(self.node(id).kind, Kind::Directory(_)) {
            return Err(Error::BadEntry {
                entry: path.to_string(),
                problem: "a hard link to a directory",
            });
        }
        let Some((name, above)) = path.split_last() else {
            return Err(bad_entry(b"/", "the root is not a directory"));
        };
        let parent = self.parent(above)?;
        self.charge(name.as_bytes().len())?;
        self.enter(parent, name, id);
        Ok(())
    }

    /// Takes away what older layers put at `path`; what this layer put there stays.
    pub(crate) fn white_out(&mut self, above: &[Name], name: &Name) -> Result<()> {
        let parent = self.parent(above)?;
        let layer = self.layer;
        let Some(entries) = self.entries_mut(parent) else {
            return Ok(());
        };
        match entries.get(name) {
            Some(entry) if entry.layer == layer => {
                let id = entry.id;
                self.drop_older(id);
            }
            Some(_) => drop(entries.remove(name)),
            None => {}
        }
        Ok(())
    }

    /// Takes away everything older layers put into the directory at `path`.
    pub(crate) fn make_opaque(&mut self, path: &[Name]) -> Result<()> {
        let id = self.parent(path)?;
        self.drop_older(id);
        Ok(())
    }

    /// Takes away the entry at `path` if it is there.
    pub(crate) fn remove(&mut self, path: &str) -> Result<()> {
        let path = TreePath::parse(path.as_bytes())?;
        let Some((name, above)) = path.split_last() else {
            return Ok(());
        };
        let parent = self.walk(above, Missing::Refuse)?.last().copied();
        if let Some(entries) = parent.and_then(|id| self.entries_mut(id)) {
            entries.remove(name);
        }
        Ok(())
    }

    fn drop_older(&mut self, id: NodeId) {
        let layer = self.layer;
        let mut pending = vec![id];
        while let Some(id) = pending.pop() {
            if let Some(entries) = self.entries_mut(id) {
                entries.retain(|_, entry| entry.layer == layer);
                pending.extend(entries.values().map(|entry| entry.id));
            }
        }
    }

    fn add_node(&mut self, name: &Name, meta: Meta, kind: Kind) -> Result<NodeId> {
        let id = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        if u64::from(id) >= MAX_ENTRIES {
            return Err(Error::OverLimit {
                what: "files and directories",
                limit: MAX_ENTRIES,
            });
        }
        let link = if let Kind::Symlink(target) = &kind {
            target.len()
        } else {
            0
        };
        self.charge(name.as_bytes().len() + link + meta.xattrs.bytes())?;
        self.nodes.push(Node { meta, kind });
        Ok(NodeId(id))
    }

    fn enter(&mut self, parent: NodeId, name: &Name, id: NodeId) {
        let layer = self.layer;
        if let Some(entries) = self.entries_mut(parent) {
            entries.insert(name.clone(), Entry { id, layer });
        }
    }

    /// The directory at `path`, made if it is not there.
    fn parent(&mut self, path: &[Name]) -> Result<NodeId> {
        Ok(self
            .walk(path, Missing::Create)?
            .last()
            .copied()
            .unwrap_or(Self::ROOT))
    }

    /// Goes down `path` from the root, following symbolic links as a process would whose root this
    /// tree is. Gives the nodes from the root to the end; all but the last are directories, and the
    /// last too where missing directories are made.
    pub(super) fn walk(&mut self, path: &[Name], missing: Missing) -> Result<Vec<NodeId>> {
        let refuse = |problem| {
            let entry = path.iter().map(|name| format!("/{name:?}")).collect();
            Error::BadEntry { entry, problem }
        };
        let mut stack = vec![self.root()];
        let mut pending: VecDeque<Step> = path.iter().cloned().map(Step::Down).collect();
        let mut links = 0;
        while let Some(step) = pending.pop_front() {
            self.count_step()?;
            let Step::Down(name) = step else {
                if stack.len() > 1 {
                    stack.pop();
                }
                continue;
            };
            let here = stack.last().copied().unwrap_or(Self::ROOT);
            let id = match self.child(here, &name) {
                Some(id) => id,
                None if missing == Missing::Create => self.add_directory(&name)?,
                None => return Err(refuse("a path that is not there")),
            };
            if missing == Missing::Create {
                self.enter(here, &name, id);
            }
            match &self.node(id).kind {
                Kind::Directory(_) if stack.len() >= MAX_DEPTH => return Err(refuse("a path too deep")),
                Kind::Directory(_) => stack.push(id),
                Kind::Symlink(target) => {
                    links += 1;
                    if links > MAX_SYMLINKS {
                        return Err(refuse("a path through too many symbolic links"));
                    }
                    let steps = steps_of(target)?;
                    if target.starts_with(b"/") {
                        stack.truncate(1);
                    }
                    steps.into_iter().rev().for_each(|step| pending.push_front(step));
                }
                _ if pending.is_empty() && missing == Missing::Refuse => stack.push(id),
                _ => return Err(refuse("a path through something that is not a directory")),
            }
        }
        Ok(stack)
    }

    fn add_directory(&mut self, name: &Name) -> Result<NodeId> {
        self.add_node(name, Meta::directory(), Kind::Directory(Default::default()))
    }
}

enum Step {
    Up,
    Down(Name),
}

fn steps_of(target: &[u8]) -> Result<Vec<Step>> {
    let parts = target
        .split(|b| *b == b'/')
        .filter(|part| !matches!(*part, b"" | b"."));
    parts
        .map(|part| {
            if part == b".." {
                Ok(Step::Up)
            } else {
                Name::parse(part).map(Step::Down)
            }
        })
        .collect()
}

fn kind_of(path: &TreePath, content: Content) -> Result<Kind> {
    let refuse = |problem| Error::BadEntry {
        entry: path.to_string(),
        problem,
    };
    Ok(match content {
        Content::Directory => Kind::Directory(Default::default()),
        Content::File(extent) => Kind::File(extent),
        Content::Symlink(target) if target.is_empty() => return Err(refuse("a symbolic link to nothing")),
        Content::Symlink(target) if target.len() > MAX_LINK || target.contains(&0) => {
            return Err(refuse(
                "a symbolic link longer than 4095 bytes or with a NUL byte",
            ));
        }
        Content::Symlink(target) => Kind::Symlink(target.into()),
        Content::Character(device) => Kind::Character(device),
        Content::Block(device) => Kind::Block(device),
        Content::Fifo => Kind::Fifo,
    })
}
