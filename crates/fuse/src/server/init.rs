//! The handshake.
//!
//! ```text
//!           INIT                INIT (again: everything is forgotten first)
//!  closed ────────▶ open ◀───────────┐
//!    ▲               │ └─────────────┘
//!    └───────────────┘ DESTROY
//! ```

use std::sync::atomic::{AtomicU8, Ordering};

use rustix::io::Errno;

use super::{
    Call,
    answer::{Answer, Length},
    limits::{CONGESTION, MAX_BACKGROUND, MAX_PAGES, MAX_WRITE},
};
use crate::{
    FileSystem, Outgoing, Reply,
    wire::{InitExtIn, InitFlags, InitIn, InitOut, MAJOR, MINOR, OLDEST_MINOR},
};

/// What we ask of the kernel, as far as it offers it. Not here, and why:
/// - WRITEBACK_CACHE: the guest would own sizes and times, and the host could not edit a file beside it;
/// - CACHE_SYMLINKS: the host may change a link;
/// - POSIX_ACL: the host's access lists name users the guest does not have;
/// - ATOMIC_O_TRUNC: opening asks nothing, so truncation is a SETATTR;
/// - DONT_MASK: the kernel applies the umask;
/// - SETXATTR_EXT, SECURITY_CTX, CREATE_SUPP_GROUP: they carry what only access lists and labels need.
const WANTED: InitFlags = InitFlags::ASYNC_READ
    .union(InitFlags::BIG_WRITES)
    .union(InitFlags::AUTO_INVAL_DATA)
    .union(InitFlags::DO_READDIRPLUS)
    .union(InitFlags::READDIRPLUS_AUTO)
    .union(InitFlags::NO_OPEN_SUPPORT)
    .union(InitFlags::PARALLEL_DIROPS)
    .union(InitFlags::MAX_PAGES)
    .union(InitFlags::NO_OPENDIR_SUPPORT)
    .union(InitFlags::SUBMOUNTS)
    .union(InitFlags::HANDLE_KILLPRIV_V2)
    .union(InitFlags::INIT_EXT);

/// What was agreed on, in one byte that threads share.
#[derive(Debug, Default)]
pub(super) struct Session(AtomicU8);

const OPEN: u8 = 1;
const SKIPS_OPEN: u8 = 2;
const SKIPS_OPENDIR: u8 = 4;
const SUBMOUNTS: u8 = 8;

impl Session {
    pub(super) fn is_open(&self) -> bool {
        self.has(OPEN)
    }

    /// The kernel takes ENOSYS to OPEN for "no need to ask".
    pub(super) fn skips_open(&self) -> bool {
        self.has(SKIPS_OPEN)
    }

    pub(super) fn skips_opendir(&self) -> bool {
        self.has(SKIPS_OPENDIR)
    }

    /// The kernel mounts what is marked as another file system. Behind `/dev/fuse` it does not, and takes an entry with
    /// that mark for another than it had: each time it looks again, everything below is forgotten and what was mounted
    /// there is gone.
    pub(super) fn mounts_submounts(&self) -> bool {
        self.has(SUBMOUNTS)
    }

    fn has(&self, bit: u8) -> bool {
        self.0.load(Ordering::Acquire) & bit != 0
    }

    /// Whether it was open before.
    fn close(&self) -> bool {
        self.0.swap(0, Ordering::AcqRel) & OPEN != 0
    }

    fn open(&self, agreed: InitFlags) {
        let mut bits = OPEN;
        if agreed.contains(InitFlags::NO_OPEN_SUPPORT) {
            bits |= SKIPS_OPEN;
        }
        if agreed.contains(InitFlags::NO_OPENDIR_SUPPORT) {
            bits |= SKIPS_OPENDIR;
        }
        if agreed.contains(InitFlags::SUBMOUNTS) {
            bits |= SUBMOUNTS;
        }
        self.0.store(bits, Ordering::Release);
    }
}

pub(super) fn init<F: FileSystem>(
    call: &Call<'_, F>,
    answer: &mut Answer<'_, impl Outgoing>,
) -> Reply<Length> {
    let mut body = call.body;
    let offer: InitIn = body.take()?;
    let offered = offered_flags(&offer, body.rest())?;
    answer.reserve(size_of::<InitOut>())?;
    if offer.major > MAJOR {
        // The kernel asks again, in our version.
        return answer.put(&InitOut {
            major: MAJOR,
            minor: MINOR,
            ..InitOut::default()
        });
    }
    if offer.major < MAJOR || offer.minor < OLDEST_MINOR {
        return Err(Errno::PROTO);
    }
    if call.session.close() {
        call.fs.forget_all();
    }
    let agreed = offered & WANTED;
    let length = answer.put(&InitOut {
        major: MAJOR,
        minor: MINOR.min(offer.minor),
        max_readahead: offer.max_readahead,
        flags: low_half(agreed),
        max_background: MAX_BACKGROUND,
        congestion_threshold: CONGESTION,
        max_write: MAX_WRITE as u32,
        time_granularity: 1,
        max_pages: MAX_PAGES,
        flags2: high_half(agreed),
        ..InitOut::default()
    })?;
    call.session.open(agreed);
    Ok(length)
}

/// Newer kernels may send more than we know: what stands behind is ignored, here and nowhere else.
fn offered_flags(offer: &InitIn, rest: &[u8]) -> Reply<InitFlags> {
    let low = InitFlags::from_bits_retain(u64::from(offer.flags));
    if !low.contains(InitFlags::INIT_EXT) {
        return Ok(low);
    }
    let extension: InitExtIn = super::Body::new(rest).take()?;
    Ok(low | InitFlags::from_bits_retain(u64::from(extension.flags2) << 32))
}

fn low_half(flags: InitFlags) -> u32 {
    flags.bits() as u32
}

fn high_half(flags: InitFlags) -> u32 {
    (flags.bits() >> 32) as u32
}

pub(super) fn destroy<F: FileSystem>(call: &Call<'_, F>) -> Reply<Length> {
    call.body.end()?;
    if call.session.close() {
        call.fs.forget_all();
    }
    Ok(Length::NOTHING)
}
