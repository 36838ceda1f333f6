//! The content of files.

use rustix::io::Errno;
use zerocopy::{FromZeros, IntoBytes};

use super::{
    Call,
    answer::{Answer, Length},
    copy_whole,
    limits::{MAX_COPY, MAX_READ, MAX_WRITE},
};
use crate::{
    FileSystem, Incoming, NodeId, Outgoing, Reply, WriteFlags,
    wire::{
        CopyFileRangeIn, FAllocateIn, FSYNC_DATA_ONLY, FSyncIn, InHeader, LSeekIn, LSeekOut, O_APPEND,
        O_DSYNC, O_SYNC, ReadIn, SEEK_DATA, SEEK_HOLE, SyncFsIn, WRITE_CACHE, WRITE_KILL_SUIDGID, WriteIn,
        WriteOut,
    },
};

/// Linux counts bytes of files with a sign.
pub(super) const MAX_OFFSET: u64 = i64::MAX as u64;

pub(super) fn read<F: FileSystem>(
    call: &Call<'_, F>,
    answer: &mut Answer<'_, impl Outgoing>,
) -> Reply<Length> {
    let ReadIn { offset, size, .. } = call.body.only()?;
    let size = read_size(size)?;
    check_range(offset, size as u64, Errno::INVAL)?;
    answer.fill(size, |target| {
        call.fs.read(call.caller, call.node, offset, target)
    })
}

/// Of READ and READDIR.
pub(super) fn read_size(size: u32) -> Reply<usize> {
    match usize::try_from(size) {
        Ok(size) if size <= MAX_READ => Ok(size),
        _ => Err(Errno::INVAL),
    }
}

pub(super) fn write<F: FileSystem>(
    call: &Call<'_, F>,
    request: &mut impl Incoming,
    answer: &mut Answer<'_, impl Outgoing>,
) -> Reply<Length> {
    const DATA: usize = size_of::<InHeader>() + size_of::<WriteIn>();
    let mut input = WriteIn::new_zeroed();
    copy_whole(request, size_of::<InHeader>(), input.as_mut_bytes())?;
    let size = input.size as usize;
    if size > MAX_WRITE || request.len() != DATA + size {
        return Err(Errno::INVAL);
    }
    check_range(input.offset, size as u64, Errno::FBIG)?;
    answer.reserve(size_of::<WriteOut>())?;
    let mut payload = request.payload(DATA, size);
    let flags = write_flags(&input);
    let written = call
        .fs
        .write(call.caller, call.node, input.offset, &mut payload, flags)?;
    answer.put(&WriteOut {
        size: written.min(size) as u32,
        padding: 0,
    })
}

fn write_flags(input: &WriteIn) -> WriteFlags {
    let mut flags = WriteFlags::empty();
    flags.set(WriteFlags::APPEND, input.flags & O_APPEND != 0);
    flags.set(WriteFlags::FROM_CACHE, input.write_flags & WRITE_CACHE != 0);
    flags.set(
        WriteFlags::KILL_PRIVILEGES,
        input.write_flags & WRITE_KILL_SUIDGID != 0,
    );
    // O_SYNC contains the bit of O_DSYNC.
    let sync = input.flags & O_SYNC;
    flags.set(WriteFlags::SYNC, sync == O_SYNC);
    flags.set(WriteFlags::DATA_SYNC, sync == O_DSYNC);
    flags
}

pub(super) fn sync<F: FileSystem>(call: &Call<'_, F>) -> Reply<Length> {
    let FSyncIn { flags, .. } = call.body.only()?;
    call.fs
        .sync(call.caller, call.node, flags & FSYNC_DATA_ONLY != 0)?;
    Ok(Length::NOTHING)
}

pub(super) fn sync_all<F: FileSystem>(call: &Call<'_, F>) -> Reply<Length> {
    call.body.only::<SyncFsIn>()?;
    call.fs.sync_all(call.caller, call.node)?;
    Ok(Length::NOTHING)
}

pub(super) fn allocate<F: FileSystem>(call: &Call<'_, F>) -> Reply<Length> {
    let FAllocateIn {
        offset, len, mode, ..
    } = call.body.only()?;
    if len == 0 {
        return Err(Errno::INVAL);
    }
    check_range(offset, len, Errno::FBIG)?;
    call.fs.allocate(call.caller, call.node, (offset, len), mode)?;
    Ok(Length::NOTHING)
}

pub(super) fn seek<F: FileSystem>(
    call: &Call<'_, F>,
    answer: &mut Answer<'_, impl Outgoing>,
) -> Reply<Length> {
    let LSeekIn { offset, whence, .. } = call.body.only()?;
    let hole = match whence {
        SEEK_DATA => false,
        SEEK_HOLE => true,
        _ => return Err(Errno::INVAL),
    };
    // As a local file system says of what lies beyond any file.
    check_range(offset, 0, Errno::NXIO)?;
    answer.reserve(size_of::<LSeekOut>())?;
    let offset = call.fs.seek(call.caller, call.node, offset, hole)?;
    answer.put(&LSeekOut { offset })
}

pub(super) fn copy_range<F: FileSystem>(
    call: &Call<'_, F>,
    answer: &mut Answer<'_, impl Outgoing>,
) -> Reply<Length> {
    let input: CopyFileRangeIn = call.body.only()?;
    if input.flags != 0 {
        return Err(Errno::INVAL);
    }
    let len = input.len.min(MAX_COPY);
    check_range(input.offset_in, len, Errno::INVAL)?;
    check_range(input.offset_out, len, Errno::FBIG)?;
    answer.reserve(size_of::<WriteOut>())?;
    let copied = call.fs.copy_range(
        call.caller,
        (call.node, input.offset_in),
        (NodeId(input.node_out), input.offset_out),
        len,
    )?;
    answer.put(&WriteOut {
        size: (copied as u64).min(len) as u32,
        padding: 0,
    })
}

fn check_range(offset: u64, len: u64, otherwise: Errno) -> Reply<()> {
    match offset.checked_add(len) {
        Some(end) if end <= MAX_OFFSET => Ok(()),
        _ => Err(otherwise),
    }
}
