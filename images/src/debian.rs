//! The default image's root file system and kernel, from one run of mmdebstrap.
//!
//! mmdebstrap installs the packages into a directory of its own (as root, or unprivileged in a user
//! namespace) and streams the result to us as a tar. The kernel package rides in the same stream,
//! downloaded but not installed, so its version comes from the same package lists.

mod bootstrap;
mod status;

use std::path::Path;

use crate::error::Context;
use crate::kernel::{Kernel, MAX_KERNEL_BYTES};
use crate::modules::{self, Module};
use crate::progress::{Report, step};
use crate::tarball::{self, Whiteouts};
use crate::tree::{Mtime, NodeId, Tree};
use crate::{Digest, Error, Package, PackageName, Result, Selection, ar, compress};

pub(crate) use bootstrap::bootstrap;
pub(crate) use status::installed;

const PACKAGES: &str = include_str!("../debian/packages");
const CUSTOMIZE: &str = include_str!("../debian/customize");
const FETCH_KERNEL: &str = include_str!("../debian/kernel");
const DPKG: &str = include_str!("../debian/dpkg.conf");

/// Counts what changes the result but is in none of the recipe's files.
const RECIPE_VERSION: u32 = 1;
/// Debian 13's day. No file of a build is younger, so that two builds are equal.
const EPOCH: Mtime = Mtime {
    seconds: 1_754_697_600,
    nanoseconds: 0,
};

/// Where `debian/kernel` puts the kernel's package.
const KERNEL_FOLDER: &str = ".cofferdam-kernel";
/// The full kernel's package has 100 MB.
const MAX_PACKAGE_BYTES: u64 = 1 << 30;

/// What a build of `selection` depends on, in one digest.
pub(crate) fn recipe(selection: &Selection) -> Digest {
    let modules = modules::recipe();
    let version = RECIPE_VERSION.to_string();
    let packages = selection
        .packages
        .iter()
        .map(PackageName::as_str)
        .collect::<Vec<_>>()
        .join(" ");
    let all = [
        &version,
        selection.suite.as_str(),
        &packages,
        PACKAGES,
        CUSTOMIZE,
        FETCH_KERNEL,
        DPKG,
        &modules,
    ];
    Digest::of(all.join("\0").as_bytes())
}

/// Makes the tree the same for every run over the same packages.
pub(crate) fn normalize(tree: &mut Tree) {
    tree.clamp_times(EPOCH);
}

#[derive(Debug)]
pub(crate) struct KernelPackage {
    pub(crate) kernel: Kernel,
    pub(crate) modules: Vec<Module>,
    pub(crate) package: Package,
}

/// Takes the kernel's package out of the tree and opens it. `scratch` holds its files meanwhile.
pub(crate) fn take_kernel(tree: &mut Tree, scratch: &Path, report: Report<'_>) -> Result<KernelPackage> {
    step(report, "unpacking the kernel", 0.75);
    let missing = || Error::BadKernel {
        path: "linux-image-cloud-amd64".into(),
        problem: "its package did not arrive with the root file system",
    };
    let folder = tree.find(KERNEL_FOLDER).ok_or_else(missing)?;
    let (file, id) = tree
        .children(folder)
        .map(|(name, id)| (String::from_utf8_lossy(name.as_bytes()).into_owned(), id))
        .find(|(name, _)| name.ends_with(".deb"))
        .ok_or_else(missing)?;
    let package = status::from_file_name(&file).ok_or_else(missing)?;
    let deb = tree.read(id, MAX_PACKAGE_BYTES)?.ok_or_else(missing)?;
    tree.remove(KERNEL_FOLDER)?;
    let mut files = Tree::new(scratch)?;
    let data = ar::package_data(&deb[..])
        .and_then(compress::decoded)
        .context("unpack", &file)?;
    tarball::apply(&mut files, &file, data, Whiteouts::Literal)?;
    let kernel = boot_kernel(&mut files, &file)?;
    let folder = modules_folder(&mut files, &kernel.version).ok_or_else(missing)?;
    let modules = modules::wanted(&files, folder, &kernel.version)?;
    Ok(KernelPackage {
        kernel,
        modules,
        package,
    })
}

fn boot_kernel(files: &mut Tree, package: &str) -> Result<Kernel> {
    let missing = || Error::BadKernel {
        path: package.into(),
        problem: "the package has no /boot/vmlinuz-*",
    };
    let boot = files.find("boot").ok_or_else(missing)?;
    let mut kernels = files
        .children(boot)
        .filter(|(name, _)| name.as_bytes().starts_with(b"vmlinuz-"));
    let (_, id) = kernels.next().ok_or_else(missing)?;
    let image = files.read(id, MAX_KERNEL_BYTES)?.ok_or_else(missing)?;
    Kernel::parse(image, Path::new(package))
}

/// Debian 13 has them below /usr, Debian 12 does not.
fn modules_folder(files: &mut Tree, version: &str) -> Option<NodeId> {
    let below = |root: &str| format!("{root}lib/modules/{version}");
    files.find(&below("usr/")).or_else(|| files.find(&below("")))
}

fn package_names(selection: &Selection) -> impl Iterator<Item = &str> {
    PACKAGES
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .chain(selection.packages.iter().map(PackageName::as_str))
}

fn dpkg_options() -> impl Iterator<Item = &'static str> {
    DPKG.lines().filter(|line| !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Suite;

    #[test]
    fn the_package_list_has_what_the_image_promises_and_no_compiler() {
        let selection = Selection::default();
        let names: Vec<_> = package_names(&selection).collect();
        for name in [
            "bash",
            "python3",
            "python3-venv",
            "git",
            "ripgrep",
            "jq",
            "curl",
            "ca-certificates",
            "sudo",
        ] {
            assert!(names.contains(&name), "{name}");
        }
        assert!(
            !names
                .iter()
                .any(|name| name.contains("gcc") || name.contains("build-essential"))
        );
        assert!(names.iter().all(|name| {
            name.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        }));
    }

    #[test]
    fn the_last_step_leaves_the_configuration_of_apt_in_tmp() {
        // Without it mmdebstrap's own cleaning would go to the package lists of the host.
        let commands = CUSTOMIZE.lines().filter(|line| !line.starts_with('#'));
        assert!(
            commands
                .into_iter()
                .all(|line| !line.contains("/tmp") && !line.contains("$root\"/*"))
        );
    }

    #[test]
    fn another_suite_is_another_recipe() {
        assert_ne!(
            recipe(&Selection::default()),
            recipe(&Selection {
                suite: Suite::parse("bookworm").unwrap(),
                ..Selection::default()
            })
        );
    }

    #[test]
    fn one_more_package_is_another_recipe_and_is_asked_for() {
        let packages = vec![PackageName::parse("stress-ng").unwrap()];
        let selection = Selection {
            packages,
            ..Selection::default()
        };
        assert_ne!(recipe(&Selection::default()), recipe(&selection));
        assert_eq!(package_names(&selection).last(), Some("stress-ng"));
    }

    #[test]
    fn a_package_name_cannot_be_an_option_or_a_list() {
        for name in ["", "-o", "a,b", "a b", "A", "a/trixie", "a;b"] {
            assert!(PackageName::parse(name).is_err(), "{name:?}");
        }
    }
}
