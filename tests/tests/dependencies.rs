//! Holds the dependency table of the design: which crate of ours may use which.

use std::collections::BTreeMap;

use cargo_metadata::{Dependency, DependencyKind, MetadataCommand, Package};

/// Crate, and what of ours it may use. A crate that is not here fails the test.
const TABLE: &[(&str, &[&str])] = &[
    ("agent-protocol", &[]),
    ("vmm-api", &[]),
    ("vsock-mux", &[]),
    ("egress-policy", &[]),
    // Its tests put a guest's cable before it.
    ("egress-proxy", &["egress-policy", "user-net"]),
    ("fuse", &[]),
    ("share-policy", &[]),
    ("share-fs", &["fuse", "share-policy"]),
    ("user-net", &["egress-policy"]),
    ("virtio", &["fuse", "user-net", "vsock-mux"]),
    (
        "vmm",
        &["share-fs", "share-policy", "user-net", "virtio", "vmm-api"],
    ),
    ("images", &[]),
    ("guest-agent", &["agent-protocol"]),
    (
        "host-bridge",
        &[
            "agent-protocol",
            "egress-policy",
            "images",
            "share-policy",
            "vmm-api",
        ],
    ),
    ("benches", &[]),
    // How tests of any crate say that they did nothing; nothing that ships uses it.
    (SKIPPED, &[]),
    ("tests", &["agent-protocol", "fuse", "host-bridge", "vmm-api"]),
];

const SKIPPED: &str = "skipped";

fn is_for_tests(dependency: &Dependency, package: &Package) -> bool {
    dependency.kind == DependencyKind::Development || package.name.as_str() == "tests"
}

#[test]
fn every_crate_uses_only_what_the_table_allows() {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata");
    let table: BTreeMap<_, _> = TABLE.iter().copied().collect();
    let ours: Vec<String> = metadata
        .packages
        .iter()
        .map(|package| package.name.to_string())
        .collect();
    for package in &metadata.packages {
        let allowed = table
            .get(package.name.as_str())
            .unwrap_or_else(|| panic!("{} is not in the table", package.name));
        for dependency in package
            .dependencies
            .iter()
            .filter(|dependency| ours.contains(&dependency.name))
        {
            if dependency.name == SKIPPED && is_for_tests(dependency, package) {
                continue;
            }
            assert!(
                allowed.contains(&dependency.name.as_str()),
                "{} uses {}, which the table does not allow",
                package.name,
                dependency.name
            );
        }
    }
}

#[test]
fn one_version_of_vm_memory_is_in_the_tree() {
    let metadata = MetadataCommand::new().exec().expect("cargo metadata");
    let versions: Vec<_> = metadata
        .packages
        .iter()
        .filter(|package| package.name == "vm-memory")
        .map(|package| &package.version)
        .collect();
    assert_eq!(versions.len(), 1, "{versions:?}");
}
