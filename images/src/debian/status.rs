//! Which packages are installed in a root file system: dpkg's own list.

use crate::tree::Tree;
use crate::{Package, Result};

const STATUS: &str = "var/lib/dpkg/status";
/// A desktop has 10 MB of it.
const MAX_STATUS_BYTES: u64 = 64 << 20;

/// The installed packages in the order of their names; none where dpkg is unknown.
pub(crate) fn installed(tree: &mut Tree) -> Result<Vec<Package>> {
    let Some(id) = tree.find(STATUS) else {
        return Ok(Vec::new());
    };
    let status = tree.read(id, MAX_STATUS_BYTES)?.unwrap_or_default();
    let mut packages: Vec<_> = String::from_utf8_lossy(&status)
        .split("\n\n")
        .filter_map(parse)
        .collect();
    packages.sort_unstable();
    Ok(packages)
}

fn parse(paragraph: &str) -> Option<Package> {
    let field = |name: &str| {
        paragraph
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::to_owned)
    };
    if !field("Status: ")?.ends_with(" installed") {
        return None;
    }
    Some(Package {
        name: field("Package: ")?,
        version: field("Version: ")?,
        arch: field("Architecture: ")?,
    })
}

/// `NAME_VERSION_ARCH.deb`, where apt writes a colon in the version as `%3a`.
pub(super) fn from_file_name(file: &str) -> Option<Package> {
    let mut parts = file.strip_suffix(".deb")?.split('_').map(str::to_owned);
    let (name, version, arch) = (parts.next()?, parts.next()?.replace("%3a", ":"), parts.next()?);
    parts.next().is_none().then_some(Package { name, version, arch })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_installed_is_listed() {
        let paragraph =
            |status: &str| format!("Package: a\nStatus: {status}\nArchitecture: all\nVersion: 1:2-3\n");
        let package = Package {
            name: "a".into(),
            version: "1:2-3".into(),
            arch: "all".into(),
        };
        assert_eq!(parse(&paragraph("install ok installed")), Some(package));
        assert_eq!(parse(&paragraph("deinstall ok config-files")), None);
        assert_eq!(parse(&paragraph("install ok not-installed")), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn the_file_name_of_a_package_says_what_it_is() {
        let package = Package {
            name: "linux".into(),
            version: "1:6.12-1".into(),
            arch: "amd64".into(),
        };
        assert_eq!(from_file_name("linux_1%3a6.12-1_amd64.deb"), Some(package));
        assert_eq!(from_file_name("linux_6.12.deb"), None);
        assert_eq!(from_file_name("linux_6_amd64.udeb"), None);
    }
}
