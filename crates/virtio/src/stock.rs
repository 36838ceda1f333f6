//! A queue of buffers the driver offers to be filled, and those already taken from it.

use std::collections::VecDeque;

use crate::{Chain, DeviceQueue, QueueError};

/// Buffers are taken from the queue before it is known that they are needed, looked at, and used in their order. A
/// chain that has been answered is used again for the next buffer, so that the hot path does not allocate.
#[derive(Debug)]
pub(crate) struct Stock {
    pub(crate) queue: DeviceQueue,
    usable: fn(&Chain) -> bool,
    taken: VecDeque<Chain>,
    spare: Vec<Chain>,
    unheard: bool,
}

impl Stock {
    /// Of chains that are not `usable` none is kept.
    pub(crate) fn new(queue: DeviceQueue, usable: fn(&Chain) -> bool) -> Self {
        Stock {
            queue,
            usable,
            taken: VecDeque::new(),
            spare: Vec::new(),
            unheard: false,
        }
    }

    /// Takes buffers until there are `count`; false when the driver has not offered that many. Chains that are no
    /// buffers go back empty, a queue full of them at most.
    pub(crate) fn up_to(&mut self, count: usize) -> Result<bool, QueueError> {
        for _ in 0..=self.queue.size() {
            if self.taken.len() >= count {
                return Ok(true);
            }
            let mut chain = self.spare.pop().unwrap_or_default();
            if !self.queue.pop(&mut chain)? {
                self.spare.push(chain);
                return Ok(false);
            }
            if (self.usable)(&chain) {
                self.taken.push_back(chain);
            } else {
                self.queue.push(chain.head(), 0)?;
                self.unheard = true;
            }
        }
        Ok(false)
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Chain> {
        self.taken.get(index)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Chain> {
        self.taken.iter()
    }

    pub(crate) fn next(&mut self) -> Option<Chain> {
        self.taken.pop_front()
    }

    /// Gives one buffer back with so many bytes in it.
    pub(crate) fn answer(&mut self, chain: Chain, written: u32) -> Result<(), QueueError> {
        self.queue.push(chain.head(), written)?;
        self.unheard = true;
        self.spare.push(chain);
        Ok(())
    }

    /// Gives buffers back that the driver is to see together: their heads, and what is in each.
    pub(crate) fn answer_together(
        &mut self,
        answers: impl IntoIterator<Item = (u16, u32)>,
    ) -> Result<(), QueueError> {
        self.queue.push_together(answers)?;
        self.unheard = true;
        Ok(())
    }

    /// Keeps a chain whose head goes back by [`Self::answer_together`].
    pub(crate) fn spare(&mut self, chain: Chain) {
        self.spare.push(chain);
    }

    /// Interrupts the driver if there is anything new for it.
    pub(crate) fn signal(&mut self) -> Result<(), QueueError> {
        if std::mem::take(&mut self.unheard) {
            self.queue.signal()?;
        }
        Ok(())
    }
}
