//! Where a body ends.

use egress_policy::Reason;

use super::{
    fields::{self, MAX_FIELDS, Name},
    lines::Lines,
};
use crate::inspect::Guard;

/// 2^60 is more than anybody sends, and sixteen digits are where some servers overflow.
const MAX_SIZE_DIGITS: usize = 15;
/// The line with a chunk's size. Extensions are rare and short.
const MAX_SIZE_LINE: usize = 1024;

pub(super) enum Body {
    /// So many bytes are left. Zero: over, or there never was one.
    Length(u64),
    Size(Lines),
    Chunk(u64),
    ChunkEnd,
    Trailer {
        lines: Lines,
        fields: usize,
    },
}

impl Body {
    pub(super) const NONE: Self = Self::Length(0);

    pub(super) fn chunked() -> Self {
        Self::Size(Lines::default())
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Length(0))
    }

    /// How many bytes from the front belong to it and may go; zero when more has to arrive.
    pub(super) fn read(&mut self, rest: &[u8]) -> Result<usize, Reason> {
        match self {
            Self::Length(left) => Ok(take(left, rest)),
            Self::Chunk(left) => {
                let taken = take(left, rest);
                if *left == 0 {
                    *self = Self::ChunkEnd;
                }
                Ok(taken)
            }
            Self::ChunkEnd => self.read_chunk_end(rest),
            Self::Size(lines) => {
                let Some(line) = lines.next(rest, MAX_SIZE_LINE)? else {
                    return Ok(0);
                };
                let length = lines.length();
                *self = match chunk_size(line)? {
                    0 => Self::Trailer {
                        lines: Lines::default(),
                        fields: 0,
                    },
                    size => Self::Chunk(size),
                };
                Ok(length)
            }
            Self::Trailer { lines, fields } => {
                let Some(length) = read_trailer(lines, fields, rest)? else {
                    return Ok(0);
                };
                *self = Self::NONE;
                Ok(length)
            }
        }
    }

    fn read_chunk_end(&mut self, rest: &[u8]) -> Result<usize, Reason> {
        match rest {
            [] | [b'\r'] => Ok(0),
            [b'\r', b'\n', ..] => {
                *self = Self::chunked();
                Ok(2)
            }
            _ => Err(Reason::AmbiguousHttp),
        }
    }

    /// Is there something that waits for the rest of its line?
    pub(super) fn holds_back(&self) -> bool {
        match self {
            Self::Length(_) | Self::Chunk(_) | Self::ChunkEnd => false,
            Self::Size(lines) | Self::Trailer { lines, .. } => lines.has_begun(),
        }
    }
}

fn take(left: &mut u64, rest: &[u8]) -> usize {
    // What does not fit a usize is more than there is.
    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
    *left -= taken as u64;
    taken
}

/// Hexadecimal digits, then nothing or a `;` at once and an extension in plain text.
fn chunk_size(line: &[u8]) -> Result<u64, Reason> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, extension) = line.split_at_checked(digits).ok_or(Reason::AmbiguousHttp)?;
    let plain = match extension {
        [] => true,
        [b';', rest @ ..] => rest.iter().all(|byte| matches!(byte, b' '..=b'~')),
        _ => false,
    };
    if !plain || digits.len() > MAX_SIZE_DIGITS {
        return Err(Reason::AmbiguousHttp);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| Reason::AmbiguousHttp)?;
    u64::from_str_radix(digits, 16).map_err(|_| Reason::AmbiguousHttp)
}

/// Its length, once it is whole. It must say nothing that belongs into a head.
fn read_trailer(lines: &mut Lines, fields: &mut usize, rest: &[u8]) -> Result<Option<usize>, Reason> {
    while let Some(line) = lines.next(rest, Guard::MAX_HELD)? {
        if line.is_empty() {
            return Ok(Some(lines.length()));
        }
        *fields += 1;
        let (name, _) = fields::parse(line)?;
        if name != Name::Other || *fields > MAX_FIELDS {
            return Err(Reason::AmbiguousHttp);
        }
    }
    Ok(None)
}
