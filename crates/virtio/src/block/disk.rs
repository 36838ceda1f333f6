//! The file behind a disk. Knows extents and guest memory, and nothing of virtio.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{
    fs::{FallocateFlags, FlockOperation, OFlags},
    io::Errno,
};
use vm_memory::GuestMemoryMmap;

use crate::{Chain, Segment, iovec::IoVecs};

/// The unit of every address and length on the wire.
pub(super) const SECTOR: u64 = 512;

/// Zeros written at once where the file system can neither punch nor zero a range.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// What a machine may do to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskMode {
    /// An image that many machines read at once.
    ReadOnly,
    /// A sparse file of one machine's own; what the guest discards goes back to the host.
    Scratch,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenDiskError {
    #[error("cannot open disk {}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("disk {} is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    #[error("disk {} has {bytes} bytes, which is not a number of 512-byte sectors above zero", path.display())]
    Size { path: PathBuf, bytes: u64 },
    #[error("disk {} is in use by another machine", path.display())]
    InUse { path: PathBuf },
    #[error("cannot lock disk {}", path.display())]
    Lock { path: PathBuf, source: io::Error },
    #[error("disk id {id:?} is not 1 to 20 printable ASCII characters")]
    Id { id: String },
}

/// A range of bytes that lies within its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    offset: u64,
    len: u64,
}

/// An open, locked file of whole sectors.
#[derive(Debug)]
pub(super) struct Disk {
    file: File,
    mode: DiskMode,
    sectors: u64,
    /// Until the file system says otherwise.
    punches_holes: AtomicBool,
    zeroes_ranges: AtomicBool,
}

impl Disk {
    pub(super) fn open(path: &Path, mode: DiskMode) -> Result<Self, OpenDiskError> {
        let path_buf = || path.to_path_buf();
        let file = File::options()
            .read(true)
            .write(mode == DiskMode::Scratch)
            // A FIFO must be refused below, not waited for here.
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(path)
            .map_err(|source| OpenDiskError::Open {
                path: path_buf(),
                source,
            })?;
        let sectors = whole_sectors(&file, path)?;
        lock(&file, path, mode)?;
        Ok(Disk {
            file,
            mode,
            sectors,
            punches_holes: AtomicBool::new(true),
            zeroes_ranges: AtomicBool::new(true),
        })
    }

    pub(super) fn sectors(&self) -> u64 {
        self.sectors
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.mode == DiskMode::ReadOnly
    }

    /// `len` bytes from `sector` on, if the disk has them.
    pub(super) fn extent(&self, sector: u64, len: u64) -> Option<Extent> {
        let count = len.is_multiple_of(SECTOR).then_some(len / SECTOR)?;
        let end = sector.checked_add(count)?;
        // Only below the end does the product fit.
        (end <= self.sectors).then(|| Extent {
            offset: sector * SECTOR,
            len,
        })
    }

    /// Fills `segments` of guest memory with the extent's bytes.
    pub(super) fn read(
        &self,
        extent: Extent,
        memory: &GuestMemoryMmap,
        segments: &[Segment],
    ) -> io::Result<()> {
        transfer(extent, memory, segments, 0, |pieces, offset| {
            pieces.read_at(&self.file, offset)
        })
    }

    /// Writes guest memory, from byte `skip` of `segments` on, to the extent.
    pub(super) fn write(
        &self,
        extent: Extent,
        memory: &GuestMemoryMmap,
        segments: &[Segment],
        skip: usize,
    ) -> io::Result<()> {
        transfer(extent, memory, segments, skip, |pieces, offset| {
            pieces.write_at(&self.file, offset)
        })
    }

    pub(super) fn flush(&self) -> io::Result<()> {
        if self.is_read_only() {
            return Ok(());
        }
        self.file.sync_data()
    }

    /// Gives the extent's space back to the host, where its file system can; a discard is only advice.
    pub(super) fn discard(&self, extent: Extent) -> io::Result<()> {
        self.punch(extent).map(|_| ())
    }

    /// Makes the extent read as zeros; `may_free` when its space may go back to the host.
    pub(super) fn zero(&self, extent: Extent, may_free: bool) -> io::Result<()> {
        if may_free && self.punch(extent)? {
            return Ok(());
        }
        let zero = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        if self.allocate(extent, zero, &self.zeroes_ranges)? {
            return Ok(());
        }
        self.write_zeros(extent)
    }

    fn punch(&self, extent: Extent) -> io::Result<bool> {
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        self.allocate(extent, punch, &self.punches_holes)
    }

    /// False when the file system cannot do this, which is remembered.
    fn allocate(&self, extent: Extent, how: FallocateFlags, supported: &AtomicBool) -> io::Result<bool> {
        if extent.len == 0 {
            return Ok(true);
        }
        if !supported.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let call = || rustix::fs::fallocate(&self.file, how, extent.offset, extent.len);
        match rustix::io::retry_on_intr(call) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                supported.store(false, Ordering::Relaxed);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// As if the file system had said what it can do.
    #[cfg(test)]
    pub(super) fn pretend_support(&self, punches_holes: bool, zeroes_ranges: bool) {
        self.punches_holes.store(punches_holes, Ordering::Relaxed);
        self.zeroes_ranges.store(zeroes_ranges, Ordering::Relaxed);
    }

    fn write_zeros(&self, extent: Extent) -> io::Result<()> {
        let mut done = 0;
        while done < extent.len {
            let step = ZEROS
                .len()
                .min(usize::try_from(extent.len - done).unwrap_or(ZEROS.len()));
            let zeros = ZEROS.get(..step).unwrap_or_default();
            self.file.write_all_at(zeros, extent.offset + done)?;
            done += step as u64;
        }
        Ok(())
    }
}

fn whole_sectors(file: &File, path: &Path) -> Result<u64, OpenDiskError> {
    let path = || path.to_path_buf();
    let metadata = file
        .metadata()
        .map_err(|source| OpenDiskError::Open { path: path(), source })?;
    if !metadata.is_file() {
        return Err(OpenDiskError::NotAFile { path: path() });
    }
    let bytes = metadata.size();
    if bytes == 0 || !bytes.is_multiple_of(SECTOR) {
        return Err(OpenDiskError::Size { path: path(), bytes });
    }
    Ok(bytes / SECTOR)
}

/// One writer or many readers: two kernels writing one file system would destroy it, and one writing it
/// under another that reads it would crash that one.
fn lock(file: &File, path: &Path, mode: DiskMode) -> Result<(), OpenDiskError> {
    let how = match mode {
        DiskMode::ReadOnly => FlockOperation::NonBlockingLockShared,
        DiskMode::Scratch => FlockOperation::NonBlockingLockExclusive,
    };
    rustix::fs::flock(file, how).map_err(|error| match error {
        Errno::WOULDBLOCK => OpenDiskError::InUse {
            path: path.to_path_buf(),
        },
        error => OpenDiskError::Lock {
            path: path.to_path_buf(),
            source: error.into(),
        },
    })
}

/// Moves the extent's bytes by `call`, which may move fewer than it is given, until all are through.
fn transfer(
    extent: Extent,
    memory: &GuestMemoryMmap,
    segments: &[Segment],
    skip: usize,
    call: impl Fn(&IoVecs<'_>, u64) -> io::Result<usize>,
) -> io::Result<()> {
    let len = usize::try_from(extent.len).map_err(io::Error::other)?;
    let mut done = 0;
    while done < len {
        let mut pieces = IoVecs::new();
        for slice in Chain::slices(memory, segments, skip + done, len - done) {
            if !pieces.push(&slice.map_err(io::Error::other)?) {
                break;
            }
        }
        match call(&pieces, extent.offset + done as u64)? {
            // The file ends early: it has shrunk since it was opened.
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            moved => done += moved,
        }
    }
    Ok(())
}
