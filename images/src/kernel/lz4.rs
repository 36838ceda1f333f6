//! LZ4 as the kernel's build uses it (`lz4 -l`): a magic number, then blocks behind their lengths.
//! By hand, because it is the one user of a format that is a page long.

use std::io;

pub(super) const MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// What a block unpacks to at most.
const MAX_BLOCK: usize = 8 << 20;
const MIN_MATCH: usize = 4;

/// Unpacks what follows the magic number; the four bytes at the end are the unpacked size, not a block.
pub(super) fn unpack(mut blocks: &[u8], limit: u64) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    while let Some((length, rest)) = blocks.split_first_chunk().filter(|(_, rest)| !rest.is_empty()) {
        let length = u32::from_le_bytes(*length) as usize;
        let (block, after) = rest.split_at_checked(length).ok_or_else(damaged)?;
        unpack_block(block, &mut out).ok_or_else(damaged)?;
        if out.len() as u64 > limit {
            return Err(io::Error::other(format!("more than {limit} bytes")));
        }
        blocks = after;
    }
    Ok(out)
}

/// A block is a row of sequences: a token with two lengths, literal bytes, then how far back to copy
/// from. The last sequence has literals only. A match reaches no further back than its own block.
fn unpack_block(mut block: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let start = out.len();
    loop {
        let token = take(&mut block, 1)?[0];
        let literals = length(token >> 4, &mut block)?;
        out.extend(take(&mut block, literals)?);
        if block.is_empty() {
            return (out.len() - start <= MAX_BLOCK).then_some(());
        }
        let back = usize::from(u16::from_le_bytes(take(&mut block, 2)?.try_into().ok()?));
        let count = length(token & 0xf, &mut block)?.checked_add(MIN_MATCH)?;
        if back == 0 || back > out.len() - start || count > MAX_BLOCK || out.len() - start > MAX_BLOCK {
            return None;
        }
        copy_back(out, back, count);
    }
}

/// The copied bytes may overlap what they become: then they repeat.
fn copy_back(out: &mut Vec<u8>, back: usize, count: usize) {
    let from = out.len() - back;
    let mut left = count;
    while left > 0 {
        let n = left.min(out.len() - from);
        out.extend_from_within(from..from + n);
        left -= n;
    }
}

/// Four bits of a token, and when they are all set, bytes that add up until one is not 255.
fn length(nibble: u8, block: &mut &[u8]) -> Option<usize> {
    let mut length = usize::from(nibble);
    if nibble == 0xf {
        loop {
            let more = take(block, 1)?[0];
            length += usize::from(more);
            if more != u8::MAX {
                break;
            }
        }
    }
    Some(length)
}

fn take<'a>(block: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (taken, rest) = block.split_at_checked(n)?;
    *block = rest;
    Some(taken)
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a damaged LZ4 block")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Literals `abc`, ten bytes from three back, literals `xyz`; then a block of 300 equal bytes.
    fn two_blocks() -> Vec<u8> {
        let one = [&[0x36][..], b"abc", &[3, 0], &[0x30], b"xyz"].concat();
        let two = [&[0x1f][..], b"q", &[1, 0, 255, 25], &[0x10], b"!"].concat();
        let mut bytes = Vec::new();
        for block in [one, two] {
            bytes.extend((block.len() as u32).to_le_bytes());
            bytes.extend(block);
        }
        bytes.extend(316_u32.to_le_bytes());
        bytes
    }

    #[test]
    fn literals_matches_that_overlap_and_long_lengths_are_unpacked() {
        let expected = [&b"abcabcabcabcaxyz"[..], &[b'q'; 300], b"!"].concat();
        assert_eq!(unpack(&two_blocks(), 1 << 20).unwrap(), expected);
    }

    #[test]
    fn more_than_the_limit_is_an_error() {
        assert!(unpack(&two_blocks(), 100).is_err());
    }

    proptest! {
        #[test]
        fn damaged_blocks_never_panic(at in 0_usize..40, value: u8, cut in 0_usize..40) {
            let mut bytes = two_blocks();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            bytes.truncate(cut);
            let _ = unpack(&bytes, 1 << 20);
        }
    }
}
