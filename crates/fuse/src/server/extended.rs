//! Extended attributes.

use rustix::io::Errno;

use super::{
    Call,
    answer::{Answer, Length},
    limits::MAX_XATTR,
};
use crate::{
    FileSystem, Outgoing, Reply, XattrFlags,
    wire::{GetXattrIn, GetXattrOut, SetXattrIn},
};

pub(super) fn set<F: FileSystem>(call: &Call<'_, F>) -> Reply<Length> {
    let mut body = call.body;
    let SetXattrIn { size, flags } = body.take()?;
    let name = body.name()?;
    let value = body.rest();
    if value.len() > MAX_XATTR {
        return Err(Errno::TOOBIG);
    }
    if usize::try_from(size) != Ok(value.len()) {
        return Err(Errno::INVAL);
    }
    let flags = XattrFlags::from_bits(flags).ok_or(Errno::INVAL)?;
    call.fs.set_xattr(call.caller, call.node, name, value, flags)?;
    Ok(Length::NOTHING)
}

pub(super) fn get<F: FileSystem>(
    call: &Call<'_, F>,
    answer: &mut Answer<'_, impl Outgoing>,
) -> Reply<Length> {
    let mut body = call.body;
    let GetXattrIn { size, .. } = body.take()?;
    let name = body.last_name()?;
    let value = call.fs.xattr(call.caller, call.node, name)?;
    put(&value, size, answer)
}

pub(super) fn list<F: FileSystem>(
    call: &Call<'_, F>,
    answer: &mut Answer<'_, impl Outgoing>,
) -> Reply<Length> {
    let GetXattrIn { size, .. } = call.body.only()?;
    let names = call.fs.list_xattrs(call.caller, call.node)?;
    put(&names, size, answer)
}

pub(super) fn remove<F: FileSystem>(call: &Call<'_, F>) -> Reply<Length> {
    let name = call.body.last_name()?;
    call.fs.remove_xattr(call.caller, call.node, name)?;
    Ok(Length::NOTHING)
}

/// A size of 0 asks how much there is.
fn put(value: &[u8], asked: u32, answer: &mut Answer<'_, impl Outgoing>) -> Reply<Length> {
    let size = u32::try_from(value.len()).map_err(|_| Errno::RANGE)?;
    if asked == 0 {
        return answer.put(&GetXattrOut { size, padding: 0 });
    }
    if size > asked || value.len() > MAX_XATTR || value.len() > answer.room() {
        return Err(Errno::RANGE);
    }
    answer.put(value)
}
