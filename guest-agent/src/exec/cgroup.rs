//! A control group per command: it tells an out-of-memory kill from any other, and kills a whole tree
//! of processes at once, those included that left their process group.
//!
//! Groups are kept for reuse: making one costs more than starting the command, and a removed one
//! lingers in the kernel for as long as a page it was charged with. One whose command left processes
//! behind is theirs from then on, and removed some time after the last of them has gone. So is one that
//! was killed: some kernels (seen with 6.18) count kills, compare the count of the group a process is
//! cloned into with that of its parent's, and kill on the spot whatever starts in a group that differs.

use std::{
    collections::VecDeque,
    fs, io,
    io::{Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, unlinkat},
    io::Errno,
};

use crate::{lock::lock, users::read_small_file};

const NAME: &str = "coffer";

/// Idle groups kept: a burst of parallel commands finds them made, and a quiet machine holds few.
const MAX_IDLE: usize = 64;

/// Groups of left-behind processes looked at for each command started: more than one, so that they
/// go faster than they come.
const SWEPT: usize = 2;

/// Processes asked in one go to end; cgroup.kill needs no list.
const MAX_LIST: u64 = 1024 * 1024;

#[derive(Debug)]
pub struct Cgroups {
    base: OwnedFd,
    idle: Mutex<Vec<Leaf>>,
    left_behind: Mutex<VecDeque<String>>,
    next: AtomicU64,
}

impl Cgroups {
    /// Makes `coffer` below `parent`, a mounted version 2 hierarchy.
    pub fn open(parent: &Path) -> io::Result<Self> {
        // Without the memory controller the groups still kill; they only cannot tell why a process died.
        let _ = fs::write(parent.join("cgroup.subtree_control"), "+memory");
        let base = parent.join(NAME);
        match fs::create_dir(&base) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        fs::metadata(base.join("cgroup.procs"))?;
        let _ = fs::write(base.join("cgroup.subtree_control"), "+memory");
        Ok(Cgroups {
            base: open_directory(CWD, &base)?,
            idle: Mutex::default(),
            left_behind: Mutex::default(),
            next: AtomicU64::new(0),
        })
    }

    /// An empty group. `None`: the kernel gives none, and the command runs without.
    pub(crate) fn take(&self) -> Option<Leaf> {
        self.sweep();
        let leaf = lock(&self.idle).pop();
        let mut leaf = leaf.or_else(|| self.make().ok())?;
        leaf.oom_kills_before = leaf.oom_kills();
        Some(leaf)
    }

    pub(crate) fn give_back(&self, leaf: Leaf) {
        if leaf.killed.load(Ordering::Relaxed) || leaf.is_populated() {
            lock(&self.left_behind).push_back(leaf.name);
            return;
        }
        let mut idle = lock(&self.idle);
        if idle.len() < MAX_IDLE {
            idle.push(leaf);
        } else {
            drop(idle);
            self.remove(leaf.name);
        }
    }

    fn make(&self) -> io::Result<Leaf> {
        loop {
            let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
            match mkdirat(&self.base, name.as_str(), Mode::from_raw_mode(0o755)) {
                Err(Errno::EXIST) => continue,
                made => made?,
            }
            let directory = open_directory(self.base.as_fd(), Path::new(&name))?;
            return Ok(Leaf {
                name,
                directory,
                oom_kills_before: 0,
                killed: AtomicBool::new(false),
            });
        }
    }

    fn sweep(&self) {
        for _ in 0..SWEPT {
            let name = lock(&self.left_behind).pop_front();
            match name {
                Some(name) => self.remove(name),
                None => return,
            }
        }
    }

    /// The kernel removes an empty group only; one that is not there any more somebody else has removed.
    fn remove(&self, name: String) {
        match unlinkat(&self.base, name.as_str(), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(_) => lock(&self.left_behind).push_back(name),
        }
    }
}

/// The group of one command.
#[derive(Debug)]
pub(crate) struct Leaf {
    name: String,
    directory: OwnedFd,
    oom_kills_before: u64,
    killed: AtomicBool,
}

/// The name of the group of ours that a process is in.
pub(crate) fn group_of(pid: u32) -> Option<String> {
    let groups = read_small_file(Path::new(&format!("/proc/{pid}/cgroup")))?;
    let groups = String::from_utf8(groups).ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    leaf_in(path).map(str::to_owned)
}

/// A command may have made groups of its own below.
fn leaf_in(path: &str) -> Option<&str> {
    let mut parts = path.split('/').skip_while(|part| *part != NAME);
    parts.nth(1)
}

impl Leaf {
    pub(crate) fn name(&self) -> String {
        self.name.clone()
    }

    /// For `CLONE_INTO_CGROUP`: moving a process in later would wait for a grace period of the kernel.
    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    pub(crate) fn ran_out_of_memory(&self) -> bool {
        self.oom_kills() > self.oom_kills_before
    }

    /// Kills every process in the group, on kernels that can (5.14).
    pub(crate) fn kill(&self) {
        self.killed.store(true, Ordering::Relaxed);
        let _ = self.write("cgroup.kill", b"1");
    }

    pub(crate) fn processes(&self) -> Vec<i32> {
        let text = self.read("cgroup.procs");
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    fn oom_kills(&self) -> u64 {
        self.value("memory.events", "oom_kill ").unwrap_or(0)
    }

    fn is_populated(&self) -> bool {
        self.value("cgroup.events", "populated ").unwrap_or(1) != 0
    }

    fn value(&self, file: &str, key: &str) -> Option<u64> {
        self.read(file)
            .lines()
            .find_map(|line| line.strip_prefix(key)?.parse().ok())
    }

    fn read(&self, file: &str) -> String {
        let mut text = String::new();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        if let Ok(file) = openat(&self.directory, file, flags, Mode::empty()) {
            let _ = fs::File::from(file).take(MAX_LIST).read_to_string(&mut text);
        }
        text
    }

    fn write(&self, file: &str, bytes: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&self.directory, file, flags, Mode::empty())?;
        fs::File::from(file).write_all(bytes)
    }
}

fn open_directory(at: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(at, path, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_by_our_group_above_it() {
        assert_eq!(leaf_in("/coffer/12"), Some("12"));
        assert_eq!(leaf_in("/a/coffer/3/made/by/it"), Some("3"));
        for other in ["/", "/coffer", "/system.slice/x", ""] {
            assert_eq!(leaf_in(other), None, "{other}");
        }
    }
}
