//! How long a request may take, told from its first bytes.

use zerocopy::FromBytes;

use crate::wire::{InHeader, Opcode};

/// Beyond this a request is not quick, whatever it is; only a WRITE may be longer.
const QUICK_LEN: usize = 16 << 10;

/// Where a request is best answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// By whoever finds it: it does not wait for a disk longer than a processor may be held.
    Quick,
    /// By a thread that may wait.
    Slow,
}

impl Weight {
    /// `len` is that of the whole request.
    pub fn of(opcode: u32, len: usize) -> Weight {
        match Opcode::parse(opcode) {
            Some(
                Opcode::FSync
                | Opcode::FSyncDir
                | Opcode::SyncFs
                | Opcode::FAllocate
                | Opcode::CopyFileRange
                | Opcode::LSeek
                | Opcode::Destroy,
            ) => Weight::Slow,
            Some(Opcode::Write) => Weight::Quick,
            _ if len > QUICK_LEN => Weight::Slow,
            _ => Weight::Quick,
        }
    }
}

/// A look at a request before it is answered. Good for choosing who answers it and for naming it in a log, not for
/// deciding anything: the server copies the header again, and it may have changed by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peek {
    pub opcode: u32,
    pub unique: u64,
    pub len: usize,
}

impl Peek {
    /// How many bytes of a request it takes.
    pub const BYTES: usize = size_of::<InHeader>();

    pub fn at(request: &[u8]) -> Option<Peek> {
        let (header, _) = InHeader::read_from_prefix(request).ok()?;
        Some(Peek {
            opcode: header.opcode,
            unique: header.unique,
            len: header.len as usize,
        })
    }

    pub fn weight(self) -> Weight {
        Weight::of(self.opcode, self.len)
    }
}
