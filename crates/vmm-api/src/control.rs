//! What is asked of a running machine, and what it says.

use serde::{Deserialize, Serialize};

use crate::{Share, ShareName, ShareStatus};

/// One line to the control socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    Status,
    /// Stops every virtual CPU between two instructions. Idempotent.
    Pause,
    Resume,
    /// Asks the balloon for this much of the guest's memory.
    Balloon {
        mib: u32,
    },
    /// Puts a folder into the guest. Its descriptor comes with the first byte of this line (SCM_RIGHTS).
    ShareAdd {
        share: Share,
    },
    /// Takes a folder away at once: whoever still uses it in the guest gets ESTALE. The guest's mount is the
    /// agent's business.
    ShareRemove {
        name: ShareName,
    },
    Shares,
    /// A connection to a `coffer-egress`, which takes the place of the one before. It comes with the first byte of this
    /// line (SCM_RIGHTS).
    NetLink,
    /// Ends the machine now. Asking the guest first is the agent's and so the bridge's business.
    Stop,
}

/// One line back, in the order of the requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Response {
    Done,
    Status {
        state: MachineState,
        statistics: Statistics,
    },
    Shares {
        shares: Vec<ShareStatus>,
    },
    Refused {
        why: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MachineState {
    Running,
    Paused,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Exits to the VMM, all virtual CPUs together.
    pub exits: u64,
    /// Memory the balloon holds, that is, that the guest gave back on request.
    pub balloon_mib: u32,
    /// Memory the guest reported free and the host took back, all told.
    pub reclaimed_bytes: u64,
    /// Bytes the console log dropped because the guest wrote more, or faster, than it keeps.
    pub console_dropped: u64,
}

/// One line on the VMM's standard output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The virtual CPUs run.
    Started { pid: u32 },
    /// SIGTERM came: the owner asks the guest to shut down, and after `deadline_ms` the machine ends anyway.
    ShutdownRequested { deadline_ms: u64 },
    /// The last line there is.
    Exited { reason: ExitReason },
    /// The machine never ran. One line for a person.
    Failed { why: String },
}

/// Why a machine ended. Each is a different thing for the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "kebab-case")]
pub enum ExitReason {
    /// The guest switched itself off, or halted for good.
    PowerOff,
    /// The guest asked for a reset: a reboot, or its kernel's last act in a panic.
    Reset,
    /// [`Request::Stop`], or SIGTERM and its deadline.
    Stopped,
    /// The owner closed the lifeline.
    OwnerGone,
    /// A virtual CPU triple-faulted.
    TripleFault,
    /// KVM could not go on; the text is KVM's reason.
    KvmError { text: String },
    /// A device thread of ours failed; the text says which and how.
    DeviceError { text: String },
}
