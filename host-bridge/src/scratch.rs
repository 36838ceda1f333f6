//! The sandbox's writable disk: a sparse file that already holds an ext4.
//!
//! One template per size is made by mke2fs and kept in the cache; a session gets a copy of its extents,
//! which for an empty file system of any size is a few megabytes. The file grows as the guest writes and
//! shrinks as it discards; its length is the limit.

use std::{
    ffi::OsStr,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::{
    fs::{FlockOperation, SeekFrom},
    io::Errno,
};

use crate::{Error, Result, error::Context, paths, shape::DiskSize};

/// One for all templates, so that two hosts make the same bytes; nothing mounts a scratch disk by it.
const FILE_SYSTEM_ID: &str = "c0ffe4da-0000-4000-8000-000000000001";
/// From this size on mke2fs would choose a journal of up to 1 GiB, which a busy guest fills and the host
/// never gets back; 64 MiB is what it gives smaller disks.
const LARGE: u64 = 4 << 30;
const LARGE_JOURNAL: &str = "size=64";
/// Bytes copied at a time; a whole extent of a template's metadata usually.
const COPY_CHUNK: usize = 1 << 20;

/// Makes the scratch disk of a session at `to`, where nothing is yet.
pub fn make(cache: &Path, size: DiskSize, to: &Path) -> Result<()> {
    let template = template(cache, size)?;
    // A process killed half-way leaves a file of this name and never half a disk to boot from.
    let partial = to.with_extension("partial");
    let _ = std::fs::remove_file(&partial);
    let copy = create_new(&partial).context("disk of the sandbox cannot be made", to)?;
    let copied = copy_extents(&template, &copy).and_then(|()| put_in_place(&partial, to));
    copied.map_err(|source| {
        let _ = std::fs::remove_file(&partial);
        copy_error(source, to)
    })
}

/// Never over a disk that is there. The session's owner, who holds its lock, is the only one to make any.
fn put_in_place(partial: &Path, to: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => std::fs::rename(partial, to),
        Err(error) => Err(error),
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
    }
}

fn copy_error(source: io::Error, path: &Path) -> Error {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull {
            path: path.to_owned(),
        },
        _ => Error::Io {
            act: "disk of the sandbox cannot be written",
            path: path.to_owned(),
            source,
        },
    }
}

fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// The template's open file; made first if this size was never asked for.
fn template(cache: &Path, size: DiskSize) -> Result<File> {
    let path = cache.join(format!("scratch-{}-v1.ext4", size.bytes()));
    match File::open(&path) {
        Ok(file) => Ok(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            paths::make_private(cache)?;
            make_template(&path, size)?;
            File::open(&path).context("disk template cannot be opened", &path)
        }
        Err(error) => Err(error).context("disk template cannot be opened", &path),
    }
}

/// Under a lock on the half-made file itself: of two that start, one makes it and the other finds it made;
/// what a killed one left is taken over by the next.
fn make_template(path: &Path, size: DiskSize) -> Result<()> {
    let partial = path.with_extension("partial");
    let act = "disk template cannot be made";
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&partial)
        .context(act, &partial)?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive).context(act, &partial)?;
    if path.exists() {
        return Ok(());
    }
    let made = file
        .set_len(0)
        .and_then(|()| file.set_len(size.bytes()))
        .context(act, &partial)
        .and_then(|()| format(&partial, size))
        .and_then(|()| std::fs::rename(&partial, path).context(act, path));
    if made.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    made
}

fn format(path: &Path, size: DiskSize) -> Result<()> {
    let journal: &[&str] = if size.bytes() >= LARGE {
        &["-J", LARGE_JOURNAL]
    } else {
        &[]
    };
    let output = Command::new(mke2fs().ok_or(Error::NoMke2fs)?)
        .args(journal)
        // A journal, no reserve for root, nothing written that reads as zero anyway.
        .args([
            "-q",
            "-F",
            "-t",
            "ext4",
            "-m",
            "0",
            "-L",
            "scratch",
            "-U",
            FILE_SYSTEM_ID,
            "-E",
        ])
        .arg(format!(
            "lazy_itable_init=0,lazy_journal_init=1,discard,hash_seed={FILE_SYSTEM_ID}"
        ))
        .arg(path)
        .env("E2FSPROGS_FAKE_TIME", "1")
        .env("MKE2FS_SYNC", "0")
        .stdin(Stdio::null())
        .output()
        .act("mke2fs cannot be started")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    if said.contains(&io::Error::from(Errno::NOSPC).to_string()) || said.contains("No space left") {
        return Err(Error::DiskFull {
            path: path.to_owned(),
        });
    }
    Err(Error::Mke2fs { said })
}

/// Ordinary users often lack the sbin directories in PATH.
pub(crate) fn mke2fs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(OsStr::new("mke2fs")))
        .find(|program| program.is_file())
}

/// A reflink where the file system has them, else the data between the holes.
fn copy_extents(from: &File, to: &File) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let len = from.metadata()?.len();
    to.set_len(len)?;
    let mut buffer = vec![0; COPY_CHUNK];
    let mut at = 0;
    while let Some((start, end)) = next_extent(from, at, len)? {
        copy_range(from, to, start..end, &mut buffer)?;
        at = end;
    }
    Ok(())
}

fn next_extent(file: &File, at: u64, len: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= len {
        return Ok(None);
    }
    let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let end = rustix::fs::seek(file, SeekFrom::Hole(start))?;
    Ok(Some((start, end.min(len))))
}

/// Blocks of zeros stay holes: a file system without `SEEK_DATA` calls the whole file data.
fn copy_range(from: &File, to: &File, range: std::ops::Range<u64>, buffer: &mut [u8]) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let want = buffer
            .len()
            .min(usize::try_from(range.end - at).unwrap_or(usize::MAX));
        let chunk = &mut buffer[..want];
        from.read_exact_at(chunk, at)?;
        if chunk.iter().any(|byte| *byte != 0) {
            to.write_all_at(chunk, at)?;
        }
        at += want as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::MetadataExt, time::Instant};

    use super::*;

    fn size(bytes: u64) -> DiskSize {
        DiskSize::try_from(bytes).unwrap()
    }

    #[test]
    fn a_large_disk_costs_little_space_and_little_time_once_its_template_is_there() {
        if mke2fs().is_none() {
            skipped::because("mke2fs is not installed");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let (first, second) = (root.path().join("a.img"), root.path().join("b.img"));
        make(root.path(), size(64 << 30), &first).unwrap();
        let start = Instant::now();
        make(root.path(), size(64 << 30), &second).unwrap();
        println!("second copy took {:?}", start.elapsed());
        let metadata = std::fs::metadata(&second).unwrap();
        assert_eq!(metadata.len(), 64 << 30);
        assert!(
            metadata.blocks() * 512 < 32 << 20,
            "{} KiB",
            metadata.blocks() / 2
        );
        let check = Command::new("/sbin/e2fsck").args(["-fn"]).arg(&second).output();
        if let Ok(check) = check {
            assert!(
                check.status.success(),
                "{}",
                String::from_utf8_lossy(&check.stdout)
            );
        }
    }

    #[test]
    fn a_copy_has_the_bytes_of_its_original_and_its_holes() {
        let root = tempfile::tempdir().unwrap();
        let original = root.path().join("original");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&original)
            .unwrap();
        file.set_len(40 << 20).unwrap();
        file.write_all_at(b"first", 0).unwrap();
        file.write_all_at(&[7; 70_000], 9 << 20).unwrap();
        file.write_all_at(b"last", (40 << 20) - 4).unwrap();
        let copy_path = root.path().join("copy");
        let copy = create_new(&copy_path).unwrap();
        copy_extents(&file, &copy).unwrap();
        assert!(std::fs::read(&original).unwrap() == std::fs::read(&copy_path).unwrap());
        assert!(copy.metadata().unwrap().blocks() * 512 < 4 << 20);
    }

    #[test]
    fn a_disk_that_is_there_is_never_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("disk");
        std::fs::write(&path, "precious").unwrap();
        assert!(make(root.path(), size(64 << 20), &path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
