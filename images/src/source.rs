//! Where the root file system of an imported image comes from: a folder, a tar, an OCI image.

mod blobs;
mod folder;
mod oci;

#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;

use crate::error::Context;
use crate::modules::{self, Module};
use crate::tarball::{self, Whiteouts};
use crate::tree::Tree;
use crate::{Error, Result, RunConfig, Source};
use blobs::{FolderBlobs, TarBlobs};

const OCI_LAYOUT: &str = "oci-layout";

#[derive(Debug)]
pub(crate) struct Imported {
    pub(crate) source: Source,
    pub(crate) config: Option<RunConfig>,
}

/// Fills `tree` from what lies at `path`, whatever it is; `scratch` is where a compressed archive
/// is unpacked for random access.
pub(crate) fn import(tree: &mut Tree, path: &Path, scratch: &Path) -> Result<Imported> {
    let kind = std::fs::metadata(path).context("read", path)?.file_type();
    let from = path
        .file_name()
        .unwrap_or(OsStr::new("/"))
        .to_string_lossy()
        .into_owned();
    if kind.is_dir() && path.join(OCI_LAYOUT).is_file() {
        let config = oci::import_layout(tree, &FolderBlobs::new(path), &path.to_string_lossy())?;
        Ok(Imported {
            source: Source::Oci { from },
            config: Some(config),
        })
    } else if kind.is_dir() {
        folder::import(tree, path)?;
        Ok(Imported {
            source: Source::Directory { from },
            config: None,
        })
    } else if kind.is_file() {
        import_file(tree, path, scratch, from)
    } else {
        Err(Error::NotASource {
            path: path.to_owned(),
        })
    }
}

/// The modules an initramfs needs from a host folder `/lib/modules/VERSION`.
pub(crate) fn modules(folder: &Path, scratch: &Path, version: &str) -> Result<Vec<Module>> {
    let mut tree = Tree::new(scratch)?;
    folder::import(&mut tree, folder)?;
    modules::wanted(&tree, tree.root(), version)
}

fn import_file(tree: &mut Tree, path: &Path, scratch: &Path, from: String) -> Result<Imported> {
    let archive = path.to_string_lossy();
    let file = File::open(path).context("open", path)?;
    let blobs = TarBlobs::new(file, path, scratch)?;
    if blobs.has(OCI_LAYOUT) {
        let config = oci::import_layout(tree, &blobs, &archive)?;
        return Ok(Imported {
            source: Source::Oci { from },
            config: Some(config),
        });
    }
    if let Some(config) = oci::import_docker(tree, &blobs, &archive)? {
        return Ok(Imported {
            source: Source::Oci { from },
            config: Some(config),
        });
    }
    tarball::apply(tree, &archive, blobs.whole()?, Whiteouts::Literal)?;
    Ok(Imported {
        source: Source::Tar { from },
        config: None,
    })
}
