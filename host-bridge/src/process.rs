//! Processes: one that can be told from a later one with the same number, and ours as a parent.
#![allow(unsafe_code, reason = "close_range has no wrapper")]

use std::{fs, os::fd::OwnedFd, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{
        Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, pidfd_open, pidfd_send_signal, setrlimit,
    },
};
use serde::{Deserialize, Serialize};

/// A process id and when it began, in clock ticks since boot (field 22 of `/proc/PID/stat`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    pub pid: u32,
    pub start: u64,
}

impl ProcessId {
    pub fn of(pid: u32) -> Option<Self> {
        let start = start_of(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        Some(ProcessId { pid, start })
    }

    pub fn current() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// Whether this very process is still there and runs the program called `exe`.
    pub fn runs(self, exe: &str) -> bool {
        let program = fs::read_link(format!("/proc/{}/exe", self.pid));
        Self::of(self.pid) == Some(self)
            && program.is_ok_and(|path| {
                // The kernel adds this when the file was replaced since, as every rebuild does.
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.trim_end_matches(" (deleted)") == exe
            })
    }

    /// Asks it to end.
    pub fn terminate(self) {
        if let Some(handle) = self.handle()
            && Self::of(self.pid) == Some(self)
        {
            // Gone already is as good.
            let _ = pidfd_send_signal(&handle, Signal::TERM);
        }
    }

    /// Waits until it is gone; false when it is not in time.
    pub fn wait(self, wait: Duration) -> bool {
        match self.handle() {
            Some(handle) if Self::of(self.pid) == Some(self) => gone(&handle, wait),
            _ => true,
        }
    }

    fn handle(self) -> Option<OwnedFd> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw)?;
        pidfd_open(pid, PidfdFlags::empty()).ok()
    }

    /// Kills it if it still is what [`runs`](Self::runs) says, and waits until it is gone. The handle is
    /// taken before the check, so that a number used again in between is never hit.
    pub fn kill(self, exe: &str, wait: Duration) -> bool {
        match self.handle() {
            Some(handle) if self.runs(exe) => {
                pidfd_send_signal(&handle, Signal::KILL).is_ok() && gone(&handle, wait)
            }
            _ => true,
        }
    }
}

fn gone(handle: &OwnedFd, wait: Duration) -> bool {
    let timeout = Timespec::try_from(wait).ok();
    poll(&mut [PollFd::new(handle, PollFlags::IN)], timeout.as_ref()).is_ok_and(|ready| ready > 0)
}

/// Descriptors that whoever started us left open, a lock of a script maybe, are not for processes that
/// outlive us. Ours are close-on-exec anyway.
pub(crate) fn keep_descriptors_to_ourselves() {
    let first_after_standard: libc::c_uint = 3;
    // SAFETY: with this flag the call closes nothing; it takes numbers only. Kernels before 5.11 refuse it,
    // and then descriptors are inherited as ever.
    let _ = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first_after_standard,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
}

/// As many descriptors as the system lets us have: each command at work in a guest costs its machine one,
/// and the soft limit is often 1024. Nothing of ours uses select(2), which that limit is for.
pub(crate) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Refused, the limit is what it was.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    );
}

/// The second field is the program's name in brackets and may hold anything, brackets too.
fn start_of(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 0 0";
        assert_eq!(start_of(stat), Some(12345));
    }

    #[test]
    fn a_process_with_another_start_or_another_program_is_left_alone() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let id = ProcessId::of(child.id()).unwrap();
        let program = fs::read_link(format!("/proc/{}/exe", id.pid)).unwrap();
        let program = program.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(
            !ProcessId {
                start: id.start + 1,
                ..id
            }
            .runs(&program)
        );
        assert!(id.kill("coffer-vmm", Duration::from_secs(5)));
        assert!(child.try_wait().unwrap().is_none());
        assert!(id.kill(&program, Duration::from_secs(5)));
        child.wait().unwrap();
    }
}
