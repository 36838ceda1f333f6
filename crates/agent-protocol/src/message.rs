//! The messages themselves. Names, arguments and paths of the guest are bytes: Linux asks no more of them.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// The first frame on every connection, from the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub version: u16,
    pub role: Role,
}

impl Hello {
    pub fn new(role: Role) -> Self {
        Hello {
            version: crate::VERSION,
            role,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    Control(GuestInfo),
    Stream(StreamId),
}

/// What the guest says of itself. Untrusted, for display only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestInfo {
    pub agent_version: String,
    pub kernel: String,
    /// Milliseconds from the kernel's start to the moment the agent dialed.
    pub uptime_ms: u64,
}

/// Names one operation of one session; chosen by the host at random, so that no other process in the guest can
/// answer for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamId(pub u64);

/// Host to guest, on the control connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostMessage {
    /// The answer to a control [`Hello`]; the guest becomes this session before it reads on.
    Welcome(Setup),
    /// Do this, and dial a stream with `id` for it.
    Start {
        id: StreamId,
        request: Request,
    },
    /// Send a signal to the whole process group of a command (the foreground group of a terminal).
    Signal {
        id: StreamId,
        signal: i32,
    },
    Resize {
        id: StreamId,
        size: TerminalSize,
    },
    /// The host's wall clock; the guest steps its own when it is off.
    Clock {
        unix_ns: u64,
    },
    Ping {
        nonce: u64,
    },
    /// Which process has this local port? Answered by [`GuestMessage::Owner`] with the same number.
    Owner {
        nonce: u64,
        protocol: PortProtocol,
        port: u16,
    },
    /// Stop everything and power off; processes get `grace_ms` between SIGTERM and SIGKILL.
    Shutdown {
        grace_ms: u32,
    },
}

/// Guest to host, on the control connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestMessage {
    /// The setup is in force.
    Ready,
    /// The setup could not be put in force; the guest powers off after this.
    SetupFailed {
        what: String,
    },
    Pong {
        nonce: u64,
    },
    /// `None`: nobody has that port any more.
    Owner {
        nonce: u64,
        owner: Option<PortOwner>,
    },
    /// The guest is going down in order: what follows is a clean end.
    ShuttingDown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortProtocol {
    Tcp,
    Udp,
}

/// Who has a port, as far as the guest can be believed. For display only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortOwner {
    pub pid: u32,
    /// Its arguments, as many as fit [`MAX_OWNER_ARGUMENTS`] bytes.
    pub argv: Vec<Vec<u8>>,
    /// The operation it belongs to.
    pub operation: Option<StreamId>,
}

/// A command line is for recognizing, not for keeping.
pub const MAX_OWNER_ARGUMENTS: usize = 256;

/// What makes a booted guest into this session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// The session's name: its host name, and its home `/sessions/NAME`.
    pub session: String,
    pub unix_ns: u64,
    /// Variables every command starts with, before its own.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// The folders in `/sessions/NAME/mnt` from the start.
    pub folders: Vec<Folder>,
    /// The network card's addresses; a machine without a card has none.
    pub network: Option<Network>,
    /// The certificates the host trusts, as PEM, for the guest to trust instead of its own.
    pub certificates: Option<Vec<u8>>,
}

/// What the guest's network card is set to. The host end of the cable is the gateway and the only resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub mtu: u32,
    pub v4: Ipv4Addr,
    pub v4_prefix: u8,
    pub v4_gateway: Ipv4Addr,
    pub v6: Ipv6Addr,
    pub v6_prefix: u8,
    pub v6_gateway: Ipv6Addr,
}

/// A folder of the host as the guest mounts it. What may be done in it the host decides, again and at every
/// request; `read_only` only makes the guest's kernel say so early and in the usual words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folder {
    pub name: Vec<u8>,
    pub read_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    Exec(Exec),
    /// The bytes of a regular file: [`Reply::Metadata`], Stdout data, [`Reply::Done`].
    Get {
        path: Vec<u8>,
    },
    /// Stdin data until its end into a new file that replaces `path` when it is complete, then [`Reply::Done`].
    Put {
        path: Vec<u8>,
        mode: u32,
    },
    /// The names in a directory: [`Reply::Entries`]…, [`Reply::Done`].
    List {
        path: Vec<u8>,
    },
    /// [`Reply::Metadata`] of a path, a last symbolic link not followed, then [`Reply::Done`].
    Stat {
        path: Vec<u8>,
    },
    /// A directory and its missing parents; one that is there is success.
    MakeDirectory {
        path: Vec<u8>,
        mode: u32,
    },
    MakeSymlink {
        path: Vec<u8>,
        target: Vec<u8>,
    },
    /// A TCP connection to this port of the guest's own loopback. Stdin data goes to it, Stdout data comes from it, the
    /// end of each is passed on; [`Reply::Started`] (with pid 0) when it stands, then [`Reply::Done`].
    Connect {
        port: u16,
    },
    /// A folder the device has just been given: make it usable at `/sessions/NAME/mnt`, then [`Reply::Done`].
    /// One that is there gets the rights asked for.
    AttachFolder(Folder),
    /// Unmount a folder, before the device takes it away. When something in the guest uses it: wait that long
    /// for it to stop, then fail with [`FailureKind::Busy`] and the names of the holders; or, with `cut`,
    /// unmount it at once and anyway. [`Reply::Done`] also when it was not mounted.
    DetachFolder {
        name: Vec<u8>,
        wait_ms: u64,
        cut: bool,
    },
}

/// A command to run. No shell reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    pub argv: Vec<Vec<u8>>,
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// The session's home when absent.
    pub cwd: Option<Vec<u8>>,
    /// A name or a number, `agent` when absent.
    pub user: Option<String>,
    /// Whether the host sends standard input; otherwise it is `/dev/null`.
    pub stdin: bool,
    /// A terminal instead of three pipes; its output is all on Stdout.
    pub terminal: Option<TerminalSize>,
    pub timeout_ms: Option<u64>,
}

impl Exec {
    pub fn new(argv: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Exec {
            argv: argv.into_iter().collect(),
            env: Vec::new(),
            cwd: None,
            user: None,
            stdin: false,
            terminal: None,
            timeout_ms: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    pub rows: u16,
    pub columns: u16,
}

/// Guest to host, on a stream. `Exited`, `Done` and `Failed` are last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The command runs.
    Started {
        pid: u32,
    },
    Exited(Exit),
    Metadata(Metadata),
    Entries(Vec<Entry>),
    Done,
    Failed(Failure),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub status: Status,
    /// The time the request allowed ran out, and that is why.
    pub timed_out: bool,
    /// The guest's kernel killed a process of this command because memory ran out.
    pub out_of_memory: bool,
    pub usage: Usage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    Code(i32),
    Signal(i32),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub wall_us: u64,
    pub user_us: u64,
    pub system_us: u64,
    pub max_rss_kib: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub kind: FailureKind,
    /// One line for a person, with the value it is about. Guest text: show it quoted.
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// No such command or file (a command: exit code 127).
    NotFound,
    /// It is there and cannot be executed or opened (a command: exit code 126).
    NotPermitted,
    /// The request makes no sense here: unknown user, working directory that is none, empty argv.
    Invalid,
    /// The guest has no room: disk full, too many processes.
    Exhausted,
    /// Something in the guest uses it; the message says what.
    Busy,
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    pub kind: EntryKind,
    pub mode: u32,
    pub size: u64,
    pub modified_unix_ns: i64,
    /// The text of a symbolic link, else empty.
    pub target: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    File,
    Directory,
    Symlink,
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub name: Vec<u8>,
    pub kind: EntryKind,
}
