//! Is an image what its manifest says? Asked at every boot, so unchanged files are not read again.
//!
//! A stamp beside the parts notes, for each part that was hashed, the inode, size and times it had.
//! A part that still has them still has its hash: content cannot change without the inode's change
//! time moving. The device number is not part of it: the same folder seen through another mount, as
//! from inside the lab, is the same folder. This finds corruption and half-done copies; it is no
//! defence against someone who may write to the store, for they may write the manifest too.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::error::Context;
use crate::staging::write_private;
use crate::{Digest, Error, Image, Part, Result};

const STAMP: &str = "verified.json";
const STAMP_FORMAT: u32 = 1;

/// The parts of a verified image, held open: whatever happens to the store meanwhile, `file` is what
/// was checked. Whoever hands on `path` instead trusts the store not to change before it is opened again.
#[derive(Debug)]
pub struct BootParts {
    pub kernel: OpenPart,
    pub initramfs: OpenPart,
    pub rootfs: OpenPart,
}

#[derive(Debug)]
pub struct OpenPart {
    pub path: PathBuf,
    pub file: File,
}

impl Image {
    /// Checks size and sha256 of every part that changed since it was last checked.
    pub fn verify(&self) -> Result<BootParts> {
        let manifest = self.manifest();
        let mut stamp = Stamp::read(self.directory());
        let before = stamp.clone();
        let parts = BootParts {
            kernel: self.check(&manifest.kernel, &mut stamp)?,
            initramfs: self.check(&manifest.initramfs, &mut stamp)?,
            rootfs: self.check(&manifest.rootfs, &mut stamp)?,
        };
        if stamp != before {
            // A store that cannot be written to still boots; it only reads its parts every time.
            let _ = stamp.write(self.directory());
        }
        Ok(parts)
    }

    fn check(&self, part: &Part, stamp: &mut Stamp) -> Result<OpenPart> {
        let path = self.directory().join(&part.file);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(&path, flags, Mode::empty()).context("open", &path)?);
        let seen = Seen::of(&file, part.sha256).context("read", &path)?;
        self.check_size(part, seen.size)?;
        if stamp.parts.get(&part.file) != Some(&seen) {
            let found = Digest::of_reader(&file).context("read", &path)?.0;
            self.check_digest(part, found)?;
            stamp.parts.insert(part.file.clone(), seen);
        }
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).context("read", &path)?;
        Ok(OpenPart { path, file })
    }

    /// The bytes of a part, read whole and checked.
    pub(crate) fn read(&self, part: &Part) -> Result<Vec<u8>> {
        let path = self.directory().join(&part.file);
        self.check_size(part, std::fs::metadata(&path).context("read", &path)?.len())?;
        let bytes = std::fs::read(&path).context("read", &path)?;
        self.check_digest(part, Digest::of(&bytes))?;
        Ok(bytes)
    }

    fn check_size(&self, part: &Part, found: u64) -> Result<()> {
        if found == part.size {
            return Ok(());
        }
        let (image, file) = (self.manifest().name.clone(), part.file.clone());
        Err(Error::WrongSize {
            image,
            file,
            expected: part.size,
            found,
        })
    }

    fn check_digest(&self, part: &Part, found: Digest) -> Result<()> {
        if found == part.sha256 {
            return Ok(());
        }
        let (image, file) = (self.manifest().name.clone(), part.file.clone());
        Err(Error::CorruptPart {
            image,
            file,
            expected: part.sha256,
            found,
        })
    }
}

/// Notes parts whose hashes are known because they have just been written.
pub(crate) fn stamp<'a>(directory: &Path, parts: impl IntoIterator<Item = &'a Part>) -> Result<()> {
    let mut stamp = Stamp::default();
    for part in parts {
        let path = directory.join(&part.file);
        let file = File::open(&path).context("open", &path)?;
        stamp.parts.insert(
            part.file.clone(),
            Seen::of(&file, part.sha256).context("read", &path)?,
        );
    }
    stamp.write(directory)
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stamp {
    format: u32,
    parts: BTreeMap<String, Seen>,
}

impl Default for Stamp {
    fn default() -> Self {
        Self {
            format: STAMP_FORMAT,
            parts: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    sha256: Digest,
}

impl Seen {
    fn of(file: &File, sha256: Digest) -> std::io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            inode: meta.ino(),
            size: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            sha256,
        })
    }
}

impl Stamp {
    /// A stamp that is missing, of another format or damaged is an empty one: everything is hashed.
    fn read(directory: &Path) -> Self {
        let text = std::fs::read(directory.join(STAMP)).unwrap_or_default();
        serde_json::from_slice(&text)
            .ok()
            .filter(|stamp: &Self| stamp.format == STAMP_FORMAT)
            .unwrap_or_default()
    }

    fn write(&self, directory: &Path) -> Result<()> {
        let path = directory.join(STAMP);
        let text = serde_json::to_vec(self).map_err(|source| Error::Json {
            path: path.clone(),
            source,
        })?;
        let new = directory.join(format!("{STAMP}.{}", std::process::id()));
        write_private(&new, &text)?;
        std::fs::rename(&new, &path).context("write", &path)
    }
}
