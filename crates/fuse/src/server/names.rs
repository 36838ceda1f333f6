//! Operations on names in directories.

use rustix::io::Errno;

use super::{
    Call,
    answer::{Answer, Length},
    body::Body,
    convert,
    limits::MAX_LINK_TEXT,
};
use crate::{
    Entry, FileKind, FileSystem, NodeId, Outgoing, RenameFlags, Reply,
    wire::{EntryOut, LinkIn, MkDirIn, MkNodIn, Rename2In, RenameIn},
};

const ENTRY: usize = size_of::<EntryOut>();

pub(super) fn lookup<F: FileSystem>(
    call: &Call<'_, F>,
    answer: &mut Answer<'_, impl Outgoing>,
) -> Reply<Length> {
    let name = call.body.last_name()?;
    answer.reserve(ENTRY)?;
    let entry = call.fs.lookup(call.caller, call.node, name)?;
    answer.put(&convert::entry_out(&entry, call.session.mounts_submounts()))
}

pub(super) fn read_link<F: FileSystem>(
    call: &Call<'_, F>,
    answer: &mut Answer<'_, impl Outgoing>,
) -> Reply<Length> {
    call.body.end()?;
    let text = call.fs.read_link(call.caller, call.node)?;
    answer.put(text.as_slice())
}

pub(super) fn make_symlink<F: FileSystem>(
    call: &Call<'_, F>,
    answer: &mut Answer<'_, impl Outgoing>,
) -> Reply<Length> {
    let mut body = call.body;
    let name = body.name()?;
    let text = body.text()?;
    body.end()?;
    match text.count_bytes() {
        0 => return Err(Errno::INVAL),
        1..=MAX_LINK_TEXT => {}
        _ => return Err(Errno::NAMETOOLONG),
    }
    answer.reserve(ENTRY)?;
    let entry = call.fs.make_symlink(call.caller, call.node, name, text)?;
    put_made(&entry, answer)
}

pub(super) fn make_node<F: FileSystem>(
    call: &Call<'_, F>,
    answer: &mut Answer<'_, impl Outgoing>,
) -> Reply<Length> {
    let mut body = call.body;
    let MkNodIn { mode, .. } = body.take()?;
    let name = body.last_name()?;
    let kind = match FileKind::of_mode(mode) {
        None | Some(FileKind::Directory | FileKind::Symlink) => return Err(Errno::INVAL),
        Some(kind) => kind,
    };
    answer.reserve(ENTRY)?;
    let entry = call
        .fs
        .make_node(call.caller, call.node, name, kind, convert::permissions(mode))?;
    put_made(&entry, answer)
}

pub(super) fn make_directory<F: FileSystem>(
    call: &Call<'_, F>,
    answer: &mut Answer<'_, impl Outgoing>,
) -> Reply<Length> {
    let mut body = call.body;
    let MkDirIn { mode, .. } = body.take()?;
    let name = body.last_name()?;
    answer.reserve(ENTRY)?;
    let entry = call
        .fs
        .make_directory(call.caller, call.node, name, convert::permissions(mode))?;
    put_made(&entry, answer)
}

pub(super) fn make_link<F: FileSystem>(
    call: &Call<'_, F>,
    answer: &mut Answer<'_, impl Outgoing>,
) -> Reply<Length> {
    let mut body = call.body;
    let LinkIn { node } = body.take()?;
    let name = body.last_name()?;
    answer.reserve(ENTRY)?;
    let entry = call.fs.make_link(call.caller, NodeId(node), call.node, name)?;
    put_made(&entry, answer)
}

pub(super) fn unlink<F: FileSystem>(call: &Call<'_, F>) -> Reply<Length> {
    let name = call.body.last_name()?;
    call.fs.unlink(call.caller, call.node, name)?;
    Ok(Length::NOTHING)
}

pub(super) fn remove_directory<F: FileSystem>(call: &Call<'_, F>) -> Reply<Length> {
    let name = call.body.last_name()?;
    call.fs.remove_directory(call.caller, call.node, name)?;
    Ok(Length::NOTHING)
}

pub(super) fn rename<F: FileSystem>(call: &Call<'_, F>) -> Reply<Length> {
    let mut body = call.body;
    let RenameIn { new_parent } = body.take()?;
    rename_to(call, body, NodeId(new_parent), RenameFlags::empty())
}

pub(super) fn rename_with_flags<F: FileSystem>(call: &Call<'_, F>) -> Reply<Length> {
    let mut body = call.body;
    let Rename2In {
        new_parent, flags, ..
    } = body.take()?;
    let flags = RenameFlags::from_bits(flags).ok_or(Errno::INVAL)?;
    if flags.contains(RenameFlags::NO_REPLACE | RenameFlags::EXCHANGE) {
        return Err(Errno::INVAL);
    }
    rename_to(call, body, NodeId(new_parent), flags)
}

fn rename_to<F: FileSystem>(
    call: &Call<'_, F>,
    mut names: Body<'_>,
    new_parent: NodeId,
    flags: RenameFlags,
) -> Reply<Length> {
    let from = names.name()?;
    let to = names.last_name()?;
    call.fs
        .rename(call.caller, (call.node, from), (new_parent, to), flags)?;
    Ok(Length::NOTHING)
}

fn put_made(entry: &Entry, answer: &mut Answer<'_, impl Outgoing>) -> Reply<Length> {
    answer.put(&convert::made(entry)?)
}
