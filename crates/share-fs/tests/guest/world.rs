//! A share, what lies beside it on the host, and a guest that says anything.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::Duration,
};

use fuse::{
    Attributes, Changes, Entry, Reply, Server,
    testing::{self, Answer, Listed, Message},
};
use rustix::{
    fs::{Mode as FileMode, OFlags},
    io::Errno,
};
use share_fs::{Cache, Exports, Limits, ShareConfig};
use share_policy::{DEFAULT_HIDDEN, DEFAULT_PROTECTED, Mode, PatternSet, SharePolicy};

/// Longer than the device believes that a directory is where it was.
pub(crate) const LONG_ENOUGH: Duration = Duration::from_millis(1000);
/// What nobody of these tests takes, unless it hangs.
const HANGS: Duration = Duration::from_secs(10);

pub(crate) const ROOT: u64 = 1;
/// Directory and file modes with their types.
pub(crate) const S_IFREG: u32 = 0o100_000;
pub(crate) const O_EXCL: u32 = 0o200;
pub(crate) const O_TRUNC: u32 = 0o1000;
pub(crate) const O_APPEND: u32 = 0o2000;
pub(crate) const NO_REPLACE: u32 = 1;
pub(crate) const EXCHANGE: u32 = 2;

/// One folder, named `share`, and a tree beside it that the guest must not touch.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) share: PathBuf,
    pub(crate) outside: PathBuf,
    pub(crate) server: Server<Exports>,
    pub(crate) root: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) mode: Mode,
    pub(crate) patterns: bool,
    pub(crate) limits: Limits,
    pub(crate) descriptors: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            mode: Mode::ReadWrite,
            patterns: false,
            limits: Limits::default(),
            descriptors: 256,
        }
    }
}

impl Setup {
    pub(crate) fn guarded() -> Self {
        Setup {
            patterns: true,
            ..Setup::default()
        }
    }

    pub(crate) fn read_only() -> Self {
        Setup {
            mode: Mode::ReadOnly,
            ..Setup::default()
        }
    }

    pub(crate) fn config(&self) -> ShareConfig {
        let set = |patterns: &[&str]| PatternSet::parse(if self.patterns { patterns } else { &[] }).unwrap();
        ShareConfig {
            policy: SharePolicy::new(self.mode, set(DEFAULT_HIDDEN), set(DEFAULT_PROTECTED)).unwrap(),
            cache: Cache::Shared,
            limits: self.limits,
        }
    }
}

impl World {
    pub(crate) fn new(base: &Path) -> Self {
        World::with(base, &Setup::default())
    }

    pub(crate) fn guarded(base: &Path) -> Self {
        World::with(base, &Setup::guarded())
    }

    pub(crate) fn with(base: &Path, setup: &Setup) -> Self {
        no_umask();
        let home = fresh_directory(base);
        let (share, outside) = (home.join("share"), home.join("outside"));
        fs::create_dir(&share).unwrap();
        fs::create_dir(&outside).unwrap();
        World::over(share, outside, setup)
    }

    /// With folders that are there.
    pub(crate) fn over(share: PathBuf, outside: PathBuf, setup: &Setup) -> Self {
        no_umask();
        let exports = Exports::new(setup.descriptors).unwrap();
        exports.add("share", open_folder(&share), setup.config()).unwrap();
        let server = testing::started(exports);
        let root = testing::ask(&server, &Message::lookup(ROOT, b"share"))
            .unwrap()
            .node()
            .unwrap();
        World {
            share,
            outside,
            server,
            root,
        }
    }

    /// Another folder of the same device; its node.
    pub(crate) fn add(&self, name: &str, folder: &Path, setup: &Setup) -> u64 {
        let exports = self.server.file_system();
        exports.add(name, open_folder(folder), setup.config()).unwrap();
        self.lookup(ROOT, name.as_bytes()).unwrap()
    }

    pub(crate) fn answer(&self, message: &Message) -> Answer {
        testing::ask_raw(&self.server, message.as_bytes(), room(message)).expect("it is answered")
    }

    /// Nodes of the share that the guest knows.
    pub(crate) fn known(&self) -> u64 {
        self.server.file_system().status()[0].known
    }

    pub(crate) fn ask(&self, message: &Message) -> Reply<Vec<u8>> {
        self.answer(message).result().map(<[u8]>::to_vec)
    }

    /// For what has no answer but whether it was done.
    pub(crate) fn done(&self, message: &Message) -> Reply<()> {
        self.ask(message).map(drop)
    }

    /// ENOENT where there is nothing.
    pub(crate) fn lookup(&self, parent: u64, name: &[u8]) -> Reply<u64> {
        self.answer(&Message::lookup(parent, name)).node()
    }

    pub(crate) fn find(&self, path: &str) -> Reply<u64> {
        path.split('/')
            .filter(|name| !name.is_empty())
            .try_fold(self.root, |parent, name| self.lookup(parent, name.as_bytes()))
    }

    pub(crate) fn forget(&self, node: u64, count: u64) {
        assert!(testing::ask(&self.server, &Message::forget(node, count)).is_none());
    }

    pub(crate) fn attributes(&self, node: u64) -> Reply<Attributes> {
        self.answer(&Message::getattr(node)).attributes()
    }

    pub(crate) fn read(&self, node: u64, offset: u64, size: u32) -> Reply<Vec<u8>> {
        self.ask(&Message::read(node, offset, size))
    }

    pub(crate) fn write(&self, node: u64, offset: u64, data: &[u8]) -> Reply<u32> {
        self.answer(&Message::write(node, offset, data)).written()
    }

    /// The node, which CREATE made and which is not released.
    pub(crate) fn create(&self, parent: u64, name: &[u8], flags: u32, mode: u32) -> Reply<u64> {
        made(&self.answer(&Message::create(parent, name, flags, mode)))
    }

    pub(crate) fn tmpfile(&self, parent: u64) -> Reply<u64> {
        made(&self.answer(&Message::tmpfile(parent, 0o600)))
    }

    pub(crate) fn mkdir(&self, parent: u64, name: &[u8]) -> Reply<u64> {
        self.answer(&Message::mkdir(parent, name, 0o755)).node()
    }

    pub(crate) fn mknod(&self, parent: u64, name: &[u8]) -> Reply<u64> {
        self.answer(&Message::mknod(parent, name, S_IFREG | 0o644)).node()
    }

    pub(crate) fn rename(&self, from: (u64, &[u8]), to: (u64, &[u8])) -> Reply<()> {
        self.done(&Message::rename(from, to))
    }

    pub(crate) fn change(&self, node: u64, changes: &Changes) -> Reply<Attributes> {
        self.answer(&Message::setattr(node, changes)).attributes()
    }

    pub(crate) fn chmod(&self, node: u64, permissions: u32) -> Reply<Attributes> {
        let permissions = Some(permissions);
        self.change(
            node,
            &Changes {
                permissions,
                ..Changes::default()
            },
        )
    }

    pub(crate) fn truncate(&self, node: u64, size: u64) -> Reply<Attributes> {
        let size = Some(size);
        self.change(
            node,
            &Changes {
                size,
                ..Changes::default()
            },
        )
    }

    /// All of a directory, from `offset` on, in answers of `size`.
    pub(crate) fn list_from(&self, node: u64, plus: bool, mut offset: u64, size: u32) -> Reply<Vec<Listed>> {
        let mut all = Vec::new();
        loop {
            let message = if plus {
                Message::readdirplus(node, offset, size)
            } else {
                Message::readdir(node, offset, size)
            };
            let listed = self.answer(&message).listing(plus)?;
            let Some(last) = listed.last() else { return Ok(all) };
            offset = last.next;
            all.extend(listed);
        }
    }

    pub(crate) fn list(&self, node: u64, plus: bool) -> Reply<Vec<Listed>> {
        self.list_from(node, plus, 0, 64 << 10)
    }

    /// Sorted, without the dots.
    pub(crate) fn names(&self, node: u64) -> Vec<String> {
        let mut names: Vec<_> = self
            .list(node, false)
            .unwrap()
            .into_iter()
            .map(|listed| String::from_utf8_lossy(&listed.name).into_owned())
            .filter(|name| name != "." && name != "..")
            .collect();
        names.sort();
        names
    }

    /// The file's text as the host has it.
    pub(crate) fn host_text(&self, path: &str) -> String {
        fs::read_to_string(self.share.join(path)).unwrap()
    }
}

/// As much as is asked for: to clear a megabyte for every answer would take most of the time.
fn room(message: &Message) -> usize {
    const HEADER: usize = 40;
    let word = |at: usize| {
        let bytes = message.as_bytes().get(at..at + 4);
        bytes.map_or(0, |bytes| u32::from_ne_bytes(bytes.try_into().unwrap()) as usize)
    };
    match word(4) {
        // READ, READDIR, READDIRPLUS.
        15 | 28 | 44 => word(HEADER + 16).min(testing::ROOM) + 16,
        // READLINK, GETXATTR, LISTXATTR.
        5 | 22 | 23 => 66 << 10,
        _ => 1024,
    }
}

fn made(answer: &Answer) -> Reply<u64> {
    match answer.created()? {
        (Entry::Found { node, .. }, _) => Ok(node.0),
        (Entry::Absent { .. }, _) => Err(Errno::NOENT),
    }
}

pub(crate) fn open_folder(path: &Path) -> std::os::fd::OwnedFd {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, FileMode::empty()).unwrap()
}

/// A file of the host's, with the directories above it.
pub(crate) fn put(path: impl AsRef<Path>, text: &str) {
    let path = path.as_ref();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn fresh_directory(base: &Path) -> PathBuf {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let path = base.join(format!("world-{}", LAST.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir(&path).unwrap();
    path
}

/// As the program that serves folders has it: the guest's kernel has applied its own.
fn no_umask() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        rustix::process::umask(FileMode::empty());
    });
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs `body` as somebody who is not root, in a thread that has given its rights away.
pub(crate) fn as_a_user(base: &Path, body: impl FnOnce(&Path) + Send) {
    let home = fresh_directory(base);
    fs::set_permissions(base, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o777)).unwrap();
    let lower = || {
        if is_root() {
            rustix::thread::set_thread_groups(&[]).unwrap();
            rustix::thread::set_thread_gid(rustix::fs::Gid::from_raw(1000)).unwrap();
            rustix::thread::set_thread_uid(rustix::fs::Uid::from_raw(1000)).unwrap();
        }
        body(&home);
    };
    let ended = std::thread::scope(|scope| scope.spawn(lower).join());
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

/// What hangs fails.
pub(crate) fn promptly<T: Send + 'static>(what: &str, body: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let _ = send.send(body());
    });
    match receive.recv_timeout(HANGS) {
        Ok(value) => value,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what} hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(thread.join().expect_err("it sent nothing"))
        }
    }
}
