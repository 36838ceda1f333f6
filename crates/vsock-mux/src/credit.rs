//! Credit: how much either side may have under way to the other.
//!
//! Counters are free-running 32-bit numbers. Each side tells the other its window and how much it has
//! delivered; what was sent and is not yet delivered must fit the window.

use std::num::Wrapping;

use crate::limits::MAX_PEER_WINDOW;

#[derive(Clone, Debug)]
pub(crate) struct Credit {
    window: u32,
    received: Wrapping<u32>,
    delivered: Wrapping<u32>,
    /// The value of `delivered` the guest heard last.
    announced: Wrapping<u32>,
    peer_window: u32,
    sent: Wrapping<u32>,
    peer_delivered: Wrapping<u32>,
}

/// The guest claims to have delivered what it was never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("guest claims {claimed} bytes delivered of {sent} sent")]
pub struct CreditLie {
    claimed: u32,
    sent: u32,
}

/// The guest sent more than its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes on top of {held} overrun a window of {window}")]
pub struct Overrun {
    len: u32,
    held: u32,
    window: u32,
}

impl Credit {
    /// `window` is what the guest may have under way to us.
    pub(crate) fn new(window: u32) -> Self {
        Credit {
            window,
            received: Wrapping(0),
            delivered: Wrapping(0),
            announced: Wrapping(0),
            peer_window: 0,
            sent: Wrapping(0),
            peer_delivered: Wrapping(0),
        }
    }

    /// Takes in what a packet says of the guest's side. Packets can overtake each other inside a Linux
    /// guest, so an older count is no lie, just old.
    pub(crate) fn hear(&mut self, buf_alloc: u32, fwd_cnt: u32) -> Result<(), CreditLie> {
        let claimed = Wrapping(fwd_cnt);
        if is_after(claimed, self.sent) {
            return Err(CreditLie {
                claimed: fwd_cnt,
                sent: self.sent.0,
            });
        }
        self.peer_window = buf_alloc.min(MAX_PEER_WINDOW);
        if is_after(claimed, self.peer_delivered) {
            self.peer_delivered = claimed;
        }
        Ok(())
    }

    /// How many bytes the guest takes now.
    pub(crate) fn available(&self) -> u32 {
        self.peer_window
            .saturating_sub((self.sent - self.peer_delivered).0)
    }

    pub(crate) fn send(&mut self, len: u32) {
        self.sent += len;
    }

    /// Bytes received and not yet delivered to the host.
    pub(crate) fn held(&self) -> u32 {
        (self.received - self.delivered).0
    }

    pub(crate) fn receive(&mut self, len: u32) -> Result<(), Overrun> {
        let held = self.held();
        if len > self.window.saturating_sub(held) {
            return Err(Overrun {
                len,
                held,
                window: self.window,
            });
        }
        self.received += len;
        Ok(())
    }

    pub(crate) fn deliver(&mut self, len: u32) {
        self.delivered += len.min(self.held());
    }

    /// True when the guest believes less than half its window is free and news would change that. Every
    /// packet brings the news along, so a separate one is worth its cost only then. Linux uses no more of
    /// our window than it offers itself, so a guest with a small one stops long before ours is full.
    pub(crate) fn news_due(&self) -> bool {
        let believed = (self.received - self.announced).0;
        self.delivered != self.announced && believed > self.window.min(self.peer_window) / 2
    }

    /// Our side for the next packet's header: window and delivered count.
    pub(crate) fn announce(&mut self) -> (u32, u32) {
        self.announced = self.delivered;
        (self.window, self.delivered.0)
    }
}

/// Order of two free-running counters less than 2^31 apart, which [`MAX_PEER_WINDOW`] makes sure of for
/// honest ones.
fn is_after(a: Wrapping<u32>, b: Wrapping<u32>) -> bool {
    let ahead = (a - b).0;
    ahead != 0 && ahead < 1 << 31
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_guest_cannot_deliver_what_it_was_not_sent() {
        let mut credit = Credit::new(100);
        credit.hear(100, 0).unwrap();
        credit.send(10);
        assert!(credit.hear(100, 11).is_err());
        assert!(credit.hear(100, 10).is_ok());
    }

    #[test]
    fn an_older_count_is_not_a_lie_and_takes_nothing_back() {
        let mut credit = Credit::new(100);
        credit.hear(100, 0).unwrap();
        credit.send(50);
        credit.hear(100, 50).unwrap();
        credit.hear(100, 20).unwrap();
        assert_eq!(credit.available(), 100);
    }

    #[test]
    fn a_window_shrunk_below_what_is_under_way_leaves_nothing() {
        let mut credit = Credit::new(100);
        credit.hear(100, 0).unwrap();
        credit.send(80);
        credit.hear(50, 0).unwrap();
        assert_eq!(credit.available(), 0);
    }

    #[test]
    fn a_guest_cannot_send_beyond_its_window() {
        let mut credit = Credit::new(100);
        credit.receive(60).unwrap();
        assert!(credit.receive(41).is_err());
        credit.deliver(10);
        assert!(credit.receive(41).is_ok());
    }

    #[test]
    fn news_is_due_when_the_guest_believes_half_its_window_is_gone() {
        let mut credit = Credit::new(100);
        credit.hear(1000, 0).unwrap();
        credit.receive(50).unwrap();
        credit.deliver(50);
        assert!(!credit.news_due());
        credit.receive(1).unwrap();
        assert!(credit.news_due());
        credit.announce();
        assert!(!credit.news_due());
    }

    #[test]
    fn news_is_due_sooner_for_a_guest_that_offers_a_small_window_itself() {
        let mut credit = Credit::new(100);
        credit.hear(20, 0).unwrap();
        credit.receive(10).unwrap();
        credit.deliver(10);
        assert!(!credit.news_due());
        credit.receive(1).unwrap();
        assert!(credit.news_due());
    }

    #[test]
    fn counters_wrap_without_harm() {
        let mut credit = Credit::new(100);
        for _ in 0..100 {
            credit.hear(u32::MAX, credit.sent.0).unwrap();
            let now = credit.available();
            credit.send(now);
            assert_eq!(credit.available(), 0);
        }
    }

    proptest! {
        #[test]
        fn what_is_held_never_passes_the_window(steps: Vec<(bool, u32)>) {
            let mut credit = Credit::new(1 << 18);
            for (receive, len) in steps {
                if receive {
                    let _ = credit.receive(len % (1 << 17));
                } else {
                    credit.deliver(len);
                }
                prop_assert!(credit.held() <= 1 << 18);
            }
        }
    }
}
