//! The folder of images, and everything that is done with them.

use std::path::{Path, PathBuf};

use crate::error::Context;
use crate::kernel::Kernel;
use crate::manifest::MODULES;
use crate::modules::Module;
use crate::parts::Assembly;
use crate::progress::{Report, step};
use crate::staging::{self, Staging};
use crate::tree::Tree;
use crate::{Digest, Error, ImageName, Manifest, Package, Result, Selection, Source, debian, parts, source};

/// The agent is a static program of some megabytes.
pub(crate) const MAX_AGENT_BYTES: u64 = 256 << 20;

/// A folder with a folder for each image.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
}

/// An image whose manifest has been read; its parts have not been looked at yet.
#[derive(Debug, Clone)]
pub struct Image {
    directory: PathBuf,
    manifest: Manifest,
}

impl Image {
    pub fn name(&self) -> &ImageName {
        &self.manifest.name
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}

/// A kernel to use instead of Debian's or the default image's.
#[derive(Debug, Clone)]
pub struct KernelFile {
    /// An ELF vmlinux or a bzImage.
    pub path: PathBuf,
    /// Its `/lib/modules/VERSION`; none for a kernel that has everything built in.
    pub modules: Option<PathBuf>,
}

#[derive(Debug, Clone, Default)]
pub struct BuildRequest {
    pub name: ImageName,
    pub selection: Selection,
    pub kernel: Option<KernelFile>,
    /// The guest agent's binary.
    pub agent: PathBuf,
}

#[derive(Debug, Clone)]
pub struct ImportRequest {
    pub name: ImageName,
    /// A root directory, a tar, or an OCI layout in a directory or a tar.
    pub from: PathBuf,
    pub kernel: Option<KernelFile>,
    pub agent: PathBuf,
}

/// How an image stands to what it would be if it were made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Staleness {
    Fresh,
    /// Another agent is packed in: [`Store::refresh`] is enough.
    AgentChanged,
    /// Built by another recipe: build it again.
    RecipeChanged,
    /// There is none, or one of another format.
    Missing,
}

impl Store {
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Every image in the order of the names, with the reason where one cannot be used.
    pub fn list(&self) -> Result<Vec<(ImageName, Result<Image>)>> {
        let entries = match std::fs::read_dir(&self.directory) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.context("read", &self.directory)?,
        };
        let names = entries
            .flatten()
            .filter_map(|entry| ImageName::parse(entry.file_name().to_str()?).ok());
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        Ok(names
            .into_iter()
            .map(|name| (name.clone(), self.find(&name)))
            .collect())
    }

    pub fn find(&self, name: &ImageName) -> Result<Image> {
        let directory = self.place(name);
        if !directory.is_dir() {
            return Err(Error::NoSuchImage { name: name.clone() });
        }
        let manifest = Manifest::read(&directory)?;
        Ok(Image { directory, manifest })
    }

    pub fn remove(&self, name: &ImageName) -> Result<()> {
        let place = self.place(name);
        if !place.is_dir() {
            return Err(Error::NoSuchImage { name: name.clone() });
        }
        staging::set_aside(&self.directory, &place)
    }

    /// Makes an image from Debian packages, replacing one of that name when it is complete.
    pub fn build(&self, request: &BuildRequest, report: Report<'_>) -> Result<Image> {
        let agent = read_agent(&request.agent)?;
        let staging = Staging::new(&self.directory)?;
        let given = request
            .kernel
            .as_ref()
            .map(|kernel| load(kernel, staging.path()))
            .transpose()?;
        let mut tree = Tree::new(staging.path())?;
        debian::bootstrap(
            &mut tree,
            &request.selection,
            given.is_none(),
            &self.directory,
            report,
        )?;
        let kernel = match given {
            Some(kernel) => kernel,
            None => KernelParts::from(debian::take_kernel(&mut tree, staging.path(), report)?),
        };
        debian::normalize(&mut tree);
        let source = Source::Debian(request.selection.clone());
        let recipe = Some(debian::recipe(&request.selection));
        let assembly = Assembly {
            name: &request.name,
            source,
            recipe,
            config: None,
            agent: &agent,
            kernel,
        };
        self.finish(staging, tree, assembly, report)
    }

    /// Makes an image from a root file system made elsewhere.
    pub fn import(&self, request: &ImportRequest, report: Report<'_>) -> Result<Image> {
        let agent = read_agent(&request.agent)?;
        let staging = Staging::new(&self.directory)?;
        step(report, "reading the kernel", 0.0);
        let kernel = match &request.kernel {
            Some(kernel) => load(kernel, staging.path())?,
            None => self.default_kernel(&request.name)?,
        };
        step(report, "reading the root file system", 0.1);
        let mut tree = Tree::new(staging.path())?;
        let imported = source::import(&mut tree, &request.from, staging.path())?;
        let source::Imported { source, config } = imported;
        let assembly = Assembly {
            name: &request.name,
            source,
            recipe: None,
            config,
            agent: &agent,
            kernel,
        };
        self.finish(staging, tree, assembly, report)
    }

    /// Packs another agent into an image; kernel and root file system stay the same files.
    pub fn refresh(&self, name: &ImageName, agent: &Path) -> Result<Image> {
        let agent = read_agent(agent)?;
        let old = self.find(name)?;
        old.verify()?;
        let staging = Staging::new(&self.directory)?;
        let manifest = parts::repack(&old, &agent, staging.path())?;
        let directory = staging.publish(name)?;
        // Removing the old names of the kept files has moved their change times.
        parts::stamp(&directory, &manifest)?;
        Ok(Image { directory, manifest })
    }

    /// What keeps the image of that name from being what `request` would make. An image that was imported is
    /// never taken for an old build.
    pub fn staleness(&self, request: &BuildRequest) -> Result<Staleness> {
        let image = match self.find(&request.name) {
            Err(Error::NoSuchImage { .. } | Error::UnknownFormat { .. }) => return Ok(Staleness::Missing),
            image => image?,
        };
        let expected = match &image.manifest.source {
            Source::Debian(_) => Some(debian::recipe(&request.selection)),
            _ => None,
        };
        Ok(if image.manifest.recipe != expected {
            Staleness::RecipeChanged
        } else if image.manifest.agent != Digest::of_file(&request.agent)? {
            Staleness::AgentChanged
        } else {
            Staleness::Fresh
        })
    }

    fn finish(
        &self,
        staging: Staging,
        mut tree: Tree,
        assembly: Assembly<'_>,
        report: Report<'_>,
    ) -> Result<Image> {
        step(report, "writing the image", 0.85);
        let name = assembly.name.clone();
        let manifest = parts::assemble(staging.path(), &mut tree, assembly)?;
        let directory = staging.publish(&name)?;
        step(report, "done", 1.0);
        Ok(Image { directory, manifest })
    }

    fn default_kernel(&self, name: &ImageName) -> Result<KernelParts> {
        let default = ImageName::default();
        let image = match self.find(&default) {
            Err(Error::NoSuchImage { .. }) => {
                return Err(Error::NoKernel {
                    name: name.clone(),
                    default,
                });
            }
            image => image?,
        };
        let manifest = image.manifest();
        let vmlinux = image.read(&manifest.kernel)?;
        let kernel = Kernel {
            vmlinux,
            version: manifest.kernel_version.clone(),
        };
        Ok(KernelParts {
            kernel,
            modules: parts::modules(&image)?,
            package: None,
        })
    }

    fn place(&self, name: &ImageName) -> PathBuf {
        self.directory.join(name.as_str())
    }
}

/// The kernel of an image, and what its initramfs needs of it.
#[derive(Debug)]
pub(crate) struct KernelParts {
    pub(crate) kernel: Kernel,
    pub(crate) modules: Vec<Module>,
    pub(crate) package: Option<Package>,
}

impl From<debian::KernelPackage> for KernelParts {
    fn from(from: debian::KernelPackage) -> Self {
        Self {
            kernel: from.kernel,
            modules: from.modules,
            package: Some(from.package),
        }
    }
}

fn load(file: &KernelFile, scratch: &Path) -> Result<KernelParts> {
    let kernel = Kernel::read(&file.path)?;
    let modules = match &file.modules {
        Some(folder) => source::modules(folder, scratch, &kernel.version)?,
        None => Vec::new(),
    };
    Ok(KernelParts {
        kernel,
        modules,
        package: None,
    })
}

fn read_agent(path: &Path) -> Result<Vec<u8>> {
    let file = std::fs::File::open(path).context("open", path)?;
    crate::compress::read_bounded(file, MAX_AGENT_BYTES).context("read", path)
}

/// Where a module lies in an image.
pub(crate) fn module_file(file: &str) -> String {
    format!("{MODULES}/{file}")
}

#[cfg(test)]
mod tests;
