//! File operations for the host, done as root: the machine is the wall, not its file permissions.
//!
//! Relative paths start at the session's home. What is made belongs to the owner of the directory it is
//! made in, and in a directory everybody may write to (one with the sticky bit, like `/tmp`) to the agent
//! user: so a folder copied into the home is the agent's, and one copied into `/root` is root's.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::{
        fd::AsFd,
        unix::{
            ffi::{OsStrExt, OsStringExt},
            fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown, lchown, symlink},
        },
    },
    path::{Path, PathBuf},
};

use agent_protocol::{
    Channel, Entry, EntryKind, Failure, FailureKind, LIST_BATCH, Metadata, Reply, Request, StreamId,
};

use crate::{
    failure::{cannot, failure, quoted},
    stream::{Piece, Stream},
    users::AGENT_ID,
};

/// The bits of a mode the host sets: permissions, set-id and sticky.
const MODE_BITS: u32 = 0o7777;

/// Of the parents a request leaves to us.
const PARENT_MODE: u32 = 0o755;

const STICKY: u32 = 0o1000;

/// Why an operation did not end in [`Reply::Done`].
enum Stopped {
    Failed(Failure),
    HostGone,
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Stopped::Failed(failure)
    }
}

pub(crate) fn run(home: &Path, id: StreamId, request: &Request, mut stream: Stream) {
    match perform(home, id, request, &mut stream) {
        Ok(()) => stream.finish(&Reply::Done),
        Err(Stopped::Failed(failure)) => stream.finish(&Reply::Failed(failure)),
        Err(Stopped::HostGone) => {}
    }
}

fn perform(home: &Path, id: StreamId, request: &Request, stream: &mut Stream) -> Result<(), Stopped> {
    match request {
        Request::Get { path } => get(&resolve(home, path)?, stream),
        Request::Put { path, mode } => put(&resolve(home, path)?, *mode, id, stream),
        Request::List { path } => list(&resolve(home, path)?, stream),
        Request::Stat { path } => {
            let metadata = describe(&resolve(home, path)?)?;
            say(stream, &Reply::Metadata(metadata))
        }
        Request::MakeDirectory { path, mode } => Ok(make_directory(&resolve(home, path)?, *mode)?),
        Request::MakeSymlink { path, target } => Ok(make_symlink(&resolve(home, path)?, target, id)?),
        Request::Exec(_)
        | Request::Connect { .. }
        | Request::AttachFolder(_)
        | Request::DetachFolder { .. } => Err(failure(FailureKind::Invalid, "no file operation").into()),
    }
}

fn resolve(home: &Path, path: &[u8]) -> Result<PathBuf, Failure> {
    if path.is_empty() || path.contains(&0) {
        return Err(failure(
            FailureKind::Invalid,
            format!("{} is not a path", quoted(path)),
        ));
    }
    Ok(home.join(OsStr::from_bytes(path)))
}

fn get(path: &Path, stream: &mut Stream) -> Result<(), Stopped> {
    let file = open_regular(path)?;
    let metadata = file.metadata().map_err(failed("read", path))?;
    say(stream, &Reply::Metadata(to_metadata(&metadata, Vec::new())))?;
    loop {
        let count = stream.queue_from(Channel::Stdout, file.as_fd(), usize::MAX);
        stream.flush().map_err(|_| Stopped::HostGone)?;
        if count.map_err(failed("read", path))? == 0 {
            return Ok(());
        }
    }
}

/// Opening a FIFO waits for its other end, and opening a device may do anything: neither is opened.
fn open_regular(path: &Path) -> Result<File, Failure> {
    let no_file = || {
        failure(
            FailureKind::Invalid,
            format!("{} is not a regular file", shown(path)),
        )
    };
    if !fs::metadata(path).map_err(failed("read", path))?.is_file() {
        return Err(no_file());
    }
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.map_err(failed("read", path))?;
    // It may have been exchanged since.
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(file),
        _ => Err(no_file()),
    }
}

fn put(path: &Path, mode: u32, id: StreamId, stream: &mut Stream) -> Result<(), Stopped> {
    let replaced = fs::symlink_metadata(path).map(|metadata| metadata.file_type());
    if replaced.is_ok_and(|kind| !kind.is_file() && !kind.is_symlink()) {
        let message = format!("{} is there and not a regular file", shown(path));
        return Err(failure(FailureKind::Invalid, message).into());
    }
    let part = Part::beside(path, id)?;
    let mut file = part.create().map_err(failed("write", path))?;
    // The host, which sends as fast as it can, waits for the first word of the guest.
    stream.flush().map_err(|_| Stopped::HostGone)?;
    receive_into(&mut file, path, stream)?;
    part.finish(&file, mode).map_err(failed("write", path))?;
    Ok(())
}

fn receive_into(file: &mut File, path: &Path, stream: &mut Stream) -> Result<(), Stopped> {
    loop {
        let count = match stream.incoming.next() {
            Ok(Piece::Data(data)) => {
                file.write_all(data).map_err(failed("write", path))?;
                data.len()
            }
            Ok(Piece::End) => return Ok(()),
            Ok(Piece::Nothing) => match stream.receive() {
                Ok(1..) => 0,
                _ => return Err(Stopped::HostGone),
            },
            Err(_) => return Err(Stopped::HostGone),
        };
        stream.incoming.consume(count);
    }
}

/// What will be at `path` when it is complete; gone when it is dropped before.
struct Part<'a> {
    path: &'a Path,
    directory: &'a Path,
    temporary: PathBuf,
}

impl<'a> Part<'a> {
    fn beside(path: &'a Path, id: StreamId) -> Result<Self, Failure> {
        let (Some(directory), Some(_)) = (path.parent(), path.file_name()) else {
            return Err(failure(
                FailureKind::Invalid,
                format!("{} does not name a file", shown(path)),
            ));
        };
        let temporary = directory.join(format!(".coffer-{}.part", id.0));
        // Numbers are used once in the life of the machine; a file of this one is from an earlier life.
        let _ = fs::remove_file(&temporary);
        Ok(Part {
            path,
            directory,
            temporary,
        })
    }

    fn create(&self) -> io::Result<File> {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.temporary)
    }

    fn finish(&self, file: &File, mode: u32) -> io::Result<()> {
        if let Some(owner) = owner_in(self.directory)? {
            fchown(file, Some(owner.0), Some(owner.1))?;
        }
        file.set_permissions(Permissions::from_mode(mode & MODE_BITS))?;
        self.put_in_place()
    }

    fn put_in_place(&self) -> io::Result<()> {
        fs::rename(&self.temporary, self.path)
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.temporary);
    }
}

fn list(path: &Path, stream: &mut Stream) -> Result<(), Stopped> {
    let mut batch = Vec::new();
    for entry in fs::read_dir(path).map_err(failed("list", path))? {
        let entry = entry.map_err(failed("list", path))?;
        batch.push(Entry {
            kind: entry.file_type().map_or(EntryKind::Other, to_kind),
            name: entry.file_name().into_vec(),
        });
        if batch.len() == LIST_BATCH {
            say(stream, &Reply::Entries(std::mem::take(&mut batch)))?;
        }
    }
    if batch.is_empty() {
        return Ok(());
    }
    say(stream, &Reply::Entries(batch))
}

fn describe(path: &Path) -> Result<Metadata, Failure> {
    let metadata = fs::symlink_metadata(path).map_err(failed("look at", path))?;
    let target = match metadata.is_symlink() {
        true => fs::read_link(path).map_err(failed("look at", path))?,
        false => PathBuf::new(),
    };
    Ok(to_metadata(&metadata, target.into_os_string().into_vec()))
}

fn make_directory(path: &Path, mode: u32) -> Result<(), Failure> {
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.is_dir()).collect();
    for directory in missing.into_iter().rev() {
        let mode = if directory == path { mode } else { PARENT_MODE };
        match make_one_directory(directory, mode) {
            // Somebody else was quicker.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {}
            made => made.map_err(failed("make directory", directory))?,
        }
    }
    Ok(())
}

fn make_one_directory(path: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir(path)?;
    if let Some((uid, gid)) = owner_in(path.parent().unwrap_or(path))? {
        lchown(path, Some(uid), Some(gid))?;
    }
    fs::set_permissions(path, Permissions::from_mode(mode & MODE_BITS))
}

/// One that is there is replaced, as a file would be.
fn make_symlink(path: &Path, target: &[u8], id: StreamId) -> Result<(), Failure> {
    let part = Part::beside(path, id)?;
    let made = symlink(OsStr::from_bytes(target), &part.temporary)
        .and_then(|()| match owner_in(part.directory)? {
            Some((uid, gid)) => lchown(&part.temporary, Some(uid), Some(gid)),
            None => Ok(()),
        })
        .and_then(|()| part.put_in_place());
    made.map_err(failed("make symbolic link", path))
}

/// `None` when this process is not root, and what it makes is its own.
fn owner_in(directory: &Path) -> io::Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let metadata = fs::metadata(directory)?;
    let shared = metadata.mode() & STICKY != 0;
    Ok(Some(match shared {
        true => (AGENT_ID, AGENT_ID),
        false => (metadata.uid(), metadata.gid()),
    }))
}

fn to_metadata(metadata: &fs::Metadata, target: Vec<u8>) -> Metadata {
    let seconds = metadata.mtime().saturating_mul(1_000_000_000);
    Metadata {
        kind: to_kind(metadata.file_type()),
        mode: metadata.mode() & MODE_BITS,
        size: metadata.len(),
        modified_unix_ns: seconds.saturating_add(metadata.mtime_nsec()),
        target,
    }
}

fn to_kind(kind: fs::FileType) -> EntryKind {
    match kind {
        kind if kind.is_file() => EntryKind::File,
        kind if kind.is_dir() => EntryKind::Directory,
        kind if kind.is_symlink() => EntryKind::Symlink,
        _ => EntryKind::Other,
    }
}

fn say(stream: &mut Stream, reply: &Reply) -> Result<(), Stopped> {
    stream
        .queue(reply)
        .and_then(|()| stream.flush())
        .map_err(|_| Stopped::HostGone)
}

fn failed<'a>(act: &'a str, path: &'a Path) -> impl Fn(io::Error) -> Failure + 'a {
    move |error| cannot(act, path.as_os_str().as_bytes(), &error)
}

fn shown(path: &Path) -> String {
    quoted(path.as_os_str().as_bytes())
}
