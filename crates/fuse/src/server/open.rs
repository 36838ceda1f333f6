//! Opening, which carries no state, and making files, which does.

use rustix::io::Errno;

use super::{
    Call,
    answer::{Answer, Length},
    convert,
};
use crate::{
    CreateHow, Entry, FileSystem, Outgoing, Reply,
    wire::{CreateIn, CreateOut, O_EXCL, O_TRUNC, OpenFlags, OpenIn, OpenOut, ReleaseIn},
};

/// The handle of what was opened: it stands for nothing.
const OPENED: u64 = 0;

/// The handle of what CREATE or TMPFILE made.
const MADE: u64 = 1;

pub(super) fn open<F: FileSystem>(
    call: &Call<'_, F>,
    answer: &mut Answer<'_, impl Outgoing>,
) -> Reply<Length> {
    call.body.only::<OpenIn>()?;
    if call.session.skips_open() {
        return Err(Errno::NOSYS);
    }
    answer.put(&opened(OPENED, OpenFlags::KEEP_CACHE))
}

pub(super) fn open_directory<F: FileSystem>(
    call: &Call<'_, F>,
    answer: &mut Answer<'_, impl Outgoing>,
) -> Reply<Length> {
    call.body.only::<OpenIn>()?;
    if call.session.skips_opendir() {
        return Err(Errno::NOSYS);
    }
    answer.put(&opened(OPENED, OpenFlags::KEEP_CACHE | OpenFlags::CACHE_DIR))
}

pub(super) fn release<F: FileSystem>(call: &Call<'_, F>) -> Reply<Length> {
    let ReleaseIn { fh, .. } = call.body.only()?;
    match fh {
        OPENED => {}
        MADE => call.fs.release(call.node),
        _ => return Err(Errno::BADF),
    }
    Ok(Length::NOTHING)
}

pub(super) fn release_directory<F: FileSystem>(call: &Call<'_, F>) -> Reply<Length> {
    call.body.only::<ReleaseIn>()?;
    Ok(Length::NOTHING)
}

pub(super) fn create<F: FileSystem>(
    call: &Call<'_, F>,
    answer: &mut Answer<'_, impl Outgoing>,
) -> Reply<Length> {
    let mut body = call.body;
    let CreateIn { flags, mode, .. } = body.take()?;
    let name = body.last_name()?;
    let how = CreateHow {
        permissions: convert::permissions(mode),
        exclusive: flags & O_EXCL != 0,
        truncate: flags & O_TRUNC != 0,
    };
    answer.reserve(size_of::<CreateOut>())?;
    let entry = call.fs.create(call.caller, call.node, name, how)?;
    // What the kernel has cached of a file that was there must go with its content.
    let keep = if how.truncate {
        OpenFlags::empty()
    } else {
        OpenFlags::KEEP_CACHE
    };
    put_made(&entry, keep, answer)
}

/// The name that comes with it means nothing (Linux sends a slash).
pub(super) fn make_temporary<F: FileSystem>(
    call: &Call<'_, F>,
    answer: &mut Answer<'_, impl Outgoing>,
) -> Reply<Length> {
    let mut body = call.body;
    let CreateIn { mode, .. } = body.take()?;
    body.text()?;
    body.end()?;
    answer.reserve(size_of::<CreateOut>())?;
    let entry = call
        .fs
        .make_temporary(call.caller, call.node, convert::permissions(mode))?;
    put_made(&entry, OpenFlags::KEEP_CACHE, answer)
}

fn put_made(entry: &Entry, flags: OpenFlags, answer: &mut Answer<'_, impl Outgoing>) -> Reply<Length> {
    answer.put(&CreateOut {
        entry: convert::made(entry)?,
        open: opened(MADE, flags),
    })
}

fn opened(fh: u64, flags: OpenFlags) -> OpenOut {
    OpenOut {
        fh,
        open_flags: flags.bits(),
        padding: 0,
    }
}
