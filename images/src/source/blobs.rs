//! The files of an OCI image by name, in a folder or inside a tar.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::Context;
use crate::tree::MAX_ENTRIES;
use crate::{Error, Result, compress};

/// A compressed archive is unpacked to a file for random access: twice what a tree may hold.
const MAX_UNPACKED: u64 = 128 << 30;
const BUFFER_BYTES: usize = 256 * 1024;

pub(super) trait Blobs {
    fn open(&self, name: &str) -> Result<Box<dyn Read + '_>>;
}

pub(super) struct FolderBlobs<'a> {
    folder: &'a Path,
}

impl<'a> FolderBlobs<'a> {
    pub(super) fn new(folder: &'a Path) -> Self {
        Self { folder }
    }
}

impl Blobs for FolderBlobs<'_> {
    /// The names asked for are fixed ones and digests, never text of the image; a blob that is a
    /// symbolic link is refused all the same.
    fn open(&self, name: &str) -> Result<Box<dyn Read + '_>> {
        let path = self.folder.join(name);
        let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits() as i32;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(&path)
            .context("open", &path)?;
        if !file.metadata().context("read", &path)?.is_file() {
            return Err(Error::NotASource { path });
        }
        Ok(Box::new(file))
    }
}

/// An archive whose members can be opened in any order.
pub(super) struct TarBlobs {
    file: File,
    path: PathBuf,
    members: BTreeMap<String, Member>,
}

enum Member {
    File {
        offset: u64,
        length: u64,
    },
    /// Older `docker save` writes a layer that occurs twice as a link to the first.
    Link(String),
}

impl TarBlobs {
    pub(super) fn new(file: File, path: &Path, scratch: &Path) -> Result<Self> {
        let file = plain(file, path, scratch)?;
        let members = index(&file).map_err(|source| Error::Archive {
            archive: path.display().to_string(),
            source,
        })?;
        Ok(Self {
            file,
            path: path.to_owned(),
            members,
        })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// The archive itself, from its beginning.
    pub(super) fn whole(&self) -> Result<impl Read + '_> {
        (&self.file)
            .seek(SeekFrom::Start(0))
            .context("read", &self.path)?;
        Ok(BufReader::with_capacity(BUFFER_BYTES, &self.file))
    }
}

impl Blobs for TarBlobs {
    fn open(&self, name: &str) -> Result<Box<dyn Read + '_>> {
        let target = match self.members.get(name) {
            Some(Member::Link(target)) => self.members.get(target),
            member => member,
        };
        let Some(Member::File { offset, length }) = target else {
            return Err(Error::BadLayout {
                image: self.path.display().to_string(),
                problem: format!("it names {name:?}, which is not there"),
            });
        };
        let range = Range {
            file: &self.file,
            position: *offset,
            left: *length,
        };
        Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, range)))
    }
}

/// The archive without compression: as it is, or unpacked into a file without a name.
fn plain(mut file: File, path: &Path, scratch: &Path) -> Result<File> {
    let mut start = [0; 2];
    let got = file.read_at(&mut start, 0).context("read", path)?;
    let compressed = got == 2 && matches!(start, [0x1f, 0x8b] | [0x28, 0xb5] | [0xfd, b'7']);
    if !compressed {
        return Ok(file);
    }
    let unpacked = scratch.join("archive");
    let mut out = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unpacked)
        .context("create", &unpacked)?;
    std::fs::remove_file(&unpacked).context("remove", &unpacked)?;
    let damaged = |source| Error::Archive {
        archive: path.display().to_string(),
        source,
    };
    let mut stream = compress::decoded(&mut file).map_err(damaged)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut total = 0;
    loop {
        let n = stream.read(&mut buffer).map_err(damaged)?;
        if n == 0 {
            break;
        }
        total += n as u64;
        if total > MAX_UNPACKED {
            return Err(Error::OverLimit {
                what: "bytes of archive",
                limit: MAX_UNPACKED,
            });
        }
        out.write_all(&buffer[..n]).context("write", &unpacked)?;
    }
    out.seek(SeekFrom::Start(0)).context("read", &unpacked)?;
    Ok(out)
}

/// Where the members lie. Long names are not put together: those of an image's files are short.
fn index(file: &File) -> io::Result<BTreeMap<String, Member>> {
    let mut members = BTreeMap::new();
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek()?.raw(true) {
        let entry = entry?;
        let name = clean(&String::from_utf8_lossy(&entry.header().path_bytes()));
        let kind = entry.header().entry_type();
        if kind.is_file() {
            members.insert(
                name,
                Member::File {
                    offset: entry.raw_file_position(),
                    length: entry.size(),
                },
            );
        } else if kind.is_symlink() {
            let link = entry.header().link_name_bytes().unwrap_or_default();
            let target = clean(&format!("{name}/../{}", String::from_utf8_lossy(&link)));
            members.insert(name, Member::Link(target));
        }
        if members.len() as u64 > MAX_ENTRIES {
            return Err(io::Error::other("more members than an image may have files"));
        }
    }
    Ok(members)
}

/// `./a/../b` → `b`. Only ever a key of the index, so where `..` leads does not matter.
fn clean(name: &str) -> String {
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

struct Range<'a> {
    file: &'a File,
    position: u64,
    left: u64,
}

impl Read for Range<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.file.read_at(&mut buffer[..wanted], self.position)?;
        self.position += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}
