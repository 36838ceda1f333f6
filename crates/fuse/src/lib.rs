//! The FUSE protocol as a library: what a kernel asks of a file system, and a [`Server`] that answers.
//!
//! Every byte of a request is hostile. The server copies a request once, checks every length and name in it, and
//! only then calls the [`FileSystem`]; what the file system is given cannot be wrong, only unwanted. It knows no
//! transport: a virtio queue and `/dev/fuse` each implement [`Incoming`] and [`Outgoing`].
//!
//! Opening a file carries no state. The server tells the kernel so (ENOSYS to OPEN, OPENDIR and FLUSH), and the
//! kernel then opens and closes without asking: every request names its node, and the file system finds its own
//! descriptor for it. Only CREATE and TMPFILE, which cannot be repeated, leave something behind; RELEASE may end it,
//! but Linux does not send that either once it need not open.
#![forbid(unsafe_code)]

pub mod buffer;
pub mod device;
mod file_system;
mod name;
pub mod null;
mod server;
pub mod testing;
mod transport;
mod types;
mod wire;

pub use file_system::{CreateHow, FileSystem};
pub use name::{Name, NameError};
pub use server::{MAX_READ, MAX_REQUEST, MAX_WRITE, Peek, Server, Weight};
pub use transport::{Answered, Incoming, Outgoing};
pub use types::{
    Attributes, Caller, Changes, DirectoryEntries, Entry, FileKind, FileSystemStatus, NodeId, Payload,
    RenameFlags, Reply, Target, TimeChange, Timestamp, WriteFlags, XattrFlags,
};
