//! The folders that are shared, and what lies beside them.
//!
//! They lie in `COFFERDAM_FUZZ_DIR`, or in `/dev/shm`: on a tmpfs, where making them anew costs little.

use std::{
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{PermissionsExt as _, symlink},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, Mode as FileMode, OFlags, Timespec, Timestamps};
use share_fs::{Cache, Exports, Limits, ShareConfig};
use share_policy::{DEFAULT_HIDDEN, DEFAULT_PROTECTED, Mode, PatternSet, SharePolicy};

use crate::tree::{Tree, clear, look};

/// What no answer may contain: it is in what lies outside, and in what is hidden.
pub(crate) const SECRET: &[u8] = b"\xa7\xe5canary\xe9\xd1";
/// A second in which the files outside changed last: to see it is to have looked at one of them.
pub(crate) const SECRET_SECOND: i64 = 0x5ec5_e75e;
/// Of the folder with limits.
pub(crate) const TINY: Limits = Limits {
    bytes: Some(64 << 10),
    files: Some(6),
};
/// Of the folder that may be changed, so that a mistake does not fill the memory of the machine.
const ROOMY: Limits = Limits {
    bytes: Some(8 << 20),
    files: None,
};
/// What all folders may hold open: few, so that a session of some dozen requests needs more.
pub(crate) const DESCRIPTORS: usize = 12;

/// Directories that are made once, and filled again when something in them has changed.
#[derive(Debug)]
pub(crate) struct World {
    home: PathBuf,
    canary: Folder,
    ro: Folder,
    pub(crate) rw: Folder,
    pub(crate) tiny: Folder,
    /// Where the host puts what it takes out of `rw`.
    pub(crate) taken: Folder,
    policy: SharePolicy,
    read_only: SharePolicy,
}

#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    pub(crate) handle: OwnedFd,
    /// As it was before the guest came.
    pub(crate) before: Tree,
}

impl World {
    pub(crate) fn new() -> Self {
        rustix::process::umask(FileMode::empty());
        let base = std::env::var_os("COFFERDAM_FUZZ_DIR").map_or("/dev/shm".into(), PathBuf::from);
        let home = base.join(format!("cofferdam-fuzz-{}", std::process::id()));
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(&home).expect("there is a tmpfs to work in");
        let mut world = World {
            canary: Folder::new(home.join("canary")),
            ro: Folder::new(home.join("ro")),
            rw: Folder::new(home.join("rw")),
            tiny: Folder::new(home.join("tiny")),
            taken: Folder::new(home.join("taken")),
            policy: policy(Mode::ReadWrite),
            read_only: policy(Mode::ReadOnly),
            home,
        };
        world.fill_canary();
        fill_project(&world.ro.path);
        world.canary.remember();
        world.ro.remember();
        world
    }

    /// The folders the guest changes, as they always are at first.
    pub(crate) fn start(&mut self) {
        if self.rw.is_unchanged() && self.tiny.is_unchanged() {
            return;
        }
        clear(self.rw.handle.as_fd());
        clear(self.tiny.handle.as_fd());
        clear(self.taken.handle.as_fd());
        self.fill_rw();
        put(&self.tiny.path.join("file"), b"something of the host's");
        put(&self.tiny.path.join("dir/inner"), b"more of it");
        self.rw.remember();
        self.tiny.remember();
    }

    pub(crate) fn exports(&self) -> Exports {
        let exports = Exports::new(DESCRIPTORS).expect("folders can be shared");
        let add = |folder: &Folder, name, policy: &SharePolicy, limits| {
            let config = ShareConfig {
                policy: policy.clone(),
                cache: Cache::Shared,
                limits,
            };
            exports
                .add(name, folder.open(), config)
                .expect("a folder can be shared");
        };
        add(&self.rw, "rw", &self.policy, ROOMY);
        add(&self.ro, "ro", &self.read_only, Limits::default());
        add(&self.tiny, "tiny", &self.policy, TINY);
        exports
    }

    /// # Panics
    /// When something outside has changed, or in the folder that is read-only.
    pub(crate) fn assert_untouched(&self) {
        assert_same(&self.canary.before, &self.canary.look(), "outside");
        assert_same(
            &unread(&self.ro.before),
            &unread(&self.ro.look()),
            "in a read-only folder",
        );
    }

    /// Whether the guest must leave this as it is, in a folder with the usual policy.
    pub(crate) fn is_guarded(&self, path: &[Vec<u8>]) -> bool {
        let components = || path.iter().map(Vec::as_slice);
        self.policy.protects_components(components()) || self.policy.hides_components(components())
    }

    pub(crate) fn is_way_to_guarded(&self, path: &[Vec<u8>]) -> bool {
        self.policy
            .standing_components(path.iter().map(Vec::as_slice))
            .is_way()
    }

    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    fn fill_canary(&self) {
        let canary = &self.canary.path;
        let secret_name = std::str::from_utf8(&SECRET[2..8]).expect("it is text");
        put(&canary.join("secret"), SECRET);
        put(&canary.join("dir").join(secret_name), SECRET);
        let second = Timespec {
            tv_sec: SECRET_SECOND,
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: second,
            last_modification: second,
        };
        for path in ["secret", "dir", "."] {
            rustix::fs::utimensat(&self.canary.handle, path, &times, AtFlags::empty())
                .expect("times can be set");
        }
    }

    fn fill_rw(&self) {
        let rw = &self.rw.path;
        fill_project(rw);
        fill_project(&rw.join("project"));
        fs::hard_link(rw.join(".git/hooks/pre-commit"), rw.join("hook-alias")).expect("a hard link");
        let canary = &self.canary.path;
        let links = [
            ("out", canary.clone()),
            ("out-file", canary.join("secret")),
            ("up", "../canary".into()),
            ("dir/up", "../../canary/dir".into()),
            ("self", "/proc/self/root".into()),
            ("fd", "/proc/self/fd".into()),
        ];
        for (name, text) in links {
            symlink(text, rw.join(name)).expect("a link");
        }
        let mode = FileMode::from_raw_mode(0o600);
        rustix::fs::mknodat(&self.rw.handle, "pipe", rustix::fs::FileType::Fifo, mode, 0).expect("a FIFO");
    }
}

impl Folder {
    fn new(path: PathBuf) -> Self {
        fs::create_dir(&path).expect("a directory");
        let handle = open(&path);
        Folder {
            path,
            handle,
            before: Tree::new(),
        }
    }

    fn open(&self) -> OwnedFd {
        open(&self.path)
    }

    pub(crate) fn look(&self) -> Tree {
        look(self.handle.as_fd())
    }

    fn is_unchanged(&self) -> bool {
        !self.before.is_empty() && unread(&self.before) == unread(&self.look())
    }

    fn remember(&mut self) {
        self.before = self.look();
    }
}

/// What a project has in it, with what the policy speaks of.
fn fill_project(at: &Path) {
    put(&at.join("file"), b"the text of a file");
    put(&at.join("dir/inner"), b"a file in a directory");
    put(&at.join(".git/config"), b"[core]");
    put(
        &at.join(".git/hooks/pre-commit"),
        b"#!/bin/sh\necho it runs on the host\n",
    );
    put(&at.join(".git/hooks/pre-commit.sample"), b"#!/bin/sh\n");
    put(&at.join(".git/modules/a/hooks/pre-push"), b"#!/bin/sh\n");
    put(&at.join(".envrc"), b"export IT=runs");
    put(&at.join(".idea/workspace.xml"), b"<xml/>");
    put(&at.join(".vscode/tasks.json"), b"{}");
    put(&at.join(".ssh/id_rsa"), SECRET);
    for hook in [".git/hooks/pre-commit", ".git/modules/a/hooks/pre-push"] {
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(at.join(hook), executable).expect("permissions can be set");
    }
}

fn policy(mode: Mode) -> SharePolicy {
    let set = |patterns: &[&str]| PatternSet::parse(patterns).expect("the defaults are patterns");
    SharePolicy::new(mode, set(DEFAULT_HIDDEN), set(DEFAULT_PROTECTED)).expect("a mode that is there")
}

fn put(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().expect("it lies in a directory")).expect("a directory");
    fs::write(path, content).expect("a file");
}

fn open(path: &Path) -> OwnedFd {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, FileMode::empty()).expect("a directory can be opened")
}

fn unread(tree: &Tree) -> Tree {
    let facts = tree.iter().map(|(path, fact)| (path.clone(), fact.unread()));
    facts.collect()
}

fn assert_same(before: &Tree, after: &Tree, wherever: &str) {
    for (path, fact) in before {
        assert_eq!(
            after.get(path),
            Some(fact),
            "{} has changed {wherever}",
            shown(path)
        );
    }
    for path in after.keys() {
        assert!(before.contains_key(path), "{} is new {wherever}", shown(path));
    }
}

pub(crate) fn shown(path: &[Vec<u8>]) -> String {
    path.join(&b'/').escape_ascii().to_string()
}
