//! What one guest can make us hold, and how long we wait for it.

use std::time::Duration;

/// Connections of one guest, in any state. Hundreds of commands at once, each with a stream or two.
pub const MAX_CONNECTIONS: usize = 1024;

/// Connections that get [`WIDE_WINDOW`]; those opened while more exist get [`NARROW_WINDOW`]. Together the
/// two bound what a guest whose streams nobody reads can make us hold: 64 x 256 KiB + 960 x 64 KiB = 76 MiB.
pub const WIDE_CONNECTIONS: usize = 64;

/// Bytes the guest may have under way to us on one connection: enough that its driver prepares the next
/// packets (64 KiB each in Linux) while we write the last ones.
pub const WIDE_WINDOW: u32 = 256 * 1024;

/// The same while many connections exist: one largest packet.
pub const NARROW_WINDOW: u32 = MAX_PAYLOAD;

/// Payload of one packet from the guest; Linux cuts at this size.
pub const MAX_PAYLOAD: u32 = 64 * 1024;

/// What a guest may claim as its own buffer. More would let the 32-bit counters of credit wrap into
/// ambiguity; no guest gains from more.
pub const MAX_PEER_WINDOW: u32 = 1 << 30;

/// Resets waiting for a receive buffer that belong to no connection. A guest that provokes more without
/// reading them does not hear of the rest.
pub const MAX_LOOSE_RESETS: usize = 256;

/// One read from a host socket starts here and grows while reads come back full, so that a short
/// message does not pay for buffers it leaves empty.
pub const MIN_READ: usize = 16 * 1024;

/// Where it stops: a Linux guest's default receive window.
pub const MAX_READ: usize = 256 * 1024;

/// How often a dial is tried again while the listener's backlog is full.
pub const DIAL_RETRY: Duration = Duration::from_millis(2);

/// When a dial is given up. Linux gives up a connect after two seconds; we answer before that.
pub const DIAL_TIMEOUT: Duration = Duration::from_millis(1_800);

/// How long a guest that takes no more data may keep quiet before it is asked for credit. Linux tells of
/// credit by itself, and asking each time costs it a packet both ways.
pub const CREDIT_PATIENCE: Duration = Duration::from_millis(50);

/// How long the guest may take to answer our shutdown with a reset. Linux answers at once or, with
/// unread data, when its process has read it or closed; it gives up on its own closes after 8 seconds.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes left unread in a host socket that we read and drop before we close it, at most: what fits such
/// a socket. Closing it with bytes unread would make the host see a reset instead of an end.
pub const MAX_DISCARD: usize = 1024 * 1024;
