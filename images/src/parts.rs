//! Writing the parts of an image into its folder, and the manifest that names them.

use std::io::{BufWriter, Write};
use std::path::Path;

use crate::debian::installed;
use crate::digest::Hashing;
use crate::error::Context;
use crate::manifest::{FORMAT, INITRAMFS, KERNEL, MODULES, ROOTFS};
use crate::modules::Module;
use crate::staging::{create_private, make_directory, write_private};
use crate::store::{KernelParts, module_file};
use crate::tree::{Content, Meta, Tree, TreePath};
use crate::{
    Digest, Error, Image, ImageName, Manifest, Part, Result, RunConfig, Source, erofs, initramfs, verify,
};

const BUFFER_BYTES: usize = 1 << 20;

/// What the guest agent mounts over: there in every image, so that a read-only root has them too.
const MOUNT_POINTS: [(&str, u16); 6] = [
    ("dev", 0o755),
    ("proc", 0o555),
    ("run", 0o755),
    ("sessions", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
];

/// Everything an image is made of beside its tree.
#[derive(Debug)]
pub(crate) struct Assembly<'a> {
    pub(crate) name: &'a ImageName,
    pub(crate) source: Source,
    pub(crate) recipe: Option<Digest>,
    pub(crate) config: Option<RunConfig>,
    pub(crate) agent: &'a [u8],
    pub(crate) kernel: KernelParts,
}

pub(crate) fn assemble(directory: &Path, tree: &mut Tree, assembly: Assembly<'_>) -> Result<Manifest> {
    let KernelParts {
        kernel,
        modules,
        package,
    } = assembly.kernel;
    add_mount_points(tree)?;
    let mut packages = installed(tree)?;
    packages.extend(package);
    packages.sort_unstable();
    let manifest = Manifest {
        format: FORMAT,
        name: assembly.name.clone(),
        source: assembly.source,
        recipe: assembly.recipe,
        agent: Digest::of(assembly.agent),
        kernel_version: kernel.version,
        kernel: write_part(directory, KERNEL, &kernel.vmlinux)?,
        initramfs: write_initramfs(directory, assembly.agent, &modules)?,
        rootfs: write_rootfs(directory, tree)?,
        modules: write_modules(directory, &modules)?,
        config: assembly.config,
        packages,
    };
    seal(directory, &manifest)?;
    Ok(manifest)
}

/// The same image with another agent: what does not change is linked, not copied.
pub(crate) fn repack(old: &Image, agent: &[u8], directory: &Path) -> Result<Manifest> {
    let modules = modules(old)?;
    for part in [&old.manifest().kernel, &old.manifest().rootfs] {
        let (from, to) = (old.directory().join(&part.file), directory.join(&part.file));
        std::fs::hard_link(&from, &to).context("link", &from)?;
    }
    let manifest = Manifest {
        agent: Digest::of(agent),
        initramfs: write_initramfs(directory, agent, &modules)?,
        modules: write_modules(directory, &modules)?,
        ..old.manifest().clone()
    };
    seal(directory, &manifest)?;
    Ok(manifest)
}

/// The modules of an image in the order in which they load, checked.
pub(crate) fn modules(image: &Image) -> Result<Vec<Module>> {
    let parts = image.manifest().modules.iter();
    let module = |part: &Part| {
        let file = part.file.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(Module {
            file,
            bytes: image.read(part)?,
        })
    };
    parts.map(module).collect()
}

fn add_mount_points(tree: &mut Tree) -> Result<()> {
    for (path, mode) in MOUNT_POINTS {
        if tree.find(path).is_none() {
            let meta = Meta {
                mode,
                ..Meta::directory()
            };
            tree.insert(&TreePath::parse(path.as_bytes())?, meta, Content::Directory)?;
        }
    }
    Ok(())
}

/// The manifest comes last: a folder with one is complete.
fn seal(directory: &Path, manifest: &Manifest) -> Result<()> {
    stamp(directory, manifest)?;
    manifest.write(directory)
}

/// Notes that the parts are what the manifest says, as they have just been written or checked.
pub(crate) fn stamp(directory: &Path, manifest: &Manifest) -> Result<()> {
    verify::stamp(
        directory,
        [&manifest.kernel, &manifest.initramfs, &manifest.rootfs],
    )
}

fn write_modules(directory: &Path, modules: &[Module]) -> Result<Vec<Part>> {
    make_directory(&directory.join(MODULES))?;
    modules
        .iter()
        .map(|module| write_part(directory, &module_file(&module.file), &module.bytes))
        .collect()
}

fn write_initramfs(directory: &Path, agent: &[u8], modules: &[Module]) -> Result<Part> {
    let mut archive = Vec::new();
    initramfs::write(&mut archive, agent, modules).context("write", directory.join(INITRAMFS))?;
    write_part(directory, INITRAMFS, &archive)
}

fn write_part(directory: &Path, file: &str, bytes: &[u8]) -> Result<Part> {
    write_private(&directory.join(file), bytes)?;
    Ok(Part {
        file: file.to_owned(),
        size: bytes.len() as u64,
        sha256: Digest::of(bytes),
    })
}

fn write_rootfs(directory: &Path, tree: &Tree) -> Result<Part> {
    let path = directory.join(ROOTFS);
    let file = create_private(&path)?;
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, Hashing::new(&file));
    erofs::write(tree, &mut out)?;
    out.flush().context("write", &path)?;
    let hash = out.into_inner().map_err(|e| Error::Io {
        act: "write",
        path: path.clone(),
        source: e.into_error(),
    })?;
    let (sha256, size) = hash.finish();
    file.sync_all().context("write", &path)?;
    Ok(Part {
        file: ROOTFS.to_owned(),
        size,
        sha256,
    })
}
