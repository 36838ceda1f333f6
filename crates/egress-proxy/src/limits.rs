//! What a machine may have of this process. Every limit with its reason.

use std::time::Duration;

/// Flows of the process, opening ones included; the machine keeps to the same number.
pub(crate) const MAX_FLOWS: usize = 1024;
/// Messages read from the link before flows get their turn.
pub(crate) const MESSAGES_A_TURN: usize = 32;
/// Messages for the machine that wait because it does not read; nothing more is read from it until it does. What
/// flows have to say comes on top, three messages each at the most.
pub(crate) const MAX_WAITING: usize = 256;

/// From the question to the answer, whatever is in the way: shorter than any client waits.
pub(crate) const OPEN_DEADLINE: Duration = Duration::from_secs(18);
/// Of that, for finding addresses: two tries of a name server that is slow, and something for the next one.
pub(crate) const RESOLVE_DEADLINE: Duration = Duration::from_secs(8);
pub(crate) const NAME_SERVER_TIMEOUT: Duration = Duration::from_secs(2);
pub(crate) const NAME_SERVER_ATTEMPTS: usize = 2;
/// How long the addresses of one family wait for those of the other (RFC 8305 says 50 ms, for people who watch).
pub(crate) const OTHER_FAMILY: Duration = Duration::from_millis(250);
/// Addresses of a name that are looked at. More are a mistake or an attack.
pub(crate) const MAX_ADDRESSES: usize = 16;
/// The next address is tried when the one before has not answered by then (RFC 8305).
pub(crate) const STAGGER: Duration = Duration::from_millis(250);
/// A proxy that stands but does not answer.
pub(crate) const PROXY_DEADLINE: Duration = Duration::from_secs(10);
/// The head of a proxy's answer. Real ones are a few hundred bytes.
pub(crate) const MAX_PROXY_HEAD: usize = 16 * 1024;

/// On a port where the guest has to speak first, it says nothing; or it began something and does not end it.
pub(crate) const UNDECIDED_DEADLINE: Duration = Duration::from_secs(30);
/// Nothing either way. As long as a firewall keeps a flow in mind; keep-alives find hosts that are gone sooner.
pub(crate) const IDLE_DEADLINE: Duration = Duration::from_secs(4 * 3600);
/// Nothing, and one side has said all: a server that computes for longer is rare, a forgotten socket is not.
pub(crate) const HALF_IDLE_DEADLINE: Duration = Duration::from_secs(30 * 60);
/// How often a flow with a finished side is looked at, for the reset that ends the other.
pub(crate) const RESET_INTERVAL: Duration = Duration::from_secs(1);
/// A far end that is gone is found after two and a half minutes of silence.
pub(crate) const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(60);
pub(crate) const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);
pub(crate) const KEEP_ALIVE_TRIES: u32 = 6;

/// Read at once into the one buffer all flows share. What the other side does not take at once is kept by the flow.
pub(crate) const CHUNK: usize = 256 * 1024;
/// The same while there are many flows ([`MANY_FLOWS`]), so that all of them stuck keep 152 MiB at the most: both ways,
/// and the first of them read while they were few.
pub(crate) const SMALL_CHUNK: usize = 64 * 1024;
pub(crate) const MANY_FLOWS: usize = 64;
/// Carried by one direction of a flow before others have their turn.
pub(crate) const BYTES_A_TURN: usize = 1 << 20;
/// Asked of the kernel for what goes to the guest, which it doubles and cuts to the host's limit.
pub(crate) const GUEST_BUFFER: usize = 1 << 20;

/// How often records are looked through and idle flows are found.
pub(crate) const TICK: Duration = Duration::from_secs(1);
/// How often a flow that carries something says how much.
pub(crate) const CARRIED_INTERVAL: Duration = Duration::from_secs(10);
/// Events that wait for a reader of standard output. From then on no flow is opened: what cannot be recorded does not
/// happen. What live flows have to say comes on top, once each.
pub(crate) const MAX_EVENTS: usize = 4096;
/// A question that is asked again within this time is counted, not told.
pub(crate) const REFUSED_WINDOW: Duration = Duration::from_secs(5);
/// The same for a name that is allowed, which programs ask for before each connection.
pub(crate) const NAMED_WINDOW: Duration = Duration::from_secs(60);
/// Different questions within their windows that are told apart; the rest is counted by its reason.
pub(crate) const MAX_TALLIES: usize = 2048;
/// Different questions told a second, and as a burst: enough for a build, and a guest that invents names does not fill
/// the host's disk with them.
pub(crate) const TOLD_A_SECOND: u32 = 50;
pub(crate) const TOLD_BURST: u32 = 1000;
/// For the last events, at the end of the process.
pub(crate) const FLUSH_DEADLINE: Duration = Duration::from_secs(1);
/// Requests of the owner that are not yet looked at.
pub(crate) const MAX_REQUESTS: usize = 4;
