//! Which kernel modules the initramfs carries, and in which order they load.
//!
//! Dependencies are read from the modules themselves (`.modinfo`), not from `modules.dep`: a kernel
//! package does not contain that file, depmod writes it at installation.

mod modinfo;

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{NodeId, Tree};
use crate::{Error, Result, compress};

/// What a guest needs before it has its root file system.
const REQUIRED: [&str; 9] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_rng",
    "virtio_balloon",
    "vsock",
    "vmw_vsock_virtio_transport",
    "erofs",
    "ext4",
    "overlay",
];
/// Loaded first, where they exist: the checksum that others ask for by a name that is no module's,
/// and the transport of VMMs without PCI.
const OPTIONAL: [&str; 3] = ["crc32c_generic", "crc32c_intel", "virtio_mmio"];
/// Loaded last, where they exist: the network card and the folders of the host. A kernel without them boots, and has none.
const LAST: [&str; 2] = ["virtio_net", "virtiofs"];

/// The largest modules, graphics drivers, have 10 MB.
const MAX_MODULE_BYTES: u64 = 64 << 20;
const MAX_LIST_BYTES: u64 = 16 << 20;

/// A module as it goes into the initramfs: not compressed, for a loader that only passes it on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Module {
    pub(crate) file: String,
    pub(crate) bytes: Vec<u8>,
}

/// The wanted modules of the kernel whose modules lie in `directory` of the tree, dependencies first.
pub(crate) fn wanted(tree: &Tree, directory: NodeId, version: &str) -> Result<Vec<Module>> {
    let mut resolver = Resolver::new(tree, directory, version)?;
    OPTIONAL.iter().try_for_each(|name| resolver.add(name, false))?;
    REQUIRED.iter().try_for_each(|name| resolver.add(name, true))?;
    LAST.iter().try_for_each(|name| resolver.add(name, false))?;
    Ok(resolver.chosen)
}

/// The names that take part in what an image is made of.
pub(crate) fn recipe() -> String {
    [&REQUIRED[..], &OPTIONAL[..], &LAST[..]].concat().join(" ")
}

struct Resolver<'a> {
    tree: &'a Tree,
    version: &'a str,
    loadable: BTreeMap<String, NodeId>,
    built_in: BTreeSet<String>,
    seen: BTreeSet<String>,
    chosen: Vec<Module>,
}

impl<'a> Resolver<'a> {
    fn new(tree: &'a Tree, directory: NodeId, version: &'a str) -> Result<Self> {
        Ok(Self {
            loadable: loadable(tree, directory),
            built_in: built_in(tree, directory)?,
            tree,
            version,
            seen: BTreeSet::new(),
            chosen: Vec::new(),
        })
    }

    /// Modules form a short graph without cycles; `seen` also ends the search where a broken one has some.
    fn add(&mut self, name: &str, required: bool) -> Result<()> {
        let name = canonical(name);
        if self.seen.contains(&name) || self.built_in.contains(&name) {
            return Ok(());
        }
        let Some(id) = self.loadable.get(&name) else {
            let missing = || Error::MissingModule {
                module: name,
                version: self.version.to_owned(),
            };
            return if required { Err(missing()) } else { Ok(()) };
        };
        self.seen.insert(name.clone());
        let bytes = read(self.tree, *id, &name)?;
        let needs = modinfo::needs(&bytes).map_err(|problem| Error::BadModule {
            module: name.clone(),
            problem,
        })?;
        needs.hard.iter().try_for_each(|need| self.add(need, true))?;
        needs.soft.iter().try_for_each(|need| self.add(need, false))?;
        self.chosen.push(Module {
            file: format!("{name}.ko"),
            bytes,
        });
        Ok(())
    }
}

/// Every `NAME.ko` below a directory, compressed or not.
fn loadable(tree: &Tree, directory: NodeId) -> BTreeMap<String, NodeId> {
    let mut found = BTreeMap::new();
    let mut pending = vec![directory];
    while let Some(id) = pending.pop() {
        for (name, child) in tree.children(id) {
            pending.push(child);
            let Ok(name) = std::str::from_utf8(name.as_bytes()) else {
                continue;
            };
            let plain = [".xz", ".zst", ".gz"]
                .iter()
                .find_map(|end| name.strip_suffix(end))
                .unwrap_or(name);
            if let Some(stem) = plain.strip_suffix(".ko") {
                found.insert(canonical(stem), child);
            }
        }
    }
    found
}

/// `modules.builtin` has one path per line: `kernel/fs/ext4/ext4.ko`.
fn built_in(tree: &Tree, directory: NodeId) -> Result<BTreeSet<String>> {
    let file = tree
        .children(directory)
        .find(|(name, _)| name.as_bytes() == b"modules.builtin");
    let Some((_, id)) = file else {
        return Ok(BTreeSet::new());
    };
    let list = tree.read(id, MAX_LIST_BYTES)?.unwrap_or_default();
    let list = String::from_utf8_lossy(&list);
    let stems = list
        .lines()
        .filter_map(|line| line.rsplit('/').next()?.strip_suffix(".ko"));
    Ok(stems.map(canonical).collect())
}

fn read(tree: &Tree, id: NodeId, name: &str) -> Result<Vec<u8>> {
    let bytes = tree.read(id, MAX_MODULE_BYTES)?.unwrap_or_default();
    let plain = compress::decoded(&bytes[..]).and_then(|s| compress::read_bounded(s, MAX_MODULE_BYTES));
    plain.map_err(|source| Error::Archive {
        archive: format!("kernel module {name}"),
        source,
    })
}

/// The kernel writes module names with `_`, file names often with `-`.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests;
