//! What a guest may have of us. Every limit with its reason.

use std::time::Duration;

/// Flows that stand or are about to. A build farm's worth of connections; each costs two descriptors and two buffers.
pub(crate) const MAX_FLOWS: usize = 1024;
/// Of those, flows that wait for a verdict or for the guest's last word of the handshake. A program may well open 500
/// at once, and a flood of them still leaves room for as many.
pub(crate) const MAX_OPENING: usize = 512;
/// A flow that waits longer for its verdict is refused; `coffer-egress` gives up on an address sooner.
pub(crate) const OPENING_DEADLINE: Duration = Duration::from_secs(60);
/// A flow that the guest does not finish opening.
pub(crate) const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// What a flow buffers each way while there are few: enough for one flow to go as fast as many.
pub(crate) const BUFFER: usize = 1 << 20;
/// The least it buffers each way, however many there are. All flows at once have 64 MiB of that.
pub(crate) const SMALL_BUFFER: usize = 32 * 1024;
/// What flows buffer beyond the least, all together. A guest can fill its buffers and leave them full: with this and
/// the least of every flow, that holds 128 MiB and no more.
pub(crate) const SPARE_BUFFERS: usize = 64 << 20;
/// The part of what is left of them that a new flow has each way: the first has a whole [`BUFFER`], the 64th a
/// seventh, and there is always something left for the next.
pub(crate) const SPARE_PARTS: usize = 64;
/// Names that have an address of the pool at a time.
pub(crate) const MAX_NAMES: usize = 4096;
/// Questions that wait for a verdict.
pub(crate) const MAX_QUESTIONS: usize = 256;
/// Of those, each as long as a guest's resolver waits before it asks again.
pub(crate) const QUESTION_DEADLINE: Duration = Duration::from_secs(5);
/// Questions a second, and as a burst. A browser asks tens; a tunnel would ask thousands.
pub(crate) const QUESTIONS_PER_SECOND: u32 = 200;
pub(crate) const QUESTION_BURST: u32 = 400;
/// Answers of the gateway itself to ARP, NDP, DHCP and pings, and errors it sends, waiting for room in the guest.
pub(crate) const MAX_REPLIES: usize = 256;
/// Kinds of drops told apart between two reports; the rest is counted together.
pub(crate) const MAX_DROP_KINDS: usize = 256;
/// Bytes of those answers. A ping may be as large as the cable allows, and none needs more than a few of them.
pub(crate) const MAX_REPLY_BYTES: usize = 1 << 20;
/// ICMP errors a second, and as a burst. A program that is told "no" so often does not listen.
pub(crate) const ERRORS_PER_SECOND: u32 = 1000;
pub(crate) const ERROR_BURST: u32 = 1000;
/// Events that nobody has fetched yet. Whoever drives the stack fetches them after every frame.
pub(crate) const MAX_EVENTS: usize = 2 * MAX_FLOWS;
/// How often a kind of drop is reported that goes on.
pub(crate) const DROP_INTERVAL: Duration = Duration::from_secs(1);
/// Connections to the resolver. Programs use them one at a time, and rarely.
pub(crate) const MAX_RESOLVER_CONNECTIONS: usize = 16;
/// A connection to the resolver on which nothing is asked.
pub(crate) const RESOLVER_IDLE: Duration = Duration::from_secs(30);
/// The longest question on one. A name is at most 255 bytes; the rest is room for options nobody needs.
pub(crate) const MAX_QUESTION: usize = 4096;
/// Answers to a guest's packets that a flow keeps until the guest takes them; a newer one makes up for an older one.
pub(crate) const MAX_FLOW_REPLIES: usize = 8;
/// Packets of flows that are gone, waiting for room in the guest: all flows may break at once, and strays come on top.
pub(crate) const MAX_LAST_WORDS: usize = 2 * MAX_FLOWS;
/// RSTs for segments that belong to nothing and SYNs that are too many. As many as a busy guest asks for, fewer than
/// a flood.
pub(crate) const RESETS_PER_SECOND: u32 = 10_000;
pub(crate) const RESET_BURST: u32 = 1000;
/// A guest that owes an acknowledgement and says nothing for so long has gone. Whole machines may be held up for a
/// while.
pub(crate) const GUEST_SILENCE: Duration = Duration::from_secs(300);
/// A writer that found no room is woken for so much, not for every byte the guest takes. Where the buffer is small,
/// for half of it.
pub(crate) const WORTHWHILE_ROOM: usize = 64 * 1024;
