#![allow(
    unsafe_code,
    reason = "a mount namespace of the test's own has no safe wrapper"
)]

use std::{
    fs, io,
    mem::MaybeUninit,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::PathBuf,
};

use rustix::{
    fs::inotify::{self, ReadFlags, WatchFlags},
    mount::{MountFlags, mount_remount},
};

use super::*;
use crate::{
    events::protocol::decode,
    testing::{mount_tmpfs, private_mounts},
};

/// A folder `docs` on a file system of its own, and a watcher in it.
struct Place {
    mnt: tempfile::TempDir,
    watcher: OwnedFd,
}

impl Place {
    /// `None`, with the reason said: not root, or no right to mount.
    fn new() -> Option<Self> {
        if !private_mounts() {
            return None;
        }
        let mnt = tempfile::tempdir().unwrap();
        let docs = mnt.path().join("docs");
        fs::create_dir(&docs).unwrap();
        mount_tmpfs(&docs);
        fs::create_dir(docs.join("sub")).unwrap();
        let watcher = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        let place = Place { mnt, watcher };
        place.watch("docs/sub");
        Some(place)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.mnt.path().join(path)
    }

    fn watch(&self, path: &str) {
        let flags = WatchFlags::CREATE | WatchFlags::MODIFY | WatchFlags::DELETE | WatchFlags::ATTRIB;
        inotify::add_watch(&self.watcher, self.path(path), flags).unwrap();
    }

    fn echo(&self, events: &str) {
        let events: Vec<_> = decode(events.as_bytes()).collect();
        assert!(!events.is_empty());
        repeat(self.mnt.path(), &events);
    }

    /// What the watcher has heard since it was last asked.
    fn heard(&self) -> Vec<String> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.watcher, &mut buffer);
        let mut heard = Vec::new();
        while let Ok(event) = reader.next() {
            let name = event.file_name().map(|name| name.to_string_lossy().into_owned());
            let what = event.events() - ReadFlags::ISDIR;
            heard.push(format!("{what:?} {}", name.unwrap_or_default()));
        }
        heard
    }
}

#[test]
fn a_watcher_hears_each_echo_as_what_it_was() {
    let Some(place) = Place::new() else { return };
    fs::write(place.path("docs/sub/old"), "content").unwrap();
    place.heard();

    place.echo("C docs/sub/new\0D docs/sub/dir\0L docs/sub/link\0");
    let created = ["new", "dir", "link"].map(|name| format!("ReadFlags(CREATE) {name}"));
    assert_eq!(place.heard(), created);

    place.echo("M docs/sub/old\0");
    assert_eq!(place.heard(), ["ReadFlags(MODIFY) old"]);
    assert_eq!(fs::read(place.path("docs/sub/old")).unwrap(), b"content");

    place.echo("A docs/sub/old\0A docs/sub\0");
    assert_eq!(place.heard(), ["ReadFlags(ATTRIB) old", "ReadFlags(ATTRIB) "]);

    place.echo("U docs/sub/old\0R docs/sub/dir\0U docs/sub/link\0");
    let gone = ["old", "dir", "link"].map(|name| format!("ReadFlags(DELETE) {name}"));
    assert_eq!(place.heard(), gone);
}

#[test]
fn what_the_guest_knows_already_is_said_to_have_changed() {
    let Some(place) = Place::new() else { return };
    fs::write(place.path("docs/sub/here"), "content").unwrap();
    fs::set_permissions(place.path("docs/sub/here"), fs::Permissions::from_mode(0o4751)).unwrap();
    place.heard();
    place.echo("C docs/sub/here\0");
    assert_eq!(place.heard(), ["ReadFlags(ATTRIB) here"]);
    let metadata = place.path("docs/sub/here").metadata().unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.len()), (0o4751, 7));
}

#[test]
fn a_read_only_folder_has_its_events_and_stays_read_only() {
    let Some(place) = Place::new() else { return };
    let rights = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NODEV;
    mount_remount(place.path("docs"), rights, "").unwrap();
    place.echo("C docs/sub/new\0M docs/sub/new\0U docs/sub/new\0");
    assert_eq!(
        place.heard(),
        [
            "ReadFlags(CREATE) new",
            "ReadFlags(MODIFY) new",
            "ReadFlags(DELETE) new"
        ]
    );
    let refused = fs::write(place.path("docs/sub/other"), "").unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
}

#[test]
fn no_link_leads_an_echo_out_of_the_folder() {
    let Some(place) = Place::new() else { return };
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "content").unwrap();
    let before = secret.metadata().unwrap();
    symlink(&secret, place.path("docs/sub/file")).unwrap();
    symlink(outside.path(), place.path("docs/sub/out")).unwrap();
    fs::create_dir(place.path("docs/sub/real")).unwrap();
    symlink("real", place.path("docs/sub/inside")).unwrap();
    place.echo(
        "M docs/sub/file\0A docs/sub/file\0C docs/sub/file\0U docs/sub/out/secret\0C docs/sub/out/new\0\
         D docs/sub/out/new\0L docs/sub/out/new\0M docs/sub/out/secret\0A docs/sub/out/secret\0C docs/sub/inside/new\0",
    );
    let after = secret.metadata().unwrap();
    assert_eq!(
        (after.ctime(), after.ctime_nsec()),
        (before.ctime(), before.ctime_nsec())
    );
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert_eq!(fs::read_dir(place.path("docs/sub/real")).unwrap().count(), 0);
}

#[test]
fn a_link_or_a_fifo_in_the_place_of_a_folder_or_a_file_is_left_alone() {
    let Some(place) = Place::new() else { return };
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path(), place.path("elsewhere")).unwrap();
    rustix::fs::mknodat(CWD, place.path("docs/sub/fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    place.echo("C elsewhere/new\0C nowhere/new\0M docs/sub/fifo\0R docs\0U docs\0C docs\0");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert!(place.path("docs/sub").is_dir());
}

#[test]
fn nothing_of_an_echo_keeps_the_folder_mounted() {
    let Some(place) = Place::new() else { return };
    let door = SideDoor::open(&place.path("docs")).unwrap();
    rustix::mount::unmount(place.path("docs"), rustix::mount::UnmountFlags::NOFOLLOW).unwrap();
    assert!(find(&door, b"sub").is_ok());
}
