//! The one place that waits for processes.
//!
//! PID 1 inherits every orphan, so one thread waits for *any* child. It looks first without taking the
//! status (`WNOWAIT`), then takes it under the registry's lock: whoever holds the lock knows that a
//! registered process still owns its number, so a signal can never hit a stranger.
//!
//! ```text
//! start ── lock ─ clone ─ register ─ unlock          signal ── lock ─ registered? ─ kill ─ unlock
//! reaper ── peek any ── lock ─ take status ─ unregister ─ unlock ── hand the status over
//! ```
#![allow(
    unsafe_code,
    reason = "wait4 with resource usage, and kill by raw numbers, have no safe wrapper"
)]

use std::{
    collections::BTreeMap,
    io, mem,
    sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::Instant,
};

use agent_protocol::{Status, Usage};

use crate::lock::lock;

/// The thread waits and looks things up, no more.
const STACK: usize = 128 * 1024;

static REGISTRY: Mutex<Registry> = Mutex::new(Registry {
    waiting: BTreeMap::new(),
    started: 0,
    childless: true,
    running: false,
});
static CHANGED: Condvar = Condvar::new();

#[derive(Debug)]
struct Registry {
    waiting: BTreeMap<i32, mpsc::Sender<Ended>>,
    /// Counts the processes started, so that the reaper can tell "none yet" from "none any more".
    started: u64,
    childless: bool,
    running: bool,
}

/// How a process ended; `usage` has no wall time, which only its starter knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) status: Status,
    pub(crate) usage: Usage,
}

/// Starts the reaper of this process, once.
pub(crate) fn start() -> io::Result<()> {
    let mut registry = lock(&REGISTRY);
    if !registry.running {
        thread::Builder::new()
            .name("reaper".into())
            .stack_size(STACK)
            .spawn(reap_forever)?;
        registry.running = true;
    }
    Ok(())
}

/// Starts a process by `clone`, which returns its number, and promises its end.
pub(crate) fn register<T>(
    clone: impl FnOnce() -> io::Result<(i32, T)>,
) -> io::Result<(i32, T, mpsc::Receiver<Ended>)> {
    let mut registry = lock(&REGISTRY);
    let (pid, value) = clone()?;
    let (sender, receiver) = mpsc::channel();
    registry.waiting.insert(pid, sender);
    registry.started += 1;
    registry.childless = false;
    CHANGED.notify_all();
    Ok((pid, value, receiver))
}

/// Signals the process group a registered process leads. Nothing happens once it has ended.
pub(crate) fn signal_group(leader: i32, signal: i32) {
    let registry = lock(&REGISTRY);
    if registry.waiting.contains_key(&leader) {
        kill(-leader, signal);
    }
}

/// Signals the foreground group of a terminal, or a member of a control group: numbers just read
/// from the kernel. 0 and 1 would mean ourselves and everybody.
pub(crate) fn signal_raw(target: i32, signal: i32) {
    if target.unsigned_abs() > 1 {
        kill(target, signal);
    }
}

/// Signals every process but this one. Only for PID 1 of a machine that goes down.
pub(crate) fn signal_everyone(signal: i32) {
    kill(-1, signal);
}

/// Whether every child was gone by `deadline`.
pub(crate) fn wait_childless(deadline: Instant) -> bool {
    let mut registry = lock(&REGISTRY);
    while !registry.childless {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let woken = CHANGED.wait_timeout(registry, left);
        registry = woken.unwrap_or_else(PoisonError::into_inner).0;
    }
    true
}

fn reap_forever() {
    loop {
        let started = lock(&REGISTRY).started;
        match peek_ended_child() {
            Some(pid) => reap(pid),
            None => sleep_until_one_starts(started),
        }
    }
}

fn reap(pid: i32) {
    let mut registry = lock(&REGISTRY);
    let ended = take_status(pid);
    let starter = registry.waiting.remove(&pid);
    drop(registry);
    if let (Some(ended), Some(starter)) = (ended, starter) {
        // A starter that no longer listens needs no answer.
        let _ = starter.send(ended);
    }
}

/// Without children there are no orphans to come either: the next child is one we start.
fn sleep_until_one_starts(seen: u64) {
    let mut registry = lock(&REGISTRY);
    if registry.started == seen {
        registry.childless = true;
        CHANGED.notify_all();
    }
    while registry.started == seen {
        registry = wait(registry);
    }
}

fn wait(registry: MutexGuard<'_, Registry>) -> MutexGuard<'_, Registry> {
    CHANGED.wait(registry).unwrap_or_else(PoisonError::into_inner)
}

/// Blocks until a child has ended and leaves it as it is. `None`: there are no children.
fn peek_ended_child() -> Option<i32> {
    loop {
        // SAFETY: `siginfo_t` is plain data, for which zero is a value.
        let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
        let flags = libc::WEXITED | libc::WNOWAIT;
        // SAFETY: the pointer is to a whole `siginfo_t` that outlives the call.
        let result = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) };
        if result == 0 {
            // SAFETY: a successful `waitid` has filled in the fields of SIGCHLD.
            return Some(unsafe { info.si_pid() });
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return None;
        }
    }
}

fn take_status(pid: i32) -> Option<Ended> {
    let mut status = 0;
    // SAFETY: `rusage` is plain integers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: both pointers are to whole values that outlive the call.
    let result = unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage) };
    let status = if libc::WIFSIGNALED(status) {
        Status::Signal(libc::WTERMSIG(status))
    } else {
        Status::Code(libc::WEXITSTATUS(status))
    };
    let usage = Usage {
        wall_us: 0,
        user_us: microseconds(usage.ru_utime),
        system_us: microseconds(usage.ru_stime),
        max_rss_kib: u64::try_from(usage.ru_maxrss).unwrap_or(0),
    };
    (result == pid).then_some(Ended { status, usage })
}

fn microseconds(time: libc::timeval) -> u64 {
    let whole = u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(1_000_000);
    whole.saturating_add(u64::try_from(time.tv_usec).unwrap_or(0))
}

fn kill(target: i32, signal: i32) {
    // SAFETY: `kill` takes two integers and touches no memory of ours.
    // It fails when nobody is there any more, which is what was wanted.
    let _ = unsafe { libc::kill(target, signal) };
}
