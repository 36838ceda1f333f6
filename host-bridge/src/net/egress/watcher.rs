//! Keeps a `coffer-egress` at a session's side.
//!
//! ```text
//! start ──▶ Serving ── it died ──▶ Waiting (longer when it dies often) ── started again ──▶ Serving
//!              │ policy, resolver: told                │ policy: kept for the next          new link to the machine
//!              └── finish ──▶ (ended)  ◀───────────────┘
//! ```
//!
//! While there is none the machine refuses everything, as its link is gone. The one that comes next gets the policy
//! of that moment and what was spent of its budgets.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use egress_policy::control::{CONFIG_VERSION, Config, Event, Request, ResolverConfig};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Interval, MissedTickBehavior},
};

use super::{Command, FINISH_DEADLINE, Shared, Surroundings, lock};
use crate::{
    Result, console, machine,
    net::{NetPlan, journal::Recorder, owners::Owners, process::EgressProcess, resolver::HostResolver},
};

/// After its first death. A guest that waits for a name asks again after seconds.
const RESTART_SOON: Duration = Duration::from_millis(100);
/// Deaths in [`OFTEN_SPAN`] after which a restart is no longer soon: then it dies of something that stays.
const OFTEN: usize = 5;
const OFTEN_SPAN: Duration = Duration::from_secs(60);
/// A person who mends the cause does not wait long, and the log grows by a few lines a minute.
const RESTART_SLOW: Duration = Duration::from_secs(10);
/// A laptop that changes its network gets another `resolv.conf`; people notice after a few seconds.
const RESOLVER_INTERVAL: Duration = Duration::from_secs(5);
/// A process told of a new policy may say Ready when it is in force. One that does not reads it well within this time.
const POLICY_DEADLINE: Duration = Duration::from_millis(100);

/// A process that has not said so by then is stuck, and what was denied may still be going through it. Its records come
/// first, so one that has much to tell is given time.
const OBEY_DEADLINE: Duration = Duration::from_secs(20);

/// Watches over the process, one after the other.
pub(super) struct Watcher {
    plan: NetPlan,
    log: PathBuf,
    control: PathBuf,
    shared: Arc<Mutex<Shared>>,
    owners: Owners,
    recorder: Recorder,
    resolver: HostResolver,
    resolver_now: ResolverConfig,
    look: Interval,
    commands: mpsc::Receiver<Command>,
    machine_is_there: bool,
    /// Who waits for the machine to have its link, while there is none to give.
    connecting: Option<oneshot::Sender<Result<()>>>,
    deaths: VecDeque<Instant>,
    links: u32,
}

/// A process and, until the machine has it, the machine's end of its link.
pub(super) struct Serving {
    process: EgressProcess,
    link: Option<OwnedFd>,
    /// Those who wait for the policy to be in force.
    waiting: Vec<oneshot::Sender<()>>,
    /// Since when it owes a word that a policy is in force.
    told: Option<Instant>,
}

enum End {
    /// The session ends.
    Finished,
    /// The process is gone, and this is what it said of it, if anything.
    Died(Option<String>),
}

enum Next {
    Event(Option<Event>),
    Command(Option<Command>),
    Look,
}

impl Watcher {
    pub(super) fn new(
        plan: &NetPlan,
        around: Surroundings<'_>,
        shared: Arc<Mutex<Shared>>,
        recorder: Recorder,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        let mut resolver = HostResolver::of_this_host();
        Watcher {
            plan: plan.clone(),
            log: around.log,
            control: around.control,
            shared,
            owners: Owners::new(around.guest, recorder.clone()),
            recorder,
            resolver_now: resolver.read(),
            resolver,
            look: look_interval(),
            commands,
            machine_is_there: false,
            connecting: None,
            deaths: VecDeque::new(),
            links: 0,
        }
    }

    pub(super) async fn run(mut self, first: Serving) {
        let mut serving = Some(first);
        while let Some(mut now) = serving.take() {
            let end = self.serve(&mut now).await;
            let how = now.process.kill().await;
            lock(&self.shared).tally.process_gone();
            if let End::Died(why) = end {
                serving = self.start_again(why.unwrap_or(how)).await;
            }
        }
        self.owners.finish().await;
    }

    async fn serve(&mut self, serving: &mut Serving) -> End {
        if self.machine_is_there {
            if let Err(error) = self.give_link(serving).await {
                return End::Died(Some(error.line()));
            }
            if let Some(tell) = self.connecting.take() {
                let _ = tell.send(Ok(()));
            }
        }
        loop {
            let next = tokio::select! {
                event = serving.process.next() => Next::Event(event),
                command = self.commands.recv() => Next::Command(command),
                _ = self.look.tick() => Next::Look,
            };
            let alive = match next {
                Next::Event(None) => return End::Died(None),
                Next::Event(Some(Event::Failed { why })) => {
                    return End::Died(Some(console::safe(why.as_bytes())));
                }
                Next::Event(Some(event)) => {
                    self.hear(serving, event).await;
                    true
                }
                Next::Command(None | Some(Command::Finish)) => {
                    self.last_words(serving).await;
                    return End::Finished;
                }
                Next::Command(Some(command)) => self.obey(serving, command).await,
                Next::Look if is_stuck(serving.told, Instant::now()) => {
                    return End::Died(Some("it does not say that new rules are in force".to_owned()));
                }
                Next::Look => self.look_at_resolver(serving).await,
            };
            if !alive {
                return End::Died(None);
            }
        }
    }

    async fn hear(&mut self, serving: &mut Serving, event: Event) {
        match event {
            Event::Record(record) => {
                lock(&self.shared).tally.count(&record);
                self.owners.record(record, self.links).await;
            }
            Event::Ready => {
                serving.told = None;
                for waiting in serving.waiting.drain(..) {
                    // Who waited may have waited long enough.
                    let _ = waiting.send(());
                }
            }
            Event::Failed { .. } => {}
        }
    }

    /// False when the process is gone.
    async fn obey(&mut self, serving: &mut Serving, command: Command) -> bool {
        match command {
            Command::Connect(tell) => {
                self.machine_is_there = true;
                let given = self.give_link(serving).await;
                let alive = given.is_ok();
                let _ = tell.send(given);
                alive
            }
            Command::PolicyChanged(tell) => {
                let policy = lock(&self.shared).policy.clone();
                let told = serving.process.ask(&Request::Policy { policy }).await.is_ok();
                serving.answer_when_in_force(tell);
                told
            }
            Command::Finish => true,
        }
    }

    /// A machine that has it once keeps it until the next.
    async fn give_link(&self, serving: &mut Serving) -> Result<()> {
        match serving.link.take() {
            Some(link) => machine::give_net_link(&self.control, link.as_fd()).await,
            None => Ok(()),
        }
    }

    async fn look_at_resolver(&mut self, serving: &mut Serving) -> bool {
        match self.resolver.changed() {
            Some(resolver) if resolver != self.resolver_now => {
                self.resolver_now = resolver.clone();
                serving.process.ask(&Request::Resolver { resolver }).await.is_ok()
            }
            _ => true,
        }
    }

    async fn last_words(&mut self, serving: &mut Serving) {
        serving.process.let_go();
        let rest = async {
            while let Some(event) = serving.process.next().await {
                self.hear(serving, event).await;
            }
        };
        // What a process says after this nobody hears.
        let _ = tokio::time::timeout(FINISH_DEADLINE, rest).await;
    }

    pub(super) async fn start_process(&mut self) -> Result<Serving> {
        let (policy, spent) = {
            let shared = lock(&self.shared);
            (shared.policy.clone(), shared.tally.spent())
        };
        let config = Config {
            version: CONFIG_VERSION,
            policy,
            resolver: self.resolver_now.clone(),
            upstream: self.plan.upstream.clone(),
            spent,
        };
        self.links = self.links.saturating_add(1);
        let (process, link) = EgressProcess::start(&self.plan.egress, &self.log, &config).await?;
        Ok(Serving {
            process,
            link: Some(link),
            waiting: Vec::new(),
            told: None,
        })
    }

    /// How long to wait before the next, now that one more died.
    fn died(&mut self) -> Duration {
        let now = Instant::now();
        self.deaths.push_back(now);
        while self
            .deaths
            .front()
            .is_some_and(|at| now.duration_since(*at) > OFTEN_SPAN)
        {
            self.deaths.pop_front();
        }
        match self.deaths.len() {
            0..OFTEN => RESTART_SOON,
            _ => RESTART_SLOW,
        }
    }

    async fn tell_of_death(&self, how: &str, wait: Duration) {
        let when = match wait {
            RESTART_SLOW => format!(
                "{} times in a minute: it is started again every {} s from now on, and until then everything is refused",
                self.deaths.len(),
                RESTART_SLOW.as_secs()
            ),
            _ => "it is started again with the same rules".to_owned(),
        };
        self.recorder
            .note(format!("coffer-egress died: {how}; {when}"))
            .await;
    }

    /// `None` when the session ends meanwhile: a machine that ends takes its link along, and the process ends with it.
    async fn start_again(&mut self, mut why: String) -> Option<Serving> {
        loop {
            let wait = self.died();
            // When it is slow, a person should not have to wait for the reason as well.
            if wait == RESTART_SOON && self.wait_out(wait).await {
                return None;
            }
            self.tell_of_death(&why, wait).await;
            if wait != RESTART_SOON && self.wait_out(wait).await {
                return None;
            }
            if let Some(resolver) = self.resolver.changed() {
                self.resolver_now = resolver;
            }
            let before = lock(&self.shared).policy.clone();
            match self.start_process().await {
                Ok(serving) if lock(&self.shared).policy == before => return Some(serving),
                // Changed while it started: it would not know.
                Ok(mut serving) => {
                    let policy = lock(&self.shared).policy.clone();
                    match serving.process.ask(&Request::Policy { policy }).await {
                        Ok(()) => return Some(serving),
                        Err(error) => why = error.to_string(),
                    }
                }
                Err(error) => why = error.line(),
            }
        }
    }

    /// True when the session ends before the time is over.
    async fn wait_out(&mut self, wait: Duration) -> bool {
        let end = tokio::time::Instant::now() + wait;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(end) => return false,
                command = self.commands.recv() => match command {
                    None | Some(Command::Finish) => return true,
                    // The next process has it from the start.
                    Some(Command::PolicyChanged(tell)) => drop(tell.send(())),
                    Some(Command::Connect(tell)) => {
                        self.machine_is_there = true;
                        self.connecting = Some(tell);
                    }
                },
            }
        }
    }
}

impl Serving {
    /// Answered by the next Ready, or after a while without one.
    fn answer_when_in_force(&mut self, tell: oneshot::Sender<()>) {
        self.told = self.told.or_else(|| Some(Instant::now()));
        let (ready, is_ready) = oneshot::channel();
        self.waiting.push(ready);
        tokio::spawn(async move {
            let _ = tokio::time::timeout(POLICY_DEADLINE, is_ready).await;
            let _ = tell.send(());
        });
    }
}

fn is_stuck(told: Option<Instant>, now: Instant) -> bool {
    told.is_some_and(|told| now.duration_since(told) > OBEY_DEADLINE)
}

fn look_interval() -> Interval {
    let mut look = tokio::time::interval(RESOLVER_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_owes_its_word_for_long_is_stuck() {
        let told = Instant::now();
        assert!(!is_stuck(None, told + 2 * OBEY_DEADLINE));
        assert!(!is_stuck(Some(told), told + OBEY_DEADLINE));
        assert!(is_stuck(Some(told), told + OBEY_DEADLINE + RESOLVER_INTERVAL));
    }
}
