//! What the host bridge and the guest agent say to each other.
//!
//! The guest dials the host, always: one control connection at boot, and one more connection per
//! operation, so that vsock credit is the back-pressure of that operation alone. Every connection
//! opens with a [`Hello`] and then carries frames: a five byte [`Header`] and its payload. Messages
//! are postcard; bulk bytes travel as they are.
//!
//! ```text
//! control   guest → host  Hello{Control}  GuestMessage…
//!           host → guest  HostMessage{Welcome}, HostMessage{Start, Signal, …}…
//! stream    guest → host  Hello{Stream(id)}  Reply, Stdout/Stderr data…  Reply{Exited | Done | Failed}
//!           host → guest  Stdin data…, an empty Stdin frame is end of file
//! ```
//!
//! The host ends an operation early by closing its stream, and one closed for writing alone counts as
//! closed. After its last reply the guest closes its direction and waits for the host to close.
#![forbid(unsafe_code)]

mod frame;
mod message;

pub use frame::{Channel, FrameError, Header, Limit, decode, encode, encode_frame};
pub use message::{
    Entry, EntryKind, Exec, Exit, Failure, FailureKind, Folder, GuestInfo, GuestMessage, Hello, HostMessage,
    MAX_OWNER_ARGUMENTS, Metadata, Network, PortOwner, PortProtocol, Reply, Request, Role, Setup, Status,
    StreamId, TerminalSize, Usage,
};

/// The version both ends must speak; an end that hears another one closes the connection.
pub const VERSION: u16 = 3;

/// The vsock port on the host that the agent dials, for control and streams alike.
pub const PORT: u32 = 1024;

/// The largest data payload. One vsock packet of the Linux driver holds 64 KiB.
pub const MAX_DATA: usize = 64 * 1024;

/// The largest message the guest accepts from the host: argv and environment may fill the kernel's
/// 2 MiB for them, and postcard adds a little.
pub const MAX_MESSAGE_TO_GUEST: usize = 4 * 1024 * 1024;

/// The largest message the host accepts from the guest. Nothing the guest says in one message is
/// long; directory listings are cut into batches of [`LIST_BATCH`].
pub const MAX_MESSAGE_TO_HOST: usize = 128 * 1024;

/// Entries per [`Reply::Entries`]: 255 byte names and metadata stay far under [`MAX_MESSAGE_TO_HOST`].
pub const LIST_BATCH: usize = 256;
