//! Making an image beside the others and putting it in its place in one step.
//!
//! A staging directory is locked for as long as its maker lives, so what a crash left behind is told
//! from what is being made, and swept.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{CWD, FlockOperation, RenameFlags};
use rustix::io::Errno;

use crate::error::Context;
use crate::{ImageName, Result};

/// No image's name begins with a dot.
const PREFIX: &str = ".partial-";
const PRIVATE_DIRECTORY: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;

#[derive(Debug)]
pub(crate) struct Staging {
    store: PathBuf,
    directory: PathBuf,
    _lock: File,
}

impl Staging {
    pub(crate) fn new(store: &Path) -> Result<Self> {
        make_directory(store)?;
        sweep(store);
        loop {
            let directory = fresh_name(store);
            make_directory(&directory)?;
            // Between these two lines another process may sweep the directory away: then again.
            if let Some(lock) = lock(&directory).filter(|lock| is_at(lock, &directory)) {
                return Ok(Self {
                    store: store.to_owned(),
                    directory,
                    _lock: lock,
                });
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.directory
    }

    /// Becomes the image `name`; an older one of that name goes away.
    pub(crate) fn publish(self, name: &ImageName) -> Result<PathBuf> {
        let place = self.store.join(name.as_str());
        let put = |flags| rustix::fs::renameat_with(CWD, &self.directory, CWD, &place, flags);
        loop {
            match put(RenameFlags::NOREPLACE) {
                Ok(()) => break,
                Err(Errno::EXIST) => match put(RenameFlags::EXCHANGE) {
                    Ok(()) => break,        // dropping `self` now removes the old image
                    Err(Errno::NOENT) => {} // the old one went away meanwhile
                    Err(Errno::INVAL | Errno::NOSYS) => set_aside(&self.store, &place)?,
                    Err(error) => return Err(error).context("replace", &place),
                },
                Err(Errno::INVAL | Errno::NOSYS) if !place.exists() => {
                    std::fs::rename(&self.directory, &place).context("create", &place)?;
                    break;
                }
                Err(Errno::INVAL | Errno::NOSYS) => set_aside(&self.store, &place)?,
                Err(error) => return Err(error).context("create", &place),
            }
        }
        if let Ok(store) = File::open(&self.store) {
            let _ = store.sync_all(); // the image is complete either way
        }
        Ok(place)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory); // what stays is swept the next time
    }
}

/// Takes an image out of the store in one step, then deletes it at leisure.
pub(crate) fn set_aside(store: &Path, place: &Path) -> Result<()> {
    let aside = fresh_name(store);
    std::fs::rename(place, &aside).context("remove", place)?;
    std::fs::remove_dir_all(&aside).context("remove", &aside)
}

/// Removes staging directories whose makers are gone. One that cannot be removed is in nobody's way.
pub(crate) fn sweep(store: &Path) {
    let entries = std::fs::read_dir(store).into_iter().flatten().flatten();
    let partial = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    for path in partial.map(|entry| entry.path()) {
        if lock(&path).is_some() {
            let _ = std::fs::remove_dir_all(&path);
        }
    }
}

pub(crate) fn make_directory(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIRECTORY)
        .create(path)
        .context("create", path)
}

pub(crate) fn create_private(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(PRIVATE_FILE)
        .open(path)
        .context("create", path)
}

/// Writes a whole file and sees it onto the disk.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = create_private(path)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .context("write", path)
}

fn fresh_name(store: &Path) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut random = [0; 8];
    // Without random bytes the process id and the counter still make a name of our own.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::NONBLOCK);
    let (process, count) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    store.join(format!(
        "{PREFIX}{process}-{count}-{:016x}",
        u64::from_ne_bytes(random)
    ))
}

fn lock(directory: &Path) -> Option<File> {
    let file = File::open(directory).ok()?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(file)
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(store: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(store).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn an_image_that_is_published_replaces_the_one_of_its_name() {
        let store = tempfile::tempdir().unwrap();
        for text in ["old", "new"] {
            let staging = Staging::new(store.path()).unwrap();
            std::fs::write(staging.path().join("file"), text).unwrap();
            staging.publish(&ImageName::default()).unwrap();
        }
        assert_eq!(names(store.path()), ["default"]);
        assert_eq!(
            std::fs::read_to_string(store.path().join("default/file")).unwrap(),
            "new"
        );
    }

    #[test]
    fn what_is_given_up_leaves_nothing() {
        let store = tempfile::tempdir().unwrap();
        drop(Staging::new(store.path()).unwrap());
        assert!(names(store.path()).is_empty());
    }

    #[test]
    fn the_leftovers_of_a_dead_process_are_swept_and_those_of_a_living_one_are_not() {
        let store = tempfile::tempdir().unwrap();
        std::fs::create_dir(store.path().join(".partial-1-0-dead")).unwrap();
        std::fs::create_dir(store.path().join("image")).unwrap();
        let living = Staging::new(store.path()).unwrap();
        sweep(store.path());
        assert!(living.path().exists());
        assert_eq!(names(store.path()).len(), 2);
    }

    #[test]
    fn an_image_can_be_taken_out_of_the_store() {
        let store = tempfile::tempdir().unwrap();
        std::fs::create_dir(store.path().join("image")).unwrap();
        set_aside(store.path(), &store.path().join("image")).unwrap();
        assert!(names(store.path()).is_empty());
    }
}
