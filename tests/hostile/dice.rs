//! Chance that can be repeated.

/// xorshift64*, which is random enough to be rude with.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Dice for another thread, which fall differently.
    pub(crate) fn split(&mut self) -> Self {
        Dice::new(self.roll())
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From zero to just below `end`, which is not zero.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// Once in `n`.
    pub(crate) fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Numbers that break things more often than others do.
    pub(crate) fn edge(&mut self) -> u64 {
        let edges = [
            0,
            1,
            0xff,
            0xffff,
            0x8000,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            1 << 32,
            1 << 63,
            u64::MAX,
        ];
        if self.once_in(2) {
            self.pick(&edges)
        } else {
            self.roll() >> self.below(64)
        }
    }
}
