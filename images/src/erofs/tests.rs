//! The images are judged by fsck.erofs where it is installed: what it extracts must be what went in.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::tree::{Content, Device, Mtime, TreePath};

struct Fixture {
    tree: Tree,
    scratch: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let mut tree = Tree::new(scratch.path()).unwrap();
        tree.begin_layer();
        Self { tree, scratch }
    }

    fn add(&mut self, path: &[u8], content: Content) {
        let mut meta = Meta {
            mode: 0o640,
            ..Meta::directory()
        };
        meta.mtime = Mtime {
            seconds: 1_000_000_000,
            nanoseconds: 5,
        };
        if matches!(content, Content::Directory) {
            meta.mode = 0o755;
        }
        self.tree
            .insert(&TreePath::parse(path).unwrap(), meta, content)
            .unwrap();
    }

    fn file(&mut self, path: &[u8], bytes: &[u8]) {
        let extent = self.tree.spool(bytes).unwrap();
        self.add(path, Content::File(extent));
    }

    fn image(&self) -> Vec<u8> {
        let mut image = Vec::new();
        write(&self.tree, &mut image).unwrap();
        image
    }

    /// The image as fsck.erofs extracts it; none, with the reason printed, where it is not installed.
    fn extracted(&self) -> Option<std::path::PathBuf> {
        let (image, out) = (self.scratch.path().join("image"), self.scratch.path().join("out"));
        fs::write(&image, self.image()).unwrap();
        let extract = format!("--extract={}", out.display());
        match Command::new("fsck.erofs")
            .args([extract.as_ref(), image.as_os_str()])
            .output()
        {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                skipped::because("fsck.erofs is not installed (Debian package erofs-utils)");
                None
            }
            output => {
                let output = output.unwrap();
                assert!(
                    output.status.success(),
                    "{}",
                    String::from_utf8_lossy(&output.stderr)
                );
                Some(out)
            }
        }
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 31 + n / 4096) as u8).collect()
}

#[test]
fn files_of_every_length_around_the_borders_come_back_whole() {
    let mut f = Fixture::new();
    let lengths = [
        0, 1, 31, 2047, 2048, 2049, 4031, 4032, 4095, 4096, 4097, 6144, 8192, 65_536, 65_537, 300_000,
    ];
    for length in lengths {
        f.file(format!("files/{length}").as_bytes(), &pattern(length));
    }
    let Some(out) = f.extracted() else { return };
    for length in lengths {
        assert!(
            fs::read(out.join(format!("files/{length}"))).unwrap() == pattern(length),
            "{length}"
        );
    }
}

#[test]
fn a_directory_of_many_blocks_keeps_every_name() {
    let mut f = Fixture::new();
    let mut names: Vec<String> = (0..2000)
        .map(|n| format!("name-{n:0>width$}", width = n % 200))
        .collect();
    names.extend(["!before-dot", "+", "~after", "ü", "-"].map(str::to_owned));
    names.push("x".repeat(255));
    for name in &names {
        f.file(format!("many/{name}").as_bytes(), name.as_bytes());
    }
    f.add(b"empty", Content::Directory);
    let Some(out) = f.extracted() else { return };
    assert_eq!(fs::read_dir(out.join("many")).unwrap().count(), names.len());
    for name in &names {
        assert_eq!(fs::read_to_string(out.join("many").join(name)).unwrap(), *name);
    }
    assert_eq!(fs::read_dir(out.join("empty")).unwrap().count(), 0);
}

#[test]
fn directories_of_every_size_around_a_block_stay_readable() {
    let mut f = Fixture::new();
    // 27 bytes for . and .., then 12 and the name for each: from well below a block to above it.
    for last in 1..=60 {
        for n in 0..60 {
            let length = if n == 0 { last } else { 55 };
            f.file(
                format!("{last}/{}", format!("{n:02}").repeat(30).get(..length).unwrap()).as_bytes(),
                b"",
            );
        }
    }
    let Some(out) = f.extracted() else { return };
    for last in 1..=60 {
        assert_eq!(
            fs::read_dir(out.join(last.to_string())).unwrap().count(),
            60,
            "{last}"
        );
    }
}

#[test]
fn links_hard_and_symbolic_come_back() {
    let mut f = Fixture::new();
    f.file(b"a", b"text");
    f.tree
        .link(&TreePath::parse(b"d/b").unwrap(), &TreePath::parse(b"a").unwrap())
        .unwrap();
    let targets = [1, 100, 3900, 4030, 4031, 4095].map(|length| vec![b'y'; length]);
    for target in &targets {
        f.add(
            format!("s{}", target.len()).as_bytes(),
            Content::Symlink(target.clone()),
        );
    }
    let layout = Layout::of(&f.tree).unwrap();
    let a = f.tree.find("a").unwrap();
    assert_eq!(
        layout.inodes.iter().find(|placed| placed.id == a).unwrap().links,
        2
    );
    let Some(out) = f.extracted() else { return };
    assert_eq!(
        fs::read(out.join("a")).unwrap(),
        fs::read(out.join("d/b")).unwrap()
    );
    for target in targets {
        // symlink(2) takes them, and so must what was written
        let link = fs::read_link(out.join(format!("s{}", target.len()))).unwrap();
        assert_eq!(link.as_os_str().as_bytes(), target);
    }
}

#[test]
fn devices_pipes_modes_and_times_are_written() {
    let mut f = Fixture::new();
    f.add(b"null", Content::Character(Device::new(1, 3).unwrap()));
    f.add(b"disk", Content::Block(Device::new(259, 0x12345).unwrap()));
    f.add(b"pipe", Content::Fifo);
    let image = f.image();
    let inode_of = |f: &mut Fixture, path: &str| {
        let id = f.tree.find(path).unwrap();
        let layout = Layout::of(&f.tree).unwrap();
        let at = (layout.nid(id) * SLOT) as usize;
        image[at..at + 64].to_vec()
    };
    let null = inode_of(&mut f, "null");
    assert_eq!(null[4..6], 0o020_640_u16.to_le_bytes());
    assert_eq!(null[16..20], 0x103_u32.to_le_bytes());
    assert_eq!(null[32..40], 1_000_000_000_u64.to_le_bytes());
    assert_eq!(null[40..44], 5_u32.to_le_bytes());
    assert_eq!(inode_of(&mut f, "disk")[16..20], 0x1231_0345_u32.to_le_bytes());
    assert_eq!(inode_of(&mut f, "pipe")[4..6], 0o010_640_u16.to_le_bytes());
}

#[test]
fn attributes_are_laid_out_as_the_kernel_reads_them() {
    let mut meta = Meta::directory();
    assert!(meta.xattrs.add(b"user.abc", b"12345"));
    assert!(meta.xattrs.add(b"security.capability", b"xy"));
    let bytes = attributes(&meta);
    let capability = [&[10, 6, 2, 0], &b"capability"[..], b"xy"].concat();
    let user = [&[3, 1, 5, 0], &b"abc"[..], b"12345"].concat();
    assert_eq!(bytes, [&[0; 12], &capability[..], &user, &[0; 0]].concat());
    assert_eq!(attribute_count(&meta), (28 / 4) + 1);
    assert_eq!(attribute_count(&Meta::directory()), 0);
}

#[test]
fn a_tree_with_attributes_of_every_size_passes_fsck() {
    let mut f = Fixture::new();
    for length in (0..4000).step_by(97) {
        let mut meta = Meta::directory();
        assert!(meta.xattrs.add(b"user.value", &pattern(length)));
        let extent = f.tree.spool(&pattern(length)[..]).unwrap();
        let path = TreePath::parse(format!("d{}/f{length}", length % 3).as_bytes()).unwrap();
        f.tree.insert(&path, meta, Content::File(extent)).unwrap();
    }
    let Some(out) = f.extracted() else { return };
    assert_eq!(fs::read(out.join("d1/f97")).unwrap(), pattern(97));
}

#[test]
fn the_same_tree_gives_the_same_bytes_in_whatever_order_it_grew() {
    let names = ["a/b", "a/c", "z", "m/n/o"];
    let images = [names.to_vec(), names.iter().rev().copied().collect()].map(|order: Vec<&str>| {
        let mut f = Fixture::new();
        order
            .iter()
            .for_each(|name| f.file(name.as_bytes(), name.as_bytes()));
        f.image()
    });
    assert!(images[0] == images[1]);
}

#[test]
fn an_empty_tree_is_an_image_too() {
    let f = Fixture::new();
    assert_eq!(f.image().len(), 2 * BLOCK_BYTES);
    if let Some(out) = f.extracted() {
        assert!(Path::new(&out).is_dir());
    }
}
