//! One block request, from a checked chain to its status byte.
//!
//! ```text
//! readable: type u32 | reserved u32 | sector u64 | data to write, or ranges      writable: data read | status u8
//! ```
//! The driver may split these over descriptors as it likes, so all of it is addressed by offset.

use std::io;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD,
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
    VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};
use vm_memory::GuestMemoryMmap;

use super::disk::{Disk, Extent, SECTOR};
use crate::{Chain, ChainError};

/// Data descriptors in one request: with header and status it fills a queue of 256.
pub(super) const MAX_SEGMENTS: u32 = 254;
/// Bytes in one data descriptor; with the count above it bounds a request to 32 MiB, and thus the time the
/// disk's thread is away. Linux splits what is larger.
pub(super) const MAX_SEGMENT_BYTES: u32 = 128 * 1024;
const MAX_DATA_BYTES: u64 = MAX_SEGMENTS as u64 * MAX_SEGMENT_BYTES as u64;

/// Ranges in one discard: what a file system trimming its free space sends at once.
pub(super) const MAX_DISCARD_RANGES: u32 = 32;
/// Sectors in one discarded range, 1 GiB: punching that out of a full file takes milliseconds.
pub(super) const MAX_DISCARD_SECTORS: u32 = 1 << 21;
/// Linux zeroes one range at a time.
pub(super) const MAX_ZERO_RANGES: u32 = 1;
/// Sectors in one zeroed range, 32 MiB: where the file system cannot zero a range, it is written.
pub(super) const MAX_ZERO_SECTORS: u32 = 1 << 16;

const HEADER_BYTES: usize = 16;
const RANGE_BYTES: usize = 16;
const STATUS_BYTES: usize = 1;

/// The disk as a request sees it.
pub(super) struct Target<'d> {
    pub(super) disk: &'d Disk,
    pub(super) id: &'d [u8; VIRTIO_BLK_ID_BYTES as usize],
    /// Without the flush feature a driver cannot ask for durability, so every write has it.
    pub(super) write_through: bool,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error("driver sent a request that makes no sense: {0}")]
    Malformed(&'static str),
    #[error("request type {0} is not offered")]
    Unsupported(u32),
    #[error("guest memory cannot be reached")]
    Memory(#[from] ChainError),
    #[error("host file")]
    Host(#[from] io::Error),
}

impl RequestError {
    fn status(&self) -> u32 {
        match self {
            RequestError::Unsupported(_) => VIRTIO_BLK_S_UNSUPP,
            _ => VIRTIO_BLK_S_IOERR,
        }
    }
}

/// What came of a request.
pub(super) struct Outcome {
    /// Bytes written to the chain, its status included.
    pub(super) written: u32,
    pub(super) error: Option<RequestError>,
}

/// Serves the request and writes its status, the chain's last writable byte.
pub(super) fn serve(target: &Target<'_>, memory: &GuestMemoryMmap, chain: &Chain) -> Outcome {
    let Some(room) = chain.writable_len().checked_sub(STATUS_BYTES) else {
        return Outcome {
            written: 0,
            error: Some(RequestError::Malformed("no status byte")),
        };
    };
    let (data, status, error) = match execute(target, memory, chain, room) {
        Ok(data) => (data, VIRTIO_BLK_S_OK, None),
        Err(error) => (0, error.status(), Some(error)),
    };
    match chain.write_at(memory, room, &[status.to_le_bytes()[0]]) {
        Ok(_) => Outcome {
            written: data + STATUS_BYTES as u32,
            error,
        },
        Err(lost) => Outcome {
            written: 0,
            error: Some(lost.into()),
        },
    }
}

/// Returns how many bytes of data were written to the chain.
fn execute(
    target: &Target<'_>,
    memory: &GuestMemoryMmap,
    chain: &Chain,
    room: usize,
) -> Result<u32, RequestError> {
    let mut header = [0; HEADER_BYTES];
    if chain.read_at(memory, 0, &mut header)? != HEADER_BYTES {
        return Err(RequestError::Malformed("short header"));
    }
    let (kind, sector) = split_header(header);
    match kind {
        VIRTIO_BLK_T_IN => {
            let extent = data_extent(target.disk, sector, room)?;
            target.disk.read(extent, memory, chain.writable())?;
            u32::try_from(room).map_err(|_| RequestError::Malformed("too much data"))
        }
        VIRTIO_BLK_T_OUT => {
            let extent = data_extent(target.disk, sector, chain.readable_len() - HEADER_BYTES)?;
            refuse_if_read_only(target.disk)?;
            target
                .disk
                .write(extent, memory, chain.readable(), HEADER_BYTES)?;
            written_through(target)
        }
        VIRTIO_BLK_T_FLUSH => {
            target.disk.flush()?;
            Ok(0)
        }
        VIRTIO_BLK_T_GET_ID => {
            let id = target.id.get(..room).unwrap_or(target.id);
            Ok(chain.write_at(memory, 0, id)? as u32)
        }
        VIRTIO_BLK_T_DISCARD => {
            refuse_if_read_only(target.disk)?;
            for (extent, flags) in ranges(target.disk, memory, chain, &DISCARD)? {
                if flags != 0 {
                    return Err(RequestError::Unsupported(kind));
                }
                target.disk.discard(extent)?;
            }
            Ok(0)
        }
        VIRTIO_BLK_T_WRITE_ZEROES => {
            refuse_if_read_only(target.disk)?;
            for (extent, flags) in ranges(target.disk, memory, chain, &ZERO)? {
                if flags & !VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0 {
                    return Err(RequestError::Unsupported(kind));
                }
                target.disk.zero(extent, flags != 0)?;
            }
            written_through(target)
        }
        other => Err(RequestError::Unsupported(other)),
    }
}

fn split_header(header: [u8; HEADER_BYTES]) -> (u32, u64) {
    let [a, b, c, d, _, _, _, _, sector @ ..] = header;
    (u32::from_le_bytes([a, b, c, d]), u64::from_le_bytes(sector))
}

fn data_extent(disk: &Disk, sector: u64, len: usize) -> Result<Extent, RequestError> {
    let len = len as u64;
    if len > MAX_DATA_BYTES {
        return Err(RequestError::Malformed("too much data"));
    }
    disk.extent(sector, len)
        .ok_or(RequestError::Malformed("data outside the disk"))
}

fn refuse_if_read_only(disk: &Disk) -> Result<(), RequestError> {
    if disk.is_read_only() {
        return Err(RequestError::Malformed("write to a read-only disk"));
    }
    Ok(())
}

fn written_through(target: &Target<'_>) -> Result<u32, RequestError> {
    if target.write_through {
        target.disk.flush()?;
    }
    Ok(0)
}

struct RangeLimits {
    ranges: u32,
    sectors: u32,
}

const DISCARD: RangeLimits = RangeLimits {
    ranges: MAX_DISCARD_RANGES,
    sectors: MAX_DISCARD_SECTORS,
};
const ZERO: RangeLimits = RangeLimits {
    ranges: MAX_ZERO_RANGES,
    sectors: MAX_ZERO_SECTORS,
};

/// Copies the ranges of a discard or a zeroing out of the chain, with their flags, and checks all of them
/// before any is acted on.
fn ranges(
    disk: &Disk,
    memory: &GuestMemoryMmap,
    chain: &Chain,
    limits: &RangeLimits,
) -> Result<Vec<(Extent, u32)>, RequestError> {
    let bytes = chain.readable_len() - HEADER_BYTES;
    let count = bytes / RANGE_BYTES;
    if bytes == 0 || !bytes.is_multiple_of(RANGE_BYTES) || count > limits.ranges as usize {
        return Err(RequestError::Malformed("wrong number of ranges"));
    }
    let mut found = Vec::with_capacity(count);
    for index in 0..count {
        let mut range = [0; RANGE_BYTES];
        chain.read_at(memory, HEADER_BYTES + index * RANGE_BYTES, &mut range)?;
        let (sector, count, flags) = split_range(range);
        if count > limits.sectors {
            return Err(RequestError::Malformed("range too long"));
        }
        let extent = disk
            .extent(sector, u64::from(count) * SECTOR)
            .ok_or(RequestError::Malformed("range outside the disk"))?;
        found.push((extent, flags));
    }
    Ok(found)
}

fn split_range(range: [u8; RANGE_BYTES]) -> (u64, u32, u32) {
    let [s0, s1, s2, s3, s4, s5, s6, s7, c0, c1, c2, c3, f0, f1, f2, f3] = range;
    (
        u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
        u32::from_le_bytes([c0, c1, c2, c3]),
        u32::from_le_bytes([f0, f1, f2, f3]),
    )
}
