//! The operations that run now, by the number the host gave them.
//!
//! ```text
//! begin ──▶ Starting ──running()──▶ Running ──drop of the slot──▶ gone
//!             signals and sizes       they go to the process
//!             are kept for it         at once
//! ```

use std::{
    collections::HashMap,
    iter,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Instant,
};

use agent_protocol::{StreamId, TerminalSize};

use crate::{
    exec::{self, terminal},
    lock::lock,
    reap,
    users::read_small_file,
};

/// Operations at once. Each has a thread and a handful of descriptors and buffers, some 300 KiB when
/// all are in use; a session that wants more is a fork bomb.
pub(crate) const MAX_JOBS: usize = 1024;

/// Signals kept for a command that is being started: a person at Ctrl-C, not a queue.
const MAX_EARLY_SIGNALS: usize = 16;

/// Shells in makes in shells: deeper than that nobody is looked for.
const MAX_ANCESTORS: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Jobs {
    table: Mutex<HashMap<StreamId, Job>>,
    ended: Condvar,
}

#[derive(Debug)]
enum Job {
    Starting {
        signals: Vec<i32>,
        size: Option<TerminalSize>,
    },
    Running {
        pid: i32,
        group: Option<String>,
        terminal: Option<OwnedFd>,
    },
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    Known,
}

impl Jobs {
    pub(crate) fn begin(self: &Arc<Self>, id: StreamId) -> Result<Slot, Refused> {
        let mut table = lock(&self.table);
        if table.len() >= MAX_JOBS {
            return Err(Refused::Full);
        }
        if table.contains_key(&id) {
            return Err(Refused::Known);
        }
        let job = Job::Starting {
            signals: Vec::new(),
            size: None,
        };
        table.insert(id, job);
        Ok(Slot {
            jobs: Arc::clone(self),
            id,
        })
    }

    /// To the command's process group, and to the foreground group of its terminal. An operation that
    /// has ended, or is none, takes no signals.
    pub(crate) fn signal(&self, id: StreamId, signal: i32) {
        match lock(&self.table).get_mut(&id) {
            Some(Job::Starting { signals, .. }) if signals.len() < MAX_EARLY_SIGNALS => signals.push(signal),
            Some(Job::Running { pid, terminal, .. }) => signal_command(*pid, terminal.as_ref(), signal),
            _ => {}
        }
    }

    pub(crate) fn resize(&self, id: StreamId, new: TerminalSize) {
        match lock(&self.table).get_mut(&id) {
            Some(Job::Starting { size, .. }) => *size = Some(new),
            Some(Job::Running {
                terminal: Some(terminal),
                ..
            }) => terminal::resize(terminal, new),
            _ => {}
        }
    }

    /// The command a process belongs to: by its control group, or else by who started it.
    pub(crate) fn operation_of(&self, pid: u32) -> Option<StreamId> {
        if let Some(group) = exec::group_of(pid)
            && let Some(id) =
                self.find(|job| matches!(job, Job::Running { group: Some(of), .. } if *of == group))
        {
            return Some(id);
        }
        let ancestors = iter::successors(Some(pid), |pid| parent_of(*pid)).take(MAX_ANCESTORS);
        ancestors
            .filter_map(|pid| i32::try_from(pid).ok())
            .find_map(|process| self.find(|job| matches!(job, Job::Running { pid, .. } if *pid == process)))
    }

    fn find(&self, matches: impl Fn(&Job) -> bool) -> Option<StreamId> {
        let table = lock(&self.table);
        table.iter().find(|(_, job)| matches(job)).map(|(id, _)| *id)
    }

    /// Waits for the operations that run to say their last word.
    pub(crate) fn wait_empty(&self, deadline: Instant) {
        let mut table = lock(&self.table);
        while !table.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let woken = self.ended.wait_timeout(table, left);
            table = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The place of one operation in the table, for as long as it runs.
#[derive(Debug)]
pub(crate) struct Slot {
    jobs: Arc<Jobs>,
    id: StreamId,
}

impl Slot {
    /// The command runs: what came for it meanwhile reaches it now.
    pub(crate) fn running(&self, pid: i32, group: Option<String>, terminal: Option<OwnedFd>) {
        let mut table = lock(&self.jobs.table);
        if let Some(Job::Starting { signals, size }) = table.get(&self.id) {
            if let (Some(terminal), Some(size)) = (&terminal, size) {
                terminal::resize(terminal, *size);
            }
            for signal in signals {
                signal_command(pid, terminal.as_ref(), *signal);
            }
        }
        let job = Job::Running { pid, group, terminal };
        table.insert(self.id, job);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        lock(&self.jobs.table).remove(&self.id);
        self.jobs.ended.notify_all();
    }
}

/// `PID (NAME) STATE PARENT …`, where the name may hold anything.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = read_small_file(Path::new(&format!("/proc/{pid}/stat")))?;
    let stat = String::from_utf8_lossy(&stat);
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace()
        .nth(1)?
        .parse()
        .ok()
        .filter(|parent| *parent > 1)
}

pub(crate) fn signal_command(pid: i32, terminal: Option<impl AsFd>, signal: i32) {
    reap::signal_group(pid, signal);
    let foreground = terminal.and_then(|terminal| terminal::foreground_group(terminal.as_fd()));
    if let Some(group) = foreground.filter(|group| *group != pid) {
        reap::signal_raw(-group, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_refuses_a_number_twice_and_more_than_it_holds() {
        let jobs = Arc::new(Jobs::default());
        let first = jobs.begin(StreamId(0)).unwrap();
        assert_eq!(jobs.begin(StreamId(0)).unwrap_err(), Refused::Known);
        let rest: Vec<_> = (1..MAX_JOBS as u64)
            .map(|id| jobs.begin(StreamId(id)).unwrap())
            .collect();
        assert_eq!(jobs.begin(StreamId(u64::MAX)).unwrap_err(), Refused::Full);
        drop((first, rest));
        assert!(lock(&jobs.table).is_empty());
    }
}
