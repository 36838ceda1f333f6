//! What the kernel forgets. Nobody waits for these, and nobody hears of what is wrong with them.

use rustix::io::Errno;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::{Call, answer::Length, copy_whole};
use crate::{
    FileSystem, Incoming, NodeId, Reply,
    wire::{BatchForgetIn, ForgetIn, ForgetOne, InHeader},
};

/// How many are copied at once.
const CHUNK: usize = 64;

pub(super) fn forget<F: FileSystem>(call: &Call<'_, F>) -> Reply<Length> {
    let ForgetIn { lookups } = call.body.only()?;
    call.fs.forget(call.node, lookups);
    Ok(Length::NOTHING)
}

/// As many as the message is long: the kernel says so, and we look.
pub(super) fn forget_many<F: FileSystem>(fs: &F, request: &mut impl Incoming) -> Reply<Length> {
    let mut input = BatchForgetIn::new_zeroed();
    copy_whole(request, size_of::<InHeader>(), input.as_mut_bytes())?;
    let mut at = size_of::<InHeader>() + size_of::<BatchForgetIn>();
    let announced = u64::from(input.count) * size_of::<ForgetOne>() as u64;
    if (request.len() - at) as u64 != announced {
        return Err(Errno::INVAL);
    }
    let mut left = input.count as usize;
    let mut chunk = [ForgetOne::new_zeroed(); CHUNK];
    while left > 0 {
        let len = left.min(CHUNK);
        let bytes = chunk
            .as_mut_bytes()
            .get_mut(..len * size_of::<ForgetOne>())
            .ok_or(Errno::INVAL)?;
        copy_whole(request, at, bytes)?;
        at += bytes.len();
        left -= len;
        for ForgetOne { node, lookups } in <[ForgetOne]>::ref_from_bytes(bytes).map_err(|_| Errno::INVAL)? {
            fs.forget(NodeId(*node), *lookups);
        }
    }
    Ok(Length::NOTHING)
}
