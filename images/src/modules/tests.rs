use super::*;
use crate::tree::{Content, Meta, TreePath};

fn tree_with(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Tree) {
    let directory = tempfile::tempdir().unwrap();
    let mut tree = Tree::new(directory.path()).unwrap();
    for (path, bytes) in files {
        let extent = tree.spool(*bytes).unwrap();
        tree.insert(
            &TreePath::parse(path.as_bytes()).unwrap(),
            Meta::directory(),
            Content::File(extent),
        )
        .unwrap();
    }
    (directory, tree)
}

fn module(info: &[u8]) -> Vec<u8> {
    modinfo::tests::module(info)
}

fn all_but(left_out: &[&str]) -> Vec<u8> {
    let names = REQUIRED.iter().filter(|name| !left_out.contains(name));
    names
        .map(|name| format!("kernel/x/{name}.ko\n"))
        .collect::<String>()
        .into_bytes()
}

#[test]
fn dependencies_come_before_what_needs_them_and_built_in_ones_not_at_all() {
    let ext4 = zstd::encode_all(&module(b"depends=jbd2,mbcache\0softdep=pre: crc32c\0")[..], 1).unwrap();
    let (_keep, tree) = tree_with(&[
        ("kernel/fs/ext4/ext4.ko.zst", &ext4),
        ("kernel/fs/jbd2/jbd2.ko", &module(b"depends=crc16\0")),
        ("kernel/lib/crc16.ko", &module(b"depends=\0")),
        ("kernel/arch/crc32c-intel.ko", &module(b"depends=\0")),
        ("kernel/other/unwanted.ko", &module(b"depends=\0")),
        (
            "modules.builtin",
            &[all_but(&["ext4"]), b"kernel/fs/mbcache.ko\n".to_vec()].concat(),
        ),
    ]);
    let modules = wanted(&tree, tree.root(), "6").unwrap();
    let files: Vec<_> = modules.iter().map(|module| module.file.as_str()).collect();
    assert_eq!(files, ["crc32c_intel.ko", "crc16.ko", "jbd2.ko", "ext4.ko"]);
    assert!(modules[3].bytes.starts_with(b"\x7fELF"));
}

#[test]
fn the_network_card_and_the_folders_come_last_with_what_they_need() {
    let (_keep, tree) = tree_with(&[
        ("fs/fuse/virtiofs.ko", &module(b"depends=fuse\0")),
        ("fs/fuse/fuse.ko", &module(b"depends=\0")),
        ("net/virtio_net.ko", &module(b"depends=net_failover\0")),
        ("net/net_failover.ko", &module(b"depends=\0")),
        ("fs/ext4.ko", &module(b"depends=\0")),
        ("modules.builtin", &all_but(&["ext4"])),
    ]);
    let modules = wanted(&tree, tree.root(), "6").unwrap();
    let files: Vec<_> = modules.iter().map(|module| module.file.as_str()).collect();
    assert_eq!(
        files,
        [
            "ext4.ko",
            "net_failover.ko",
            "virtio_net.ko",
            "fuse.ko",
            "virtiofs.ko"
        ]
    );
}

#[test]
fn a_required_module_that_is_nowhere_is_an_error_with_its_name() {
    let (_keep, tree) = tree_with(&[("modules.builtin", &all_but(&["erofs"]))]);
    let error = wanted(&tree, tree.root(), "6.12").unwrap_err();
    assert_eq!(
        error.to_string(),
        "kernel 6.12 has no module erofs, built in or loadable"
    );
}

#[test]
fn modules_that_need_each_other_do_not_hang_the_search() {
    let (_keep, tree) = tree_with(&[
        ("ext4.ko", &module(b"depends=jbd2\0")),
        ("jbd2.ko", &module(b"depends=ext4\0")),
        ("modules.builtin", &all_but(&["ext4"])),
    ]);
    assert_eq!(wanted(&tree, tree.root(), "6").unwrap().len(), 2);
}
