//! Ways out of a folder that lead nowhere: links, mounts, invented numbers, privileges.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
};

use fuse::{
    Changes, Entry, FileKind,
    testing::{self, Message},
};
use rustix::io::Errno;

use crate::{
    file_systems::{FileSystem, each_file_system},
    snapshot::{assert_same, snapshot},
    world::{EXCHANGE, O_TRUNC, ROOT, S_IFREG, Setup, World, is_root, put},
};

fn with_outside(base: &Path) -> World {
    let world = World::new(base);
    put(world.share.join("f"), "text");
    put(world.outside.join("tree/f"), "canary");
    put(world.outside.join("tree/sub/f"), "canary");
    world
}

/// Texts of links that lead out, or nowhere.
fn escapes(world: &World) -> Vec<String> {
    let outside = world.outside.join("tree");
    let mut texts: Vec<String> = [
        "/",
        "..",
        "../outside/tree",
        "../outside/tree/f",
        "/proc/self/root",
    ]
    .map(str::to_owned)
    .into();
    texts.push(outside.display().to_string());
    texts.push(outside.join("f").display().to_string());
    texts.push(outside.join("new").display().to_string());
    texts.push("/proc/self/fd/3".into());
    texts.push("\u{fffd}//./\n".into());
    texts.push("x".repeat(1000));
    texts
}

#[test]
fn symbolic_links_are_text_and_never_followed() {
    each_file_system(|base| {
        let world = with_outside(base);
        let before = snapshot(&world.outside);
        for (number, text) in escapes(&world).into_iter().enumerate() {
            let name = format!("link{number}");
            // One made by the host, one by the guest.
            symlink(&text, world.share.join(&name)).unwrap();
            let theirs = format!("guest{number}");
            world
                .done(&Message::symlink(world.root, theirs.as_bytes(), text.as_bytes()))
                .unwrap();
            for name in [name, theirs] {
                assert_not_followed(&world, &name, &text);
                assert_same(&before, &snapshot(&world.outside), &text);
            }
        }
    });
}

fn assert_not_followed(world: &World, name: &str, text: &str) {
    let link = world.find(name).unwrap();
    let file = world.find("f").unwrap();
    assert_eq!(world.attributes(link).unwrap().kind, FileKind::Symlink);
    assert_eq!(world.ask(&Message::readlink(link)), Ok(text.as_bytes().to_vec()));
    let through = [
        Message::lookup(link, b"f"),
        Message::create(link, b"n", 0, 0o644),
        Message::mknod(link, b"n", S_IFREG | 0o644),
        Message::mkdir(link, b"n", 0o755),
        Message::symlink(link, b"n", b"text"),
        Message::link(file, link, b"n"),
        Message::unlink(link, b"f"),
        Message::rmdir(link, b"sub"),
        Message::rename((link, b"f"), (world.root, b"n")),
        Message::rename((world.root, b"f"), (link, b"n")),
        Message::rename2((world.root, b"f"), (link, b"f"), EXCHANGE),
        Message::tmpfile(link, 0o600),
        Message::readdir(link, 0, 4096),
        Message::readdirplus(link, 0, 4096),
        Message::fsyncdir(link, false),
        Message::read(link, 0, 100),
        Message::write(link, 0, b"guest"),
        Message::fallocate(link, (0, 100), 0),
        Message::lseek(link, 0, 3),
        Message::copy_file_range((file, 0), (link, 0), 4),
        Message::copy_file_range((link, 0), (file, 0), 4),
        Message::setxattr(link, b"user.guest", b"x", 0),
        Message::removexattr(link, b"user.guest"),
        Message::setattr(
            link,
            &Changes {
                permissions: Some(0o777),
                ..Changes::default()
            },
        ),
        Message::setattr(
            link,
            &Changes {
                size: Some(0),
                ..Changes::default()
            },
        ),
    ];
    for message in through {
        assert!(
            world.answer(&message).error().is_some(),
            "{message:?} through {text}"
        );
    }
    // Its own times are its own.
    let times = Changes {
        modified: Some(fuse::TimeChange::Now),
        ..Changes::default()
    };
    world.change(link, &times).unwrap();
    // Making a file where it is: exclusively not at all, else it is what it is.
    let exclusive = world.create(world.root, name.as_bytes(), crate::world::O_EXCL, 0o644);
    assert_eq!(exclusive, Err(Errno::EXIST));
    let found = world.create(world.root, name.as_bytes(), O_TRUNC, 0o644);
    assert!(found.is_err() || found == Ok(link));
    // Another name of the link is a link; moving it moves the link; moving onto it replaces the link.
    let other = format!("{name}-other");
    assert_eq!(
        world
            .answer(&Message::link(link, world.root, other.as_bytes()))
            .node(),
        Ok(link)
    );
    let (root, name, other) = (world.root, name.as_bytes(), other.as_bytes());
    world.done(&Message::unlink(root, name)).unwrap();
    world.rename((root, other), (root, name)).unwrap();
    assert_eq!(world.ask(&Message::readlink(link)), Ok(text.as_bytes().to_vec()));
    let new = world.create(root, b"new", 0, 0o644).unwrap();
    world.rename((root, b"new"), (root, name)).unwrap();
    assert_eq!(world.lookup(root, name), Ok(new));
    assert_eq!(world.attributes(new).unwrap().kind, FileKind::File);
}

#[test]
fn nothing_of_a_mount_in_the_folder_is_served() {
    if !is_root() {
        skipped::because("only root mounts");
        return;
    }
    each_file_system(|base| {
        let world = with_outside(base);
        for name in ["bound", "tmp", "file"] {
            fs::create_dir(world.share.join(name)).unwrap();
        }
        fs::remove_dir(world.share.join("file")).unwrap();
        put(world.share.join("file"), "covered");
        let known = ["bound", "tmp", "file"].map(|name| world.find(name).unwrap());
        let _bound = Mounted::bind(&world.outside.join("tree"), &world.share.join("bound"));
        let _tmp = Mounted::tmpfs(&world.share.join("tmp"));
        let _file = Mounted::bind(&world.outside.join("tree/f"), &world.share.join("file"));
        put(world.share.join("tmp/f"), "canary");
        std::thread::sleep(crate::world::LONG_ENOUGH);
        let before = (snapshot(&world.outside), snapshot(&world.share.join("tmp")));
        for (name, node) in ["bound", "tmp", "file"].into_iter().zip(known) {
            assert_eq!(world.find(name), Err(Errno::XDEV), "{name}");
            let root = world.root;
            let file = world.find("f").unwrap();
            for message in [
                Message::read(node, 0, 100),
                Message::write(node, 0, b"guest"),
                Message::readdir(node, 0, 4096),
                Message::lookup(node, b"f"),
                Message::create(node, b"n", 0, 0o644),
                Message::unlink(node, b"f"),
                Message::link(file, node, b"n"),
                Message::rename((node, b"f"), (root, b"n")),
                Message::unlink(root, name.as_bytes()),
                Message::rmdir(root, name.as_bytes()),
                Message::rename((root, name.as_bytes()), (root, b"moved")),
                Message::rename2((root, b"f"), (root, name.as_bytes()), EXCHANGE),
            ] {
                assert!(world.answer(&message).error().is_some(), "{name}: {message:?}");
            }
        }
        for plus in [false, true] {
            for listed in world.list(world.root, plus).unwrap() {
                if [&b"bound"[..], b"tmp", b"file"].contains(&&*listed.name) {
                    assert!(listed.entry.is_none(), "no attributes of a mount");
                }
            }
        }
        assert_same(&before.0, &snapshot(&world.outside), "bound");
        assert_same(&before.1, &snapshot(&world.share.join("tmp")), "tmpfs");
    });
}

struct Mounted(std::path::PathBuf);

impl Mounted {
    fn bind(from: &Path, to: &Path) -> Self {
        rustix::mount::mount_bind(from, to).unwrap();
        Mounted(to.to_owned())
    }

    fn tmpfs(at: &Path) -> Self {
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", at, "tmpfs", flags, None).unwrap();
        Mounted(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn nothing_joins_two_folders() {
    each_file_system(|base| {
        let world = with_outside(base);
        let second = world.outside.join("second");
        put(second.join("g"), "second");
        let other = world.add("second", &second, &Setup::default());
        let (f, g) = (world.find("f").unwrap(), world.lookup(other, b"g").unwrap());
        let root = world.root;
        for message in [
            Message::link(g, root, b"n"),
            Message::link(f, other, b"n"),
            Message::rename((root, b"f"), (other, b"n")),
            Message::rename((other, b"g"), (root, b"n")),
            Message::rename2((root, b"f"), (other, b"g"), EXCHANGE),
            Message::rename((root, b"f"), (ROOT, b"n")),
            Message::rename((ROOT, b"share"), (root, b"n")),
            Message::link(f, ROOT, b"n"),
            Message::link(ROOT, root, b"n"),
            Message::copy_file_range((f, 0), (g, 0), 4),
            Message::copy_file_range((g, 0), (f, 0), 4),
        ] {
            assert_eq!(world.answer(&message).error(), Some(Errno::XDEV), "{message:?}");
        }
        assert_eq!(world.names(root), ["f"]);
        assert_eq!(world.names(other), ["g"]);
    });
}

#[test]
fn a_folder_inside_another_is_no_way_past_its_mode() {
    each_file_system(|base| {
        let world = with_outside(base);
        put(world.share.join("inner/f"), "text");
        let inner = world.add("inner", &world.share.join("inner"), &Setup::read_only());
        let f = world.lookup(inner, b"f").unwrap();
        assert_eq!(world.write(f, 0, b"guest"), Err(Errno::ROFS));
        // Through the writable one it may: that is what was shared.
        let f = world.find("inner/f").unwrap();
        assert_eq!(world.write(f, 0, b"guest"), Ok(5));
    });
}

#[test]
fn what_the_guest_knows_of_a_folder_taken_away_is_stale() {
    each_file_system(|base| {
        let world = with_outside(base);
        let f = world.find("f").unwrap();
        world.write(f, 0, b"text").unwrap();
        let exports = world.server.file_system();
        assert!(exports.remove("share"));
        assert!(!exports.remove("share"));
        let before = snapshot(&world.share);
        assert_all_stale(&world, &[world.root, f]);
        // One that comes later, also under the same name, has nothing of it.
        let second = world.outside.join("second");
        put(second.join("f"), "second");
        let other = world.add("share", &second, &Setup::default());
        assert_ne!(other, world.root);
        assert_all_stale(&world, &[world.root, f]);
        assert_same(&before, &snapshot(&world.share), "a folder taken away");
        assert_eq!(fs::read_to_string(second.join("f")).unwrap(), "second");
    });
}

fn assert_all_stale(world: &World, nodes: &[u64]) {
    for &node in nodes {
        for message in [
            Message::getattr(node),
            Message::lookup(node, b"f"),
            Message::read(node, 0, 10),
            Message::write(node, 0, b"guest"),
            Message::readdir(node, 0, 4096),
            Message::create(node, b"n", 0, 0o644),
            Message::unlink(node, b"f"),
            Message::setattr(node, &Changes::default()),
            Message::fsync(node, false),
            Message::getxattr(node, b"user.x", 10),
            Message::readlink(node),
        ] {
            assert_eq!(
                world.answer(&message).error(),
                Some(Errno::STALE),
                "{message:?} of {node:#x}"
            );
        }
    }
}

#[test]
fn invented_numbers_mean_nothing() {
    let base = tempfile::tempdir().unwrap();
    let world = with_outside(base.path());
    let second = world.outside.join("second");
    put(second.join("g"), "second");
    let other = world.add("second", &second, &Setup::default());
    let f = world.find("f").unwrap();
    let local = |node: u64| node & 0xffff_ffff_ffff;
    let folder = |node: u64| node & !0xffff_ffff_ffff;
    // Its number in the other folder, where nothing has that number yet.
    let mixed = folder(other) | local(f);
    let invented = [
        0,
        3,
        local(f) + 1,
        mixed,
        f + 1,
        f ^ 1 << 32,
        f ^ 1 << 47,
        folder(f),
        folder(f) | 0xffff_ffff,
        folder(f) | 0xffff_ffff_ffff,
        7 << 48 | 1,
        0xffff << 48 | 1,
        u64::MAX,
        u64::MAX - 1,
        i64::MAX.cast_unsigned(),
    ];
    assert_all_stale(&world, &invented);
    for node in invented {
        world.forget(node, u64::MAX);
        for message in [
            Message::link(node, world.root, b"n"),
            Message::link(f, node, b"n"),
        ] {
            assert!(world.answer(&message).error().is_some());
        }
    }
    assert_eq!(world.read(f, 0, 10), Ok(b"text".to_vec()), "and harm nobody");
}

#[test]
fn a_forgotten_number_is_never_another_file() {
    let base = tempfile::tempdir().unwrap();
    let world = with_outside(base.path());
    put(world.share.join("g"), "other");
    let old = world.find("f").unwrap();
    world.forget(old, 1);
    assert_all_stale(&world, &[old]);
    for _ in 0..100 {
        let g = world.find("g").unwrap();
        assert_ne!(g, old);
        assert_eq!(world.read(old, 0, 10), Err(Errno::STALE));
        world.forget(g, 1);
    }
}

#[test]
fn forgetting_more_than_was_known_harms_nobody() {
    let base = tempfile::tempdir().unwrap();
    let world = with_outside(base.path());
    put(world.share.join("d/e/f"), "deep");
    let f = world.find("f").unwrap();
    world.forget(f, u64::MAX);
    world.forget(f, u64::MAX);
    world.forget(f, 0);
    let deep = world.find("d/e/f").unwrap();
    let d = world.find("d").unwrap();
    // Children are found through their parents, also those the guest forgot first.
    world.forget(d, u64::MAX);
    assert_eq!(world.read(deep, 0, 10), Ok(b"deep".to_vec()));
    for root in [ROOT, world.root] {
        world.forget(root, u64::MAX);
        world.forget(root, 1);
        assert!(world.attributes(root).is_ok(), "a root is never forgotten");
    }
    let all: Vec<_> = (0..1000)
        .map(|number| (deep.wrapping_add(number), u64::MAX))
        .chain([(ROOT, 9), (world.root, 9), (0, 9), (deep, 9)])
        .collect();
    assert!(testing::ask(&world.server, &Message::batch_forget(&all)).is_none());
    assert_eq!(world.read(deep, 0, 10), Err(Errno::STALE));
    let deep = world.find("d/e/f").unwrap();
    assert_eq!(world.read(deep, 0, 10), Ok(b"deep".to_vec()));
    let known = world.known();
    assert!(known <= 4, "{known} nodes are known");
}

#[test]
fn no_bits_of_privilege_are_ever_stored() {
    each_file_system(|base| {
        let world = with_outside(base);
        let root = world.root;
        let mode = |path: &str| fs::metadata(world.share.join(path)).unwrap().mode() & 0o6777;
        for bits in [0o4755, 0o2755, 0o6755, 0o6777] {
            let name = format!("{bits:o}");
            let with = |kind: &str| format!("{kind}{name}");
            let created = world.create(root, with("c").as_bytes(), 0, bits).unwrap();
            world
                .done(&Message::mknod(root, with("n").as_bytes(), S_IFREG | bits))
                .unwrap();
            world
                .done(&Message::mkdir(root, with("d").as_bytes(), bits))
                .unwrap();
            let unnamed = world.answer(&Message::tmpfile(root, bits)).created();
            if let Ok((Entry::Found { node, .. }, _)) = unnamed {
                world
                    .done(&Message::link(node.0, root, with("t").as_bytes()))
                    .unwrap();
                assert_eq!(mode(&with("t")), bits & 0o777);
            }
            for kind in ["c", "n", "d"] {
                assert_eq!(mode(&with(kind)), bits & 0o777, "{kind} {bits:o}");
            }
            let shown = world.chmod(created, bits).unwrap();
            assert_eq!(shown.permissions & 0o6000, 0);
            assert_eq!(mode(&with("c")), bits & 0o777);
            let directory = world.find(&with("d")).unwrap();
            world.chmod(directory, bits).unwrap();
            assert_eq!(mode(&with("d")), bits & 0o777);
        }
        // Those of the host are not shown, and go when the guest's kernel says they must.
        let path = world.share.join("f");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).unwrap();
        let f = world.find("f").unwrap();
        assert_eq!(world.attributes(f).unwrap().permissions, 0o755);
        world
            .done(&Message::write_with(f, 0, b"guest", (0, 1 << 2)))
            .unwrap();
        assert_eq!(mode("f"), 0o755);
    });
}

#[test]
fn attributes_outside_the_users_namespace_are_neither_stored_nor_shown() {
    each_file_system(|base| {
        let world = with_outside(base);
        let f = world.find("f").unwrap();
        let path = world.share.join("f");
        let flags = rustix::fs::XattrFlags::empty();
        if is_root() {
            let _ = rustix::fs::setxattr(&path, "trusted.host", b"secret", flags);
            let _ = rustix::fs::setxattr(&path, "security.host", b"secret", flags);
        }
        let before = snapshot(&world.share);
        for name in [
            "trusted.host",
            "security.host",
            "security.capability",
            "security.selinux",
            "security.ima",
            "system.posix_acl_access",
            "system.posix_acl_default",
            "USER.x",
            "user",
            "userx",
            "btrfs.compression",
            "overlay.opaque",
        ] {
            let name = name.as_bytes();
            for node in [f, world.root] {
                assert!(world.done(&Message::setxattr(node, name, b"guest", 0)).is_err());
                assert!(world.done(&Message::getxattr(node, name, 100)).is_err());
                assert!(world.done(&Message::removexattr(node, name)).is_err());
            }
        }
        assert_eq!(world.ask(&Message::listxattr(f, 1000)), Ok(Vec::new()));
        assert_same(&before, &snapshot(&world.share), "attributes");
    });
}

#[test]
fn owners_stay_what_they_are() {
    each_file_system(|base| {
        let world = with_outside(base);
        let f = world.find("f").unwrap();
        let before = snapshot(&world.share);
        for owner in [0, 1, 999, 1001, u32::MAX, u32::MAX - 1] {
            for changes in [
                Changes {
                    uid: Some(owner),
                    ..Changes::default()
                },
                Changes {
                    gid: Some(owner),
                    ..Changes::default()
                },
                Changes {
                    uid: Some(1000),
                    gid: Some(owner),
                    size: Some(0),
                    ..Changes::default()
                },
            ] {
                assert_eq!(world.change(f, &changes), Err(Errno::PERM));
            }
        }
        let changes = Changes {
            uid: Some(1000),
            gid: Some(1000),
            ..Changes::default()
        };
        assert!(world.change(f, &changes).is_ok());
        assert_same(&before, &snapshot(&world.share), "chown");
    });
}

#[test]
fn a_guest_makes_files_directories_and_links_and_nothing_else() {
    each_file_system(|base| {
        let world = with_outside(base);
        for kind in [
            0o010_000, 0o020_000, 0o060_000, 0o140_000, 0o040_000, 0o120_000, 0o170_000, 0,
        ] {
            let message = Message::mknod(world.root, b"n", kind | 0o666);
            assert!(world.answer(&message).error().is_some(), "{kind:o}");
        }
        assert_eq!(world.names(world.root), ["f"]);
    });
}

#[test]
fn names_as_in_proc_are_names() {
    each_file_system(|base| {
        let world = with_outside(base);
        for name in ["self", "fd", "0", "3", "(deleted)", "f (deleted)"] {
            assert_eq!(world.find(name), Err(Errno::NOENT));
            let made = world.create(world.root, name.as_bytes(), 0, 0o644).unwrap();
            assert_eq!(world.find(name), Ok(made));
        }
        // A folder on proc or sysfs is not served by accident either: it is what it is.
        let text = world.share.join("link");
        symlink("/proc/self/fd/0", &text).unwrap();
        let link = world.find("link").unwrap();
        assert!(world.read(link, 0, 1).is_err());
    });
}

#[test]
fn a_file_without_a_name_gets_one_only_in_its_folder() {
    each_file_system(|base| {
        let world = with_outside(base);
        let second = world.outside.join("second");
        fs::create_dir(&second).unwrap();
        let other = world.add("second", &second, &Setup::default());
        let Ok(file) = world.tmpfile(world.root) else {
            println!("no O_TMPFILE here");
            return;
        };
        world.write(file, 0, b"made").unwrap();
        assert_eq!(world.done(&Message::link(file, other, b"n")), Err(Errno::XDEV));
        assert_eq!(
            world.answer(&Message::link(file, world.root, b"n")).node(),
            Ok(file)
        );
        assert_eq!(world.host_text("n"), "made");
        world.done(&Message::release(file, 1)).unwrap();
        assert_eq!(world.read(file, 0, 10), Ok(b"made".to_vec()));
    });
}

/// The number of a directory above the folder is nobody's business.
#[test]
fn a_listing_shows_no_number_of_what_is_above_the_folder() {
    each_file_system(|base| {
        let world = with_outside(base);
        let above = fs::metadata(world.share.parent().unwrap()).unwrap().ino();
        for plus in [false, true] {
            for listed in world.list(world.root, plus).unwrap() {
                assert_ne!(listed.inode, above, "{}", listed.name.escape_ascii());
            }
        }
    });
}

#[test]
fn files_of_a_lower_layer_stay_the_same_when_they_are_written_and_removed() {
    let fill = |lower: &Path| {
        for name in ["f", "removed", "replaced"] {
            put(lower.join("share").join(name), "lower");
        }
        put(lower.join("share/d/f"), "lower");
        fs::create_dir(lower.join("outside")).unwrap();
    };
    let layered = match FileSystem::overlay_with(fill) {
        Ok(layered) => layered,
        Err(reason) => {
            skipped::because(reason);
            return;
        }
    };
    let base = layered.path();
    let world = World::over(base.join("share"), base.join("outside"), &Setup::default());
    for path in ["f", "d/f"] {
        let file = world.find(path).unwrap();
        assert_eq!(world.read(file, 0, 100), Ok(b"lower".to_vec()));
        assert_eq!(world.write(file, 0, b"upper"), Ok(5), "{path}");
        assert_eq!(world.read(file, 0, 100), Ok(b"upper".to_vec()));
        assert_eq!(world.chmod(file, 0o600).unwrap().permissions, 0o600);
        assert_eq!(world.find(path), Ok(file), "it is the same file");
    }
    let d = world.find("d").unwrap();
    world.create(d, b"new", 0, 0o644).unwrap();
    world.rename((d, b"f"), (world.root, b"g")).unwrap();
    assert_eq!(world.host_text("g"), "upper");
    let (removed, replaced) = (world.find("removed").unwrap(), world.find("replaced").unwrap());
    world.done(&Message::unlink(world.root, b"removed")).unwrap();
    world
        .rename((world.root, b"g"), (world.root, b"replaced"))
        .unwrap();
    for file in [removed, replaced] {
        assert_eq!(world.read(file, 0, 100), Ok(b"lower".to_vec()));
        assert!(world.attributes(file).is_ok());
    }
}
