use proptest::prelude::*;

use super::*;

struct Fixture {
    tree: Tree,
    _scratch: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let mut tree = Tree::new(scratch.path()).unwrap();
        tree.begin_layer();
        Self {
            tree,
            _scratch: scratch,
        }
    }

    fn add(&mut self, path: &str, content: Content) -> Result<NodeId> {
        self.tree
            .insert(&TreePath::parse(path.as_bytes())?, Meta::directory(), content)
    }

    fn file(&mut self, path: &str, text: &str) {
        let extent = self.tree.spool(text.as_bytes()).unwrap();
        self.add(path, Content::File(extent)).unwrap();
    }

    fn symlink(&mut self, path: &str, target: &str) {
        self.add(path, Content::Symlink(target.into())).unwrap();
    }

    fn white_out(&mut self, path: &str) {
        let path = TreePath::parse(path.as_bytes()).unwrap();
        let (name, above) = path.split_last().unwrap();
        self.tree.white_out(above, name).unwrap();
    }

    fn text(&mut self, path: &str) -> Option<String> {
        let id = self.tree.find(path)?;
        self.tree
            .read(id, 1000)
            .unwrap()
            .map(|bytes| String::from_utf8(bytes).unwrap())
    }

    fn has(&mut self, path: &str) -> bool {
        self.tree.find(path).is_some()
    }
}

#[test]
fn a_later_entry_replaces_an_earlier_one_of_any_kind() {
    let mut f = Fixture::new();
    f.file("a/b", "old");
    f.file("a/b", "new");
    assert_eq!(f.text("a/b").unwrap(), "new");
    f.file("a", "now a file");
    assert_eq!(f.text("a").unwrap(), "now a file");
    f.add("a", Content::Directory).unwrap();
    assert!(f.has("a") && !f.has("a/b"));
}

#[test]
fn a_directory_met_again_keeps_its_children_and_takes_the_new_mode() {
    let mut f = Fixture::new();
    f.file("a/b", "text");
    let meta = Meta {
        mode: 0o700,
        ..Meta::directory()
    };
    f.tree
        .insert(&TreePath::parse(b"a").unwrap(), meta, Content::Directory)
        .unwrap();
    assert_eq!(f.text("a/b").unwrap(), "text");
    let a = f.tree.find("a").unwrap();
    assert_eq!(f.tree.node(a).meta.mode, 0o700);
}

#[test]
fn names_with_dot_dot_or_nul_are_refused_and_absolute_ones_mean_the_root() {
    let mut f = Fixture::new();
    for path in ["../a", "a/../b", "a/..", "..", "a\0b"] {
        assert!(f.add(path, Content::Directory).is_err(), "{path:?}");
    }
    assert!(f.add(&"x".repeat(256), Content::Directory).is_err());
    assert!(f.add(&"x/".repeat(2049), Content::Directory).is_err());
    f.file("/etc//./passwd", "root");
    assert_eq!(f.text("etc/passwd").unwrap(), "root");
}

#[test]
fn a_symlink_in_the_middle_of_a_path_is_followed_within_the_tree() {
    let mut f = Fixture::new();
    f.add("usr/lib", Content::Directory).unwrap();
    f.symlink("lib", "usr/lib");
    f.symlink("up", "../../../usr");
    f.symlink("absolute", "/usr/lib");
    f.file("lib/a", "1");
    f.file("up/lib/b", "2");
    f.file("absolute/c", "3");
    for (path, text) in [("usr/lib/a", "1"), ("usr/lib/b", "2"), ("usr/lib/c", "3")] {
        assert_eq!(f.text(path).unwrap(), text);
    }
}

#[test]
fn links_that_lead_in_circles_or_through_files_are_refused() {
    let mut f = Fixture::new();
    f.symlink("a", "b");
    f.symlink("b", "a");
    f.file("file", "");
    assert!(f.add("a/x", Content::Directory).is_err());
    assert!(f.add("file/x", Content::Directory).is_err());
    assert!(!f.has("a"));
}

#[test]
fn no_directory_lies_deeper_than_the_limit_whatever_links_lead_there() {
    let mut f = Fixture::new();
    let deep = "d/".repeat(200);
    f.add(&deep, Content::Directory).unwrap();
    f.symlink("s", &deep);
    f.add(&format!("s/{deep}"), Content::Directory).unwrap();
    f.symlink("t", &format!("s/{deep}"));
    assert!(f.add(&format!("t/{deep}"), Content::Directory).is_err());
}

#[test]
fn a_hard_link_is_the_same_file_and_needs_one_to_link_to() {
    let mut f = Fixture::new();
    f.file("a", "text");
    f.add("d", Content::Directory).unwrap();
    let path = |path: &str| TreePath::parse(path.as_bytes()).unwrap();
    f.tree.link(&path("x/b"), &path("a")).unwrap();
    assert_eq!(f.tree.find("a"), f.tree.find("x/b"));
    assert!(f.tree.link(&path("c"), &path("none")).is_err());
    assert!(f.tree.link(&path("c"), &path("d")).is_err());
    assert!(f.tree.link(&path("c"), &path("/")).is_err());
    f.file("a", "new");
    assert_eq!(f.text("x/b").unwrap(), "text");
}

#[test]
fn a_whiteout_removes_what_older_layers_brought_and_nothing_of_its_own() {
    let mut f = Fixture::new();
    f.file("gone", "");
    f.file("dir/old", "");
    f.file("dir/sub/old", "");
    f.tree.begin_layer();
    f.file("dir/new", "");
    f.white_out("gone");
    f.white_out("dir");
    f.white_out("was-never-there");
    assert!(!f.has("gone") && !f.has("dir/old") && !f.has("dir/sub") && f.has("dir/new"));
}

#[test]
fn an_opaque_directory_hides_older_layers_whether_it_comes_first_or_last() {
    for last in [false, true] {
        let mut f = Fixture::new();
        f.file("dir/old", "");
        f.file("dir/sub/old", "");
        f.tree.begin_layer();
        let opaque = TreePath::parse(b"dir").unwrap();
        if !last {
            f.tree.make_opaque(opaque.names()).unwrap();
        }
        f.file("dir/sub/new", "");
        if last {
            f.tree.make_opaque(opaque.names()).unwrap();
        }
        assert!(!f.has("dir/old") && !f.has("dir/sub/old") && f.has("dir/sub/new"));
    }
}

#[test]
fn the_root_takes_metadata_and_is_nothing_but_a_directory() {
    let mut f = Fixture::new();
    f.add("./", Content::Directory).unwrap();
    assert!(f.add("/", Content::Fifo).is_err());
    assert!(f.add(".", Content::Symlink(b"x".to_vec())).is_err());
}

#[test]
fn attributes_that_would_steer_the_guest_are_dropped_and_large_ones_refused() {
    let mut xattrs = Xattrs::default();
    for name in [
        "user.a",
        "security.capability",
        "security.selinux",
        "trusted.overlay.redirect",
        "user.overlay.opaque",
        "user.",
    ] {
        assert!(xattrs.add(name.as_bytes(), b"v"));
    }
    let kept: Vec<_> = xattrs.iter().map(|(name, _)| name).collect();
    assert_eq!(kept, [&b"security.capability"[..], b"user.a"]);
    assert!(!xattrs.add(b"user.big", &[0; 5000]));
}

/// A few names, so that entries meet; among them what an attacker would send.
fn path() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        8 => prop::sample::select(vec!["a", "b", "c", "d"]).prop_map(|s| s.as_bytes().to_vec()),
        1 => prop::sample::select(vec!["", ".", "..", "/", "a\0", ".wh.a", ".wh..wh..opq"]).prop_map(|s| s.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..300),
    ];
    prop::collection::vec(name, 0..5).prop_map(|names| names.join(&b'/'))
}

#[derive(Debug, Clone)]
enum Act {
    Directory(Vec<u8>),
    File(Vec<u8>, Vec<u8>),
    Symlink(Vec<u8>, Vec<u8>),
    Link(Vec<u8>, Vec<u8>),
    WhiteOut(Vec<u8>),
    Opaque(Vec<u8>),
    Layer,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        path().prop_map(Act::Directory),
        (path(), prop::collection::vec(any::<u8>(), 0..5000)).prop_map(|(p, data)| Act::File(p, data)),
        (path(), path()).prop_map(|(p, target)| Act::Symlink(p, target)),
        (path(), path()).prop_map(|(p, target)| Act::Link(p, target)),
        path().prop_map(Act::WhiteOut),
        path().prop_map(Act::Opaque),
        Just(Act::Layer),
    ]
}

fn perform(tree: &mut Tree, act: Act) -> Result<()> {
    let insert = |tree: &mut Tree, path: &[u8], content| {
        tree.insert(&TreePath::parse(path)?, Meta::directory(), content)
            .map(drop)
    };
    match act {
        Act::Directory(path) => insert(tree, &path, Content::Directory),
        Act::File(path, data) => {
            let extent = tree.spool(&data[..])?;
            insert(tree, &path, Content::File(extent))
        }
        Act::Symlink(path, target) => insert(tree, &path, Content::Symlink(target)),
        Act::Link(path, target) => tree.link(&TreePath::parse(&path)?, &TreePath::parse(&target)?),
        Act::WhiteOut(path) => {
            let path = TreePath::parse(&path)?;
            path.split_last()
                .map_or(Ok(()), |(name, above)| tree.white_out(above, name))
        }
        Act::Opaque(path) => tree.make_opaque(TreePath::parse(&path)?.names()),
        Act::Layer => {
            tree.begin_layer();
            Ok(())
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_entries_come_the_tree_stays_a_tree_of_plain_names_that_can_be_written(
        acts in prop::collection::vec(act(), 0..60)
    ) {
        let mut f = Fixture::new();
        for act in acts {
            let _ = perform(&mut f.tree, act);
        }
        let mut directories = std::collections::BTreeSet::new();
        let mut pending = vec![f.tree.root()];
        while let Some(id) = pending.pop() {
            if matches!(f.tree.node(id).kind, Kind::Directory(_)) {
                prop_assert!(directories.insert(id), "a directory with two parents");
            }
            for (name, child) in f.tree.children(id) {
                let name = name.as_bytes();
                prop_assert!(!matches!(name, b"" | b"." | b".."));
                prop_assert!(name.len() <= 255 && !name.contains(&b'/') && !name.contains(&0));
                pending.push(child);
            }
        }
        let mut image = Vec::new();
        crate::erofs::write(&f.tree, &mut image).unwrap();
        prop_assert_eq!(image.len() % 4096, 0);
    }
}
