//! Host edits for watchers in the guest.
//!
//! A kernel tells its inotify watchers of what goes through itself, and an edit on the host does not. So the guest's
//! agent repeats it: it says which inodes are watched, hears what the host did to them, and does the same through the
//! guest's kernel. The requests that come of this are known by the agent's thread. They are answered from here as if
//! they had worked, and never reach the folder, so that whoever passes for that thread deceives its own guest alone.
//!
//! Nothing runs here by itself: the agent's request for news reads what inotify has kept. A guest without watchers
//! costs nothing.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    io::Write,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use fuse::{Caller, FileKind, NodeId, Reply};
use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};

use crate::{
    Guarded,
    host::{Change, State, ToWatch},
};

/// Inodes a guest may have watched: what it says of them fits one request.
const MAX_WATCHED: usize = 4096;
/// Names that wait to be looked at or told; more, and all directories are looked through instead.
const MAX_WAITING: usize = 65_536;
/// Edits the agent is told of at once.
const MAX_PENDING: usize = 4096;
const READ_BYTES: usize = 16 * 1024;

const WATCH: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ONLYDIR);

/// A name in a directory of a folder.
type Key = (u16, NodeId, Box<[u8]>);

/// What the agent does next for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Make(FileKind),
    Remove(State),
}

#[derive(Debug, Default)]
pub(crate) struct Events {
    /// The agent's thread, 0 before it has spoken.
    echoer: AtomicU32,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    inotify: Option<OwnedFd>,
    watches: HashMap<i32, (u16, NodeId)>,
    /// Where the host did something since the last request for news.
    waiting: BTreeSet<Key>,
    /// The same a request ago: looked at now, when the guest's own operations have put down what they did.
    settled: BTreeSet<Key>,
    /// What the agent was last told to do and has not done yet.
    pending: HashMap<Key, VecDeque<Step>>,
}

impl Events {
    /// Whether this is the agent, repeating what the host did.
    pub(crate) fn is_echo(&self, caller: Caller) -> bool {
        caller.pid != 0 && caller.pid == self.echoer.load(Ordering::Relaxed)
    }

    /// What the agent does next about a name, if it was told to do something.
    pub(crate) fn next_step(&self, folder: u16, parent: NodeId, name: &[u8]) -> Option<Step> {
        let key = (folder, parent, name.into());
        self.book().pending.get(&key)?.front().copied()
    }

    pub(crate) fn step_done(&self, folder: u16, parent: NodeId, name: &[u8]) {
        let key = (folder, parent, name.into());
        let mut book = self.book();
        if let Some(steps) = book.pending.get_mut(&key) {
            steps.pop_front();
            if steps.is_empty() {
                book.pending.remove(&key);
            }
        }
    }

    /// The agent makes a name: whether it was told to. That is the last it does about one, and if it was to remove
    /// something there before, its kernel knew that to be gone.
    pub(crate) fn makes(&self, folder: u16, parent: NodeId, name: &[u8]) -> bool {
        let steps = self.book().pending.remove(&(folder, parent, name.into()));
        steps.is_some_and(|steps| matches!(steps.back(), Some(Step::Make(_))))
    }

    /// The agent says what is watched: lines of an inode number and a folder's name.
    pub(crate) fn watch(
        &self,
        caller: Caller,
        text: &[u8],
        folders: &BTreeMap<u16, (&[u8], &Guarded)>,
    ) -> Reply<()> {
        if caller.uid != 0 || caller.pid == 0 {
            return Err(Errno::ACCESS);
        }
        self.echoer.store(caller.pid, Ordering::Relaxed);
        let mut wanted: HashMap<&[u8], Vec<u64>> = HashMap::new();
        for line in text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .take(MAX_WATCHED)
        {
            let (inode, name) = parse_line(line).ok_or(Errno::INVAL)?;
            wanted.entry(name).or_default().push(inode);
        }
        let mut book = self.book();
        let mut kept = HashMap::new();
        for (index, (name, fs)) in folders {
            let inodes = wanted.remove(name).unwrap_or_default();
            for directory in fs.inner().watch(&inodes) {
                if let Some(number) = book.add_watch(&directory)? {
                    kept.insert(number, (*index, directory.directory));
                }
            }
        }
        book.keep_only(kept);
        Ok(())
    }

    /// What the host did, for the agent to repeat: a letter, a space, the path with the folder's name, and NUL.
    ///
    /// The agent repeats all it was told before it asks again. What it has not done by then it never will, because its
    /// kernel knew of it already, and must not be taken for something it does later.
    pub(crate) fn news(&self, room: usize, folders: &BTreeMap<u16, (&[u8], &Guarded)>) -> Vec<u8> {
        let mut book = self.book();
        book.pending.clear();
        let overflow = book.drain();
        if overflow {
            book.look_everywhere(folders);
        }
        let mut news = Vec::new();
        while let Some(key) = book.settled.pop_first() {
            let Some((name, fs)) = folders.get(&key.0) else {
                continue;
            };
            if news.len() + MAX_LINE > room || book.pending.len() >= MAX_PENDING {
                book.settled.insert(key);
                return news;
            }
            let Some(change) = fs.inner().changes_of(key.1, &key.2) else {
                continue;
            };
            if fs.hides_in(key.1, &key.2) {
                continue;
            }
            let Ok(path) = fs.inner().path_in(key.1, &key.2) else {
                continue;
            };
            let (letters, steps) = plan(change);
            for letter in letters {
                // Writing to a Vec does not fail.
                let _ = write!(news, "{letter} ");
                news.extend_from_slice(name);
                news.push(b'/');
                news.extend_from_slice(path.as_bytes());
                news.push(0);
            }
            if !steps.is_empty() {
                book.pending.insert(key, steps.into());
            }
        }
        book.settled = std::mem::take(&mut book.waiting);
        news
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The longest piece of news about one name: two letters, each with a path and the folder's name.
const MAX_LINE: usize = 2 * (4096 + 256 + 8);

impl Book {
    fn add_watch(&mut self, directory: &ToWatch) -> Reply<Option<i32>> {
        let inotify = match &self.inotify {
            Some(inotify) => inotify,
            None => {
                let made = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
                self.inotify.insert(made)
            }
        };
        let path = format!("/proc/self/fd/{}", directory.file.as_fd().as_raw_fd());
        // The directory is gone, or not ours to read, or the user's limit of watches is reached: that one is not watched.
        Ok(inotify::add_watch(inotify, path, WATCH).ok())
    }

    fn keep_only(&mut self, kept: HashMap<i32, (u16, NodeId)>) {
        if let Some(inotify) = &self.inotify {
            for number in self.watches.keys().filter(|number| !kept.contains_key(number)) {
                let _ = inotify::remove_watch(inotify, *number);
            }
        }
        if kept.is_empty() {
            *self = Book::default();
        }
        self.watches = kept;
    }

    /// Takes note of where something happened. True when more happened than inotify kept.
    fn drain(&mut self) -> bool {
        let Some(inotify) = &self.inotify else {
            return false;
        };
        let mut buffer = [MaybeUninit::uninit(); READ_BYTES];
        let mut reader = inotify::Reader::new(inotify, &mut buffer);
        let mut overflow = false;
        while let Ok(event) = reader.next() {
            overflow |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
            if let (Some((folder, directory)), Some(name)) =
                (self.watches.get(&event.wd()), event.file_name())
            {
                self.waiting.insert((*folder, *directory, name.to_bytes().into()));
            }
            if self.waiting.len() > MAX_WAITING {
                return true;
            }
        }
        overflow
    }

    fn look_everywhere(&mut self, folders: &BTreeMap<u16, (&[u8], &Guarded)>) {
        self.waiting.clear();
        for (index, directory) in self.watches.values() {
            let Some((_, fs)) = folders.get(index) else {
                continue;
            };
            for name in fs.inner().names_of(*directory) {
                self.settled.insert((*index, *directory, name));
            }
        }
    }
}

fn parse_line(line: &[u8]) -> Option<(u64, &[u8])> {
    let space = line.iter().position(|byte| *byte == b' ')?;
    let (inode, name) = line.split_at_checked(space)?;
    let inode = std::str::from_utf8(inode).ok()?.parse().ok()?;
    Some((inode, name.get(1..)?))
}

/// The letters of what happened, and what the agent will ask for because of them.
fn plan(change: Change) -> (Vec<char>, Vec<Step>) {
    let appeared = |kind| match kind {
        FileKind::File => Some('C'),
        FileKind::Directory => Some('D'),
        FileKind::Symlink => Some('L'),
        _ => None,
    };
    let gone = |state: State| {
        if state.identity.kind == FileKind::Directory {
            'R'
        } else {
            'U'
        }
    };
    match change {
        Change::Appeared(kind) => match appeared(kind) {
            Some(letter) => (vec![letter], vec![Step::Make(kind)]),
            None => (Vec::new(), Vec::new()),
        },
        Change::Gone(state) => (vec![gone(state)], vec![Step::Remove(state)]),
        Change::Replaced(state, kind) => match appeared(kind) {
            Some(letter) => (
                vec![gone(state), letter],
                vec![Step::Remove(state), Step::Make(kind)],
            ),
            None => (vec![gone(state)], vec![Step::Remove(state)]),
        },
        Change::Content => (vec!['M'], Vec::new()),
        Change::Attributes => (vec!['A'], Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_watch_set_is_a_number_and_a_name() {
        assert_eq!(parse_line(b"12 src"), Some((12, &b"src"[..])));
        assert_eq!(parse_line(b"12 my project"), Some((12, &b"my project"[..])));
        for line in [
            &b""[..],
            b"12",
            b"x src",
            b"-1 src",
            b"99999999999999999999999 src",
        ] {
            assert_eq!(parse_line(line), None, "{}", line.escape_ascii());
        }
    }
}
