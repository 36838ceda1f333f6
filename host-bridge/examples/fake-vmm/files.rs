use std::{
    ffi::OsStr,
    fs::{self, File, Metadata as Found},
    io::{self, Read, Write},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use agent_protocol::{
    Channel, Entry, EntryKind, Failure, FailureKind, LIST_BATCH, MAX_DATA, Metadata, Reply, Request,
};

use crate::{Machine, folders, path_in, receive_frame, send, send_data};

pub(crate) fn serve(machine: &Machine, request: Request, stream: &mut UnixStream) -> Result<Reply, Failure> {
    let at = |path: &[u8]| path_in(machine, path);
    match request {
        Request::Get { path } => get(&at(&path), stream),
        Request::Put { path, mode } => put(&at(&path), mode, stream),
        Request::List { path } if path.ends_with(b"hostile") => {
            list_hostile(stream);
            Ok(())
        }
        Request::List { path } => list(&at(&path), stream),
        Request::Stat { path } if path.ends_with(b"hostile") => {
            send(stream, &Reply::Metadata(directory()));
            Ok(())
        }
        Request::Stat { path } => metadata(&at(&path)).map(|found| send(stream, &Reply::Metadata(found))),
        Request::MakeDirectory { path, mode } => fs::create_dir_all(at(&path))
            .and_then(|()| fs::set_permissions(at(&path), fs::Permissions::from_mode(mode))),
        Request::MakeSymlink { path, target } => {
            std::os::unix::fs::symlink(OsStr::from_bytes(&target), at(&path))
        }
        Request::AttachFolder(folder) => return folders::attach(machine, &folder).map(|()| Reply::Done),
        Request::DetachFolder { name, wait_ms, cut } => {
            let wait = Duration::from_millis(wait_ms);
            return folders::detach(machine, &name, wait, cut, stream).map(|()| Reply::Done);
        }
        Request::Connect { .. } => Err(io::ErrorKind::ConnectionRefused.into()),
        Request::Exec(_) => Ok(()),
    }
    .map(|()| Reply::Done)
    .map_err(|error| failure(&error))
}

fn failure(error: &io::Error) -> Failure {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => FailureKind::NotFound,
        io::ErrorKind::PermissionDenied => FailureKind::NotPermitted,
        _ => FailureKind::Other,
    };
    Failure {
        kind,
        message: error.to_string(),
    }
}

fn get(path: &Path, stream: &mut UnixStream) -> io::Result<()> {
    let mut file = File::open(path)?;
    send(stream, &Reply::Metadata(metadata(path)?));
    let mut buffer = vec![0; MAX_DATA];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            n => send_data(stream, Channel::Stdout, &buffer[..n])?,
        }
    }
}

fn put(path: &Path, mode: u32, stream: &mut UnixStream) -> io::Result<()> {
    let partial = PathBuf::from(format!("{}.partial", path.display()));
    let mut file = File::create(&partial)?;
    loop {
        match receive_frame(stream) {
            Some((_, data)) if data.is_empty() => break,
            Some((_, data)) => file.write_all(&data)?,
            None => return fs::remove_file(&partial),
        }
    }
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    fs::rename(partial, path)
}

fn list(path: &Path, stream: &mut UnixStream) -> io::Result<()> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let kind = kind(&entry.metadata()?);
        entries.push(Entry {
            name: entry.file_name().into_vec(),
            kind,
        });
    }
    for batch in entries.chunks(LIST_BATCH) {
        send(stream, &Reply::Entries(batch.to_vec()));
    }
    Ok(())
}

/// Names no file system has.
fn list_hostile(stream: &mut UnixStream) {
    let entry = |name: &[u8]| Entry {
        name: name.to_vec(),
        kind: EntryKind::Directory,
    };
    send(
        stream,
        &Reply::Entries(
            [b"..".as_slice(), b"../escape", b"a/b", b"", b"x\0"]
                .map(entry)
                .into(),
        ),
    );
}

fn directory() -> Metadata {
    Metadata {
        kind: EntryKind::Directory,
        mode: 0o755,
        size: 0,
        modified_unix_ns: 0,
        target: Vec::new(),
    }
}

fn metadata(path: &Path) -> io::Result<Metadata> {
    let found = fs::symlink_metadata(path)?;
    Ok(Metadata {
        kind: kind(&found),
        mode: found.mode() & 0o7777,
        size: found.len(),
        modified_unix_ns: found.mtime() * 1_000_000_000,
        target: fs::read_link(path)
            .map(|target| target.into_os_string().into_vec())
            .unwrap_or_default(),
    })
}

fn kind(found: &Found) -> EntryKind {
    match found.file_type() {
        kind if kind.is_dir() => EntryKind::Directory,
        kind if kind.is_file() => EntryKind::File,
        kind if kind.is_symlink() => EntryKind::Symlink,
        kind => {
            debug_assert!(
                kind.is_fifo() || kind.is_socket() || kind.is_block_device() || kind.is_char_device()
            );
            EntryKind::Other
        }
    }
}
