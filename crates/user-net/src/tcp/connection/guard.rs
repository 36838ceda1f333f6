//! What is kept from smoltcp.

use std::time::{Duration, Instant};

use super::Connection;
use crate::tcp::segment::{self, Ends, Segment};

/// Farther away than any window reaches, and near enough for sequence numbers to be compared.
const FAR: u32 = 1 << 30;
/// Between two questions whether the guest means it.
const CHALLENGE_INTERVAL: Duration = Duration::from_secs(1);

impl Connection {
    /// Nothing that smoltcp takes for impossible: a sequence number so far off that it compares the wrong way round,
    /// bytes after the FIN, and more bytes than the buffer holds while smoltcp still believes in the unscaled window
    /// of its SYN. None of it comes from a guest that keeps to TCP, so it needs no answer.
    pub(super) fn is_plausible(&self, segment: &Segment<'_>) -> bool {
        let expected = self.expected();
        if segment.seq().wrapping_sub(expected).wrapping_add(FAR) > 2 * FAR {
            return false;
        }
        let is_within = |edge: u32| edge.wrapping_sub(segment.end()).cast_signed() >= 0;
        let edge = self
            .guest_end
            .or_else(|| (!self.window_said).then(|| self.edge()));
        segment.payload().is_empty() || edge.is_none_or(is_within)
    }

    /// A RST counts where the next byte would stand and nowhere else. One in the window is asked about, and whoever
    /// meant it says it again in the right place (RFC 5961, 3.2).
    pub(super) fn is_blind_reset(&mut self, segment: &Segment<'_>, now: Instant) -> bool {
        let expected = self.expected();
        if !segment.is_reset() || segment.seq() == expected {
            return false;
        }
        if segment.seq().wrapping_sub(expected) <= self.edge().wrapping_sub(expected) {
            self.challenge(now);
        }
        true
    }

    /// A SYN where there is a connection: the guest forgot ours, and says so when it hears of it (RFC 5961, 4.2).
    pub(super) fn challenge(&mut self, now: Instant) {
        if self
            .challenged
            .is_some_and(|last| now.saturating_duration_since(last) < CHALLENGE_INTERVAL)
        {
            return;
        }
        self.challenged = Some(now);
        let Ends { guest, far } = self.ends;
        let packet = segment::acknowledgement(far, guest, (self.sent, self.expected()), self.offloads);
        self.push_reply(packet);
    }
}
