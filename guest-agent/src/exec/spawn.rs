//! Fork and exec.
//!
//! By hand, because the standard library's way can neither start a process inside a control group, nor
//! tell which step failed, nor leave the waiting to our reaper. Between `clone3` and `execve` the child
//! is a copy of one thread of a threaded process: whatever lock another thread held stays locked, so it
//! makes system calls and touches memory made ready before, and nothing else. No allocation, no panic.
#![allow(unsafe_code, reason = "clone3 and execve have no safe wrapper")]

use std::{
    convert::Infallible,
    ffi::{CStr, CString, c_char},
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
    sync::mpsc::Receiver,
};

use rustix::{
    fs::{Gid, Mode, OFlags, Uid},
    io::Errno,
    pipe::{PipeFlags, pipe_with},
    process::{Resource, Rlimit},
    thread::{set_thread_gid, set_thread_groups, set_thread_uid},
};

use super::plan::Plan;
use crate::reap::{self, Ended};

/// The limits on open files systemd gives a service: programs that loop over every possible descriptor
/// stay quick, programs that need more may ask for it.
const OPEN_FILES: u64 = 1024;
const OPEN_FILES_MAX: u64 = 524_288;

/// What the child becomes fd 0, 1 and 2 of. With a terminal all three are its slave side.
pub(super) struct Stdio {
    pub(super) input: OwnedFd,
    pub(super) output: OwnedFd,
    pub(super) errors: OwnedFd,
    pub(super) is_terminal: bool,
}

#[derive(Debug)]
pub(super) struct Child {
    pub(super) pid: i32,
    /// Readable once the process has ended.
    pub(super) pidfd: OwnedFd,
    pub(super) ended: Receiver<Ended>,
}

/// The step that failed in the child. Numbers, because they cross a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Step {
    Start,
    Terminal,
    User,
    Directory,
    Execute,
}

impl Step {
    const ALL: [Step; 5] = [
        Step::Start,
        Step::Terminal,
        Step::User,
        Step::Directory,
        Step::Execute,
    ];
}

#[derive(Debug)]
pub(super) struct Failed {
    pub(super) step: Step,
    pub(super) error: io::Error,
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Failed {
            step: Step::Start,
            error,
        }
    }
}

impl From<Errno> for Failed {
    fn from(errno: Errno) -> Self {
        io::Error::from(errno).into()
    }
}

/// Returns once the command itself runs, or has failed to.
pub(super) fn spawn(plan: &Plan, stdio: &Stdio, cgroup: Option<BorrowedFd<'_>>) -> Result<Child, Failed> {
    let (report, report_end) = pipe_with(PipeFlags::CLOEXEC)?;
    let prepared = Prepared::new(plan, stdio, report_end.as_fd());
    let (pid, pidfd, ended) = reap::register(|| clone_into(&prepared, cgroup))?;
    drop(report_end);
    let mut bytes = Vec::new();
    std::fs::File::from(report).read_to_end(&mut bytes)?;
    match bytes[..] {
        [] => Ok(Child { pid, pidfd, ended }),
        [step, a, b, c, d] => Err(Failed {
            step: Step::ALL.get(usize::from(step)).copied().unwrap_or(Step::Start),
            error: io::Error::from_raw_os_error(i32::from_ne_bytes([a, b, c, d])),
        }),
        _ => Err(io::Error::from(io::ErrorKind::InvalidData).into()),
    }
}

/// All the child touches, laid out beforehand.
struct Prepared<'a> {
    plan: &'a Plan,
    stdio: &'a Stdio,
    report: BorrowedFd<'a>,
    argv: Vec<*const c_char>,
    env: Vec<*const c_char>,
    groups: Vec<Gid>,
    open_files: Rlimit,
}

impl<'a> Prepared<'a> {
    fn new(plan: &'a Plan, stdio: &'a Stdio, report: BorrowedFd<'a>) -> Self {
        let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
        let maximum = hard.unwrap_or(OPEN_FILES_MAX).min(OPEN_FILES_MAX);
        let groups = plan.identity.iter().flat_map(|account| &account.groups);
        Prepared {
            plan,
            stdio,
            report,
            argv: pointers(&plan.argv),
            env: pointers(&plan.env),
            groups: groups.map(|gid| Gid::from_raw(*gid)).collect(),
            open_files: Rlimit {
                current: Some(OPEN_FILES.min(maximum)),
                maximum: Some(maximum),
            },
        }
    }
}

/// Ended by a null pointer, as `execve` wants it.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([ptr::null()])
        .collect()
}

/// Start the process in the control group `cgroup`: 5.7 and later. The constant of `libc` is too narrow.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The kernel's `struct clone_args`, in the size that first had `cgroup`.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// A control group that cannot be used, because root in here has removed it for one, costs the command
/// its group and not its start.
fn clone_into(prepared: &Prepared<'_>, cgroup: Option<BorrowedFd<'_>>) -> io::Result<(i32, OwnedFd)> {
    match clone(prepared, cgroup) {
        Err(_) if cgroup.is_some() => clone(prepared, None),
        result => result,
    }
}

fn clone(prepared: &Prepared<'_>, cgroup: Option<BorrowedFd<'_>>) -> io::Result<(i32, OwnedFd)> {
    let mut pidfd: i32 = -1;
    let mut args = CloneArgs {
        flags: libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd).expose_provenance() as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::try_from(cgroup.as_raw_fd()).unwrap_or_default();
    }
    // SAFETY: the arguments are a whole `clone_args` of the size given, and `pidfd` in it points to an
    // integer that outlives the call. Without CLONE_VM the child is a fork on a copy of this stack.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match result {
        0 => {
            let Err(failed) = become_command(prepared);
            report(prepared.report, &failed);
            // SAFETY: `_exit` ends this process, the child, without running anything of its parent's.
            unsafe { libc::_exit(127) }
        }
        1.. => {
            // SAFETY: the kernel has just opened this descriptor for us alone.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let pid = i32::try_from(result).map_err(io::Error::other)?;
            Ok((pid, pidfd))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// A failure in the child: an errno, since an `io::Error` may allocate.
struct ChildFailed {
    step: Step,
    errno: Errno,
}

fn at(step: Step) -> impl Fn(Errno) -> ChildFailed {
    move |errno| ChildFailed { step, errno }
}

fn report(report: BorrowedFd<'_>, failed: &ChildFailed) {
    let [a, b, c, d] = failed.errno.raw_os_error().to_ne_bytes();
    let _ = rustix::io::write(report, &[failed.step as u8, a, b, c, d]);
}

/// Runs in the child.
fn become_command(prepared: &Prepared<'_>) -> Result<Infallible, ChildFailed> {
    let Prepared { plan, stdio, .. } = prepared;
    reset_signals();
    do_not_protect_from_memory_pressure();
    close_the_rest_on_exec();
    rustix::process::setsid().map_err(at(Step::Start))?;
    if stdio.is_terminal {
        rustix::process::ioctl_tiocsctty(&stdio.input).map_err(at(Step::Terminal))?;
    }
    rustix::stdio::dup2_stdin(&stdio.input).map_err(at(Step::Start))?;
    rustix::stdio::dup2_stdout(&stdio.output).map_err(at(Step::Start))?;
    rustix::stdio::dup2_stderr(&stdio.errors).map_err(at(Step::Start))?;
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    rustix::process::setrlimit(Resource::Nofile, prepared.open_files).map_err(at(Step::Start))?;
    if let Some(account) = &plan.identity {
        set_thread_groups(&prepared.groups).map_err(at(Step::User))?;
        set_thread_gid(Gid::from_raw(account.gid)).map_err(at(Step::User))?;
        set_thread_uid(Uid::from_raw(account.uid)).map_err(at(Step::User))?;
    }
    rustix::process::chdir(plan.cwd.as_c_str()).map_err(at(Step::Directory))?;
    Err(at(Step::Execute)(execute(prepared)))
}

/// Tries the candidates as `execvp` does, without its fallback to a shell: one that may not be executed
/// is remembered and the search goes on; any error but "not there" ends it.
fn execute(prepared: &Prepared<'_>) -> Errno {
    let mut worst = Errno::NOENT;
    for candidate in &prepared.plan.candidates {
        match execve(candidate, &prepared.argv, &prepared.env) {
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS => worst = Errno::ACCESS,
            other => return other,
        }
    }
    worst
}

fn execve(path: &CStr, argv: &[*const c_char], env: &[*const c_char]) -> Errno {
    // SAFETY: the path is a C string, and both arrays hold pointers to C strings that live as long as
    // the plan they were made from, ended by a null pointer. On success this does not return.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Rust ignores SIGPIPE, and an ignored signal stays ignored across `execve`; so does a blocked one.
fn reset_signals() {
    // SAFETY: setting a default disposition installs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    // SAFETY: a signal set is plain integers, for which zero, the empty set, is a value.
    let none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set outlives the call, and the old one is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) };
}

/// All of ours close on exec by themselves; this is for what the kernel or a test runner left open.
fn close_the_rest_on_exec() {
    let first = 3u32;
    // SAFETY: marking descriptors to be closed on exec touches no memory, and closes nothing now.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// The agent is the last to die when memory runs out; a command is not, and is so before it loses the
/// right to say it.
fn do_not_protect_from_memory_pressure() {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::open(c"/proc/self/oom_score_adj", flags, Mode::empty()) {
        let _ = rustix::io::write(&file, b"0");
    }
}
