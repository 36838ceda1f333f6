//! What the kernel of this machine does once it knows that opening carries no state.

use std::{
    fs,
    path::Path,
    sync::{Mutex, PoisonError, mpsc},
    time::Duration,
};

use fuse::{
    Attributes, Caller, CreateHow, Entry, FileKind, FileSystem, Name, NodeId, Reply, Server, Target,
    Timestamp,
    device::{Mount, Running},
};

/// Much longer than any kernel takes to say that a file was closed.
const PATIENCE: Duration = Duration::from_secs(20);

const OLD: NodeId = NodeId(2);
const NEW: NodeId = NodeId(3);

/// An old file to open, any other name to create; tells of what is released.
struct Releases(Mutex<mpsc::Sender<NodeId>>);

impl FileSystem for Releases {
    fn lookup(&self, _: Caller, _: NodeId, name: Name<'_>) -> Reply<Entry> {
        match name.as_bytes() {
            b"old" => Ok(found(OLD)),
            _ => Ok(Entry::Absent {
                valid: Duration::ZERO,
            }),
        }
    }

    fn attributes(&self, _: Caller, node: NodeId) -> Reply<Attributes> {
        Ok(attributes(node))
    }

    fn read(&self, _: Caller, _: NodeId, _: u64, _: &mut dyn Target) -> Reply<()> {
        Ok(())
    }

    fn create(&self, _: Caller, _: NodeId, _: Name<'_>, _: CreateHow) -> Reply<Entry> {
        Ok(found(NEW))
    }

    fn release(&self, node: NodeId) {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody listens where the test is over.
        let _ = sender.send(node);
    }
}

fn found(node: NodeId) -> Entry {
    Entry::Found {
        node,
        generation: 0,
        attributes: attributes(node),
        valid: Duration::ZERO,
    }
}

fn attributes(node: NodeId) -> Attributes {
    let directory = node == NodeId::ROOT;
    Attributes {
        inode: node.0,
        kind: if directory {
            FileKind::Directory
        } else {
            FileKind::File
        },
        permissions: 0o755,
        size: 0,
        blocks: 0,
        block_size: 4096,
        links: 1,
        uid: 0,
        gid: 0,
        device: 0,
        accessed: Timestamp::default(),
        modified: Timestamp::default(),
        changed: Timestamp::default(),
        born: None,
        submount: false,
        valid: Duration::ZERO,
    }
}

/// `None`, and a word why, where this machine does not let us mount.
fn mounted(at: &Path) -> Option<(Running, mpsc::Receiver<NodeId>)> {
    let (sender, released) = mpsc::channel();
    match Mount::new(at, Server::new(Releases(Mutex::new(sender)))) {
        Ok(mount) => Some((mount.start(2), released)),
        Err(error) => {
            skipped::because(format_args!("cannot mount through /dev/fuse: {error}"));
            None
        }
    }
}

#[test]
fn a_file_created_before_anything_is_opened_is_released() {
    let folder = tempfile::tempdir().unwrap();
    let Some((running, released)) = mounted(folder.path()) else {
        return;
    };
    drop(fs::File::create(folder.path().join("new")).unwrap());
    assert_eq!(released.recv_timeout(PATIENCE), Ok(NEW));
    running.stop().unwrap();
}

/// Why a file system must not count on [`FileSystem::release`] to get its descriptors back.
#[test]
fn once_the_kernel_need_not_open_it_does_not_release_what_it_created_either() {
    let folder = tempfile::tempdir().unwrap();
    let Some((running, released)) = mounted(folder.path()) else {
        return;
    };
    drop(fs::File::open(folder.path().join("old")).unwrap());
    drop(fs::File::create(folder.path().join("new")).unwrap());
    running.stop().unwrap();
    assert_eq!(released.try_recv(), Err(mpsc::TryRecvError::Disconnected));
}
