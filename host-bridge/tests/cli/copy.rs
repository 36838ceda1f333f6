use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::rig::Rig;

fn rig_with_session() -> Rig {
    let rig = Rig::new();
    rig.coffer(&["up", "box"]).ok();
    rig
}

#[test]
fn a_directory_comes_back_as_it_went_in() {
    let rig = rig_with_session();
    let tree = rig.path("tree");
    fs::create_dir_all(tree.join("sub/empty")).unwrap();
    fs::write(tree.join("sub/large"), vec![0xa5; 3_000_000]).unwrap();
    fs::write(tree.join("-odd name\n"), "x").unwrap();
    fs::set_permissions(tree.join("sub/large"), fs::Permissions::from_mode(0o750)).unwrap();
    symlink("/nowhere/at/all", tree.join("link")).unwrap();
    rig.coffer(&["cp", "tree", "box:copy"]).ok();
    rig.coffer(&["cp", "box:copy", "back"]).ok();
    let back = rig.path("back");
    assert!(fs::read(back.join("sub/large")).unwrap() == vec![0xa5; 3_000_000]);
    assert_eq!(
        fs::metadata(back.join("sub/large")).unwrap().permissions().mode() & 0o7777,
        0o750
    );
    assert_eq!(fs::read(back.join("-odd name\n")).unwrap(), b"x");
    assert_eq!(
        fs::read_link(back.join("link")).unwrap().to_str(),
        Some("/nowhere/at/all")
    );
    assert!(back.join("sub/empty").is_dir());
}

/// As a guest can, when what is copied lies in a folder it shares.
#[test]
fn a_directory_swapped_for_a_link_while_it_is_copied_lets_nothing_out() {
    let rig = rig_with_session();
    let (one, other) = (rig.path("tree/one"), rig.path("tree/other"));
    fs::create_dir_all(&one).unwrap();
    fs::write(one.join("inside"), "").unwrap();
    fs::create_dir(rig.path("outside")).unwrap();
    fs::write(rig.path("outside/secret"), "").unwrap();
    symlink(rig.path("outside"), &other).unwrap();
    let over = AtomicBool::new(false);
    let swap = || {
        while !over.load(Ordering::Relaxed) {
            renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).unwrap();
        }
    };
    thread::scope(|scope| {
        scope.spawn(swap);
        for n in 0..20 {
            rig.coffer(&["cp", "tree", &format!("box:copy-{n}")]);
        }
        over.store(true, Ordering::Relaxed);
    });
    let mut inside = 0;
    for n in 0..20 {
        rig.coffer(&["cp", &format!("box:copy-{n}"), "back"]).ok();
        let copied = ["one", "other"].map(|name| rig.path("back").join(name));
        for directory in copied
            .iter()
            .filter(|copied| copied.is_dir() && !copied.is_symlink())
        {
            assert!(!directory.join("secret").exists());
            inside += usize::from(directory.join("inside").exists());
        }
        fs::remove_dir_all(rig.path("back")).unwrap();
    }
    assert!(inside > 0, "nothing was copied");
}

#[test]
fn a_file_goes_into_a_directory_or_under_a_new_name() {
    let rig = rig_with_session();
    fs::write(rig.path("file"), "one").unwrap();
    fs::create_dir(rig.path("here")).unwrap();
    rig.coffer(&["cp", "file", "box:renamed"]).ok();
    rig.coffer(&["cp", "file", "box:."]).ok();
    rig.coffer(&["cp", "box:renamed", "here"]).ok();
    rig.coffer(&["cp", "box:file", "here/other"]).ok();
    assert_eq!(rig.names("here"), ["other", "renamed"]);
    fs::write(rig.path("file"), "two").unwrap();
    rig.coffer(&["cp", "file", "box:renamed"]).ok();
    rig.coffer(&["cp", "box:renamed", "here"]).ok();
    assert_eq!(fs::read(rig.path("here/renamed")).unwrap(), b"two");
}

#[test]
fn a_dash_is_standard_input_or_output() {
    let rig = rig_with_session();
    let bytes = vec![7; 1_000_000];
    assert_eq!(rig.coffer_with(&["cp", "-", "box:f"], &bytes).code, Some(0));
    assert!(rig.coffer(&["cp", "box:f", "-"]).stdout == bytes);
}

#[test]
fn names_that_would_lead_outside_are_refused() {
    let rig = rig_with_session();
    fs::create_dir_all(rig.path("a/b")).unwrap();
    rig.coffer(&["cp", "box:hostile", "a/b/to"])
        .failed(125, &["cannot be a file here", "\"..\""]);
    assert_eq!(rig.names("a"), ["b"]);
    assert!(rig.names("a/b/to").is_empty());
}

#[test]
fn what_is_not_there_is_said_and_leaves_nothing() {
    let rig = rig_with_session();
    rig.coffer(&["cp", "box:nope", "x"]).failed(125, &["nope"]);
    rig.coffer(&["cp", "nope", "box:x"]).failed(125, &["nope"]);
    rig.coffer(&["cp", "box:nope", "-"]).failed(125, &["nope"]);
    assert!(!rig.path("x").exists());
}
