//! Block 0: the superblock, with a checksum.

use super::layout::Layout;
use super::{BLOCK, BLOCK_BYTES};

const MAGIC: u32 = 0xe0f5_e1e2;
const OFFSET: usize = 1024;
const CHECKSUM: usize = OFFSET + 4;

const COMPAT_CHECKSUM: u32 = 1;
const COMPAT_MTIME: u32 = 2;

/// Always the same: an image is known by its digest, and equal trees give equal images.
const UUID: [u8; 16] = *b"cofferdam-rootfs";
const VOLUME: [u8; 16] = *b"cofferdam\0\0\0\0\0\0\0";

pub(super) fn block(layout: &Layout) -> Vec<u8> {
    let mut block = vec![0; OFFSET];
    block.extend(MAGIC.to_le_bytes());
    block.extend([0; 4]); // checksum, below
    block.extend((COMPAT_CHECKSUM | COMPAT_MTIME).to_le_bytes());
    block.push(BLOCK.trailing_zeros() as u8);
    block.push(0); // extension slots
    block.extend((root(layout) as u16).to_le_bytes());
    block.extend((layout.inodes.len() as u64).to_le_bytes());
    block.extend([0; 12]); // build time
    block.extend(layout.blocks.to_le_bytes());
    block.extend([0; 4]); // inodes are numbered from block 0
    block.extend([0; 4]); // shared attributes: there are none
    block.extend(UUID);
    block.extend(VOLUME);
    block.resize(BLOCK_BYTES, 0); // no incompatible feature
    let checksum = crc32c(&block[OFFSET..]);
    block[CHECKSUM..CHECKSUM + 4].copy_from_slice(&checksum.to_le_bytes());
    block
}

/// The root is the first inode, so its number fits the 16 bits it has.
fn root(layout: &Layout) -> u64 {
    layout.inodes.first().map_or(0, |root| layout.nid(root.id))
}

/// CRC-32C as EROFS takes it: begun with ones, not inverted at the end.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let shift = |crc: u32| (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg());
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| shift(crc))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_the_digits_is_the_published_one() {
        assert_eq!(!crc32c(b"123456789"), 0xe306_9283);
    }
}
