//! What a guest may have of us. Every limit with its reason.

use std::time::Duration;

/// Flows that stand or are about to. A build farm's worth of connections; each costs two descriptors and two buffers.
pub(crate) const MAX_FLOWS: usize = 1024;
/// Of those, flows that wait for a verdict or for the guest's last word of the handshake. Linux lets 128 wait.
pub(crate) const MAX_OPENING: usize = 256;
/// A flow that waits longer for its verdict is refused; `coffer-egress` gives up on an address sooner.
pub(crate) const OPENING_DEADLINE: Duration = Duration::from_secs(60);
/// A flow that the guest does not finish opening.
pub(crate) const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// What a flow buffers each way while there are few, and while there are many ([`MANY_FLOWS`]).
pub(crate) const BUFFER: usize = 1 << 20;
pub(crate) const SMALL_BUFFER: usize = 128 * 1024;
pub(crate) const MANY_FLOWS: usize = 64;
/// Names that have an address of the pool at a time.
pub(crate) const MAX_NAMES: usize = 4096;
/// Questions that wait for a verdict.
pub(crate) const MAX_QUESTIONS: usize = 256;
pub(crate) const QUESTION_DEADLINE: Duration = Duration::from_secs(5);
/// Questions a second, and as a burst. A browser asks tens; a tunnel would ask thousands.
pub(crate) const QUESTIONS_PER_SECOND: u32 = 200;
pub(crate) const QUESTION_BURST: u32 = 400;
/// Answers of the gateway itself to ARP, NDP, DHCP and pings, and errors it sends, waiting for room in the guest.
pub(crate) const MAX_REPLIES: usize = 256;
/// Kinds of drops told apart between two reports; the rest is counted together.
pub(crate) const MAX_DROP_KINDS: usize = 256;
