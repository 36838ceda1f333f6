//! What is known of a node, and of the file system it is in.

use rustix::io::Errno;

use super::{
    Call,
    answer::{Answer, Length},
    convert,
    data::MAX_OFFSET,
};
use crate::{
    Changes, FileSystem, Outgoing, Reply, TimeChange, Timestamp,
    wire::{AttrOut, GetAttrIn, SetAttrIn, SetAttrValid, StatFsOut, StatXIn, StatXOut},
};

pub(super) fn get<F: FileSystem>(
    call: &Call<'_, F>,
    answer: &mut Answer<'_, impl Outgoing>,
) -> Reply<Length> {
    call.body.only::<GetAttrIn>()?;
    answer.reserve(size_of::<AttrOut>())?;
    let attributes = call.fs.attributes(call.caller, call.node)?;
    answer.put(&convert::attr_out(&attributes))
}

pub(super) fn set<F: FileSystem>(
    call: &Call<'_, F>,
    answer: &mut Answer<'_, impl Outgoing>,
) -> Reply<Length> {
    let changes = changes(&call.body.only()?)?;
    answer.reserve(size_of::<AttrOut>())?;
    let attributes = call.fs.set_attributes(call.caller, call.node, &changes)?;
    answer.put(&convert::attr_out(&attributes))
}

/// The one way to learn when a file was made.
pub(super) fn statx<F: FileSystem>(
    call: &Call<'_, F>,
    answer: &mut Answer<'_, impl Outgoing>,
) -> Reply<Length> {
    call.body.only::<StatXIn>()?;
    answer.reserve(size_of::<StatXOut>())?;
    let attributes = call.fs.attributes(call.caller, call.node)?;
    answer.put(&convert::statx_out(&attributes))
}

pub(super) fn status<F: FileSystem>(
    call: &Call<'_, F>,
    answer: &mut Answer<'_, impl Outgoing>,
) -> Reply<Length> {
    call.body.end()?;
    answer.reserve(size_of::<StatFsOut>())?;
    let status = call.fs.status(call.caller, call.node)?;
    answer.put(&convert::statfs_out(&status))
}

/// A change nobody told us of is refused, lest half of what was asked for is done. The time of the last change is
/// the host's to set.
fn changes(from: &SetAttrIn) -> Reply<Changes> {
    let valid = SetAttrValid::from_bits(from.valid).ok_or(Errno::INVAL)?;
    let has = |flag| valid.contains(flag);
    if has(SetAttrValid::SIZE) && from.size > MAX_OFFSET {
        return Err(Errno::FBIG);
    }
    Ok(Changes {
        permissions: has(SetAttrValid::MODE).then(|| convert::permissions(from.mode)),
        uid: has(SetAttrValid::UID).then_some(from.uid),
        gid: has(SetAttrValid::GID).then_some(from.gid),
        size: has(SetAttrValid::SIZE).then_some(from.size),
        accessed: time(
            has(SetAttrValid::ATIME),
            has(SetAttrValid::ATIME_NOW),
            (from.atime, from.atime_nsec),
        )?,
        modified: time(
            has(SetAttrValid::MTIME),
            has(SetAttrValid::MTIME_NOW),
            (from.mtime, from.mtime_nsec),
        )?,
        kill_privileges: has(SetAttrValid::KILL_SUIDGID),
    })
}

fn time(set: bool, now: bool, (seconds, nanoseconds): (u64, u32)) -> Reply<Option<TimeChange>> {
    match (set, now) {
        (_, true) => Ok(Some(TimeChange::Now)),
        (false, false) => Ok(None),
        (true, false) if nanoseconds >= 1_000_000_000 => Err(Errno::INVAL),
        (true, false) => Ok(Some(TimeChange::To(Timestamp {
            seconds: seconds.cast_signed(),
            nanoseconds,
        }))),
    }
}
