//! The reply as it is built: the body first, the header when its length is known.

use rustix::io::Errno;
use zerocopy::{Immutable, IntoBytes};

use crate::{Answered, Outgoing, Reply, Target, wire::OutHeader};

pub(super) const HEADER: usize = size_of::<OutHeader>();

/// How many bytes of the reply stand behind its header.
#[derive(Clone, Copy)]
pub(super) struct Length(usize);

impl Length {
    pub(super) const NOTHING: Length = Length(0);

    /// After [`Answer::put_at`].
    pub(super) fn of(len: usize) -> Self {
        Length(len)
    }
}

pub(super) struct Answer<'a, O> {
    out: &'a mut O,
}

impl<'a, O: Outgoing> Answer<'a, O> {
    pub(super) fn new(out: &'a mut O) -> Self {
        Answer { out }
    }

    /// Room behind the header.
    pub(super) fn room(&self) -> usize {
        self.out.room().saturating_sub(HEADER)
    }

    /// To be asked before the file system is: what it did could not be told the kernel otherwise.
    pub(super) fn reserve(&self, len: usize) -> Reply<()> {
        if len <= self.room() {
            Ok(())
        } else {
            Err(Errno::IO)
        }
    }

    pub(super) fn put(&mut self, body: &(impl IntoBytes + Immutable + ?Sized)) -> Reply<Length> {
        let bytes = body.as_bytes();
        self.put_at(0, bytes)?;
        Ok(Length(bytes.len()))
    }

    /// `offset` is counted from the end of the header.
    pub(super) fn put_at(&mut self, offset: usize, bytes: &[u8]) -> Reply<()> {
        self.reserve(offset.saturating_add(bytes.len()))?;
        self.out.put(HEADER + offset, bytes).map_err(|_| Errno::IO)
    }

    /// Lets `fill` put up to `len` bytes.
    pub(super) fn fill(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut dyn Target) -> Reply<()>,
    ) -> Reply<Length> {
        self.reserve(len)?;
        let mut target = self.out.target(HEADER, len);
        fill(&mut target)?;
        Ok(Length(len.saturating_sub(target.room())))
    }

    pub(super) fn finish(self, unique: u64, result: Reply<Length>) -> Answered {
        let (len, error) = match result {
            Ok(Length(len)) => (HEADER + len, 0),
            Err(errno) => (HEADER, -errno.raw_os_error()),
        };
        let header = u32::try_from(len)
            .ok()
            .map(|len| OutHeader { len, error, unique });
        match header {
            Some(header) if len <= self.out.room() => match self.out.put(0, header.as_bytes()) {
                Ok(()) => Answered::Reply(len),
                Err(_) => Answered::Silence,
            },
            _ => Answered::Silence,
        }
    }
}
