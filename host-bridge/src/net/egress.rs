//! A session's `coffer-egress`, as the session sees it: there from start to finish, whatever becomes of the process.
//!
//! [`watcher`] has the process and starts it again when it dies; here is what it is asked, and what both know.

mod watcher;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use egress_policy::{EgressPolicy, control::Spent};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use self::watcher::Watcher;
use super::{
    NetChange, NetPlan, Refusal,
    journal::{Journal, Recorder},
    tally::Tally,
};
use crate::{Error, Result, SessionName, agent::Link};

/// For the last records, when the session ends.
const FINISH_DEADLINE: Duration = Duration::from_secs(3);
/// Few things are asked of it at once.
const COMMANDS: usize = 16;

/// What of a session its network needs.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) session: &'a SessionName,
    pub(crate) journal: PathBuf,
    pub(crate) log: PathBuf,
    /// Of the machine, which need not be there yet.
    pub(crate) control: PathBuf,
    pub(crate) guest: Weak<Link>,
    pub(crate) spent: Spent,
}

/// Dropped, the process is killed.
#[derive(Debug)]
pub(crate) struct Egress {
    shared: Arc<Mutex<Shared>>,
    commands: mpsc::Sender<Command>,
    recorder: Recorder,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    task: AbortOnDrop,
    journal: Journal,
}

#[derive(Debug)]
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        // The task owns the process, and a process dropped is a process killed.
        self.0.abort();
    }
}

#[derive(Debug)]
struct Shared {
    policy: EgressPolicy,
    tally: Tally,
}

#[derive(Debug)]
enum Command {
    /// The machine is there: give it the link.
    Connect(oneshot::Sender<Result<()>>),
    /// The policy is another now. Answered when it is in force.
    PolicyChanged(oneshot::Sender<()>),
    Finish,
}

impl Egress {
    /// Starts the process and waits until it is ready.
    pub(crate) async fn start(plan: &NetPlan, around: Surroundings<'_>) -> Result<Self> {
        let (recorder, journal) = Journal::begin(&around.journal, around.session, around.spent)?;
        let shared = Arc::new(Mutex::new(Shared {
            policy: plan.policy.clone(),
            tally: Tally::new(around.spent),
        }));
        let (commands, queue) = mpsc::channel(COMMANDS);
        let mut watcher = Watcher::new(plan, around, Arc::clone(&shared), recorder.clone(), queue);
        let first = watcher.start_process().await?;
        recorder.policy(plan.policy.clone()).await;
        Ok(Egress {
            shared,
            commands,
            recorder,
            running: Mutex::new(Some(Running {
                task: AbortOnDrop(tokio::spawn(watcher.run(first))),
                journal,
            })),
        })
    }

    /// The machine has started: gives it its link. From then on each later process gets one by itself.
    pub(crate) async fn connect(&self) -> Result<()> {
        let (tell, told) = oneshot::channel();
        let gone = || Error::EgressFailed {
            why: "nobody watches over it".to_owned(),
            log: String::new(),
        };
        self.commands
            .send(Command::Connect(tell))
            .await
            .map_err(|_| gone())?;
        told.await.map_err(|_| gone())?
    }

    /// Puts a change in force.
    pub(crate) async fn change(&self, change: &NetChange) -> Result<()> {
        let policy = {
            let mut shared = lock(&self.shared);
            let policy = change.applied(&shared.policy)?;
            shared.policy = policy.clone();
            policy
        };
        self.recorder.policy(policy).await;
        let (tell, told) = oneshot::channel();
        // When the process is gone the next one has it from the start.
        let _ = self.commands.send(Command::PolicyChanged(tell)).await;
        let _ = told.await;
        Ok(())
    }

    /// The one in force, or about to be.
    pub(crate) fn policy(&self) -> EgressPolicy {
        lock(&self.shared).policy.clone()
    }

    pub(crate) fn spent(&self) -> Spent {
        lock(&self.shared).tally.spent()
    }

    pub(crate) fn refusals(&self) -> Vec<Refusal> {
        lock(&self.shared).tally.refusals().to_vec()
    }

    /// Ends the process and waits until its last words are written.
    pub(crate) async fn finish(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Running { mut task, journal }) = running else {
            return;
        };
        let process = async {
            let _ = self.commands.send(Command::Finish).await;
            let _ = (&mut task.0).await;
        };
        let _ = tokio::time::timeout(FINISH_DEADLINE, process).await;
        let records = async {
            self.recorder.end().await;
            journal.written().await;
        };
        // A disk that hangs does not keep a session from ending.
        let _ = tokio::time::timeout(FINISH_DEADLINE, records).await;
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
