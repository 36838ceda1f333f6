//! How much flows buffer. All of them together no more than a guest may have, however many there are and whatever they
//! leave unread.

use crate::limits::{BUFFER, SMALL_BUFFER, SPARE_BUFFERS, SPARE_PARTS};

/// A window is announced in pieces of up to 32 bytes, and memory comes in pages.
const PAGE: usize = 4096;

/// What of [`SPARE_BUFFERS`] is not given out.
#[derive(Debug)]
pub(super) struct Buffers {
    spare: usize,
}

impl Default for Buffers {
    fn default() -> Self {
        Buffers { spare: SPARE_BUFFERS }
    }
}

impl Buffers {
    /// For each way of a new flow, which gives it back ([`Self::give_back`]).
    pub(super) fn take(&mut self) -> usize {
        let part = self.spare / SPARE_PARTS / PAGE * PAGE;
        let size = (SMALL_BUFFER + part).min(BUFFER);
        self.spare = self.spare.saturating_sub(beyond_the_least(size));
        size
    }

    pub(super) fn give_back(&mut self, size: usize) {
        self.spare = self
            .spare
            .saturating_add(beyond_the_least(size))
            .min(SPARE_BUFFERS);
    }
}

/// Of both ways together.
fn beyond_the_least(size: usize) -> usize {
    2 * size.saturating_sub(SMALL_BUFFER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_FLOWS;

    #[test]
    fn the_first_has_most_and_the_last_has_the_least() {
        let mut buffers = Buffers::default();
        let sizes: Vec<usize> = (0..MAX_FLOWS).map(|_| buffers.take()).collect();
        assert!(sizes.is_sorted_by(|one, next| one >= next));
        assert_eq!((sizes[0], sizes[MAX_FLOWS - 1]), (BUFFER, SMALL_BUFFER));
        assert!(sizes[63] >= BUFFER / 8, "{}", sizes[63]);
        assert!(2 * sizes.iter().sum::<usize>() <= 2 * MAX_FLOWS * SMALL_BUFFER + SPARE_BUFFERS);
    }

    #[test]
    fn what_is_given_back_is_there_again() {
        let mut buffers = Buffers::default();
        let sizes: Vec<usize> = (0..100).map(|_| buffers.take()).collect();
        sizes.into_iter().for_each(|size| buffers.give_back(size));
        assert_eq!(buffers.spare, SPARE_BUFFERS);
    }
}
