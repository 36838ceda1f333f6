//! One link and all that hangs on it: who asks is answered here, and nowhere else is anything decided.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    os::fd::OwnedFd,
    rc::Rc,
    time::Instant,
};

use egress_policy::{
    EgressPolicy, HostName, Reason, Rule, Target, Verdict,
    control::{Config, End, Event, Request, What},
    link::{FromEgress, Id, Protocol, ToEgress, VERSION},
};
use tokio::{
    sync::mpsc,
    task::{LocalSet, yield_now},
    time::{MissedTickBehavior, interval},
};

use crate::{
    EgressError,
    budget::Budget,
    control::Events,
    flow::{Flows, Live, SharedPipe},
    limits::{CHUNK, MAX_FLOWS, MESSAGES_A_TURN, TICK},
    link::{Incoming, Link, guest_stream},
    open,
    own::OwnAddresses,
    records::{Records, Subject},
    resolve::Resolver,
    upstream::Upstream,
};

/// What is known of the owner's wishes, and what lives by them.
#[derive(Debug)]
pub(crate) struct Session {
    events: Events,
    policy: RefCell<Rc<EgressPolicy>>,
    resolver: RefCell<Rc<Resolver>>,
    pub(crate) upstream: Upstream,
    pub(crate) budget: Budget,
    pub(crate) records: Records,
    pub(crate) link: Link,
    pub(crate) flows: Flows,
    pub(crate) own: OwnAddresses,
    /// What all flows read into.
    pub(crate) buffer: RefCell<Box<[u8]>>,
    pub(crate) pipe: SharedPipe,
    greeted: Cell<bool>,
}

/// Serves the link until the owner is gone (`Ok`) or the machine is.
pub async fn serve(
    link: OwnedFd,
    config: Config,
    requests: mpsc::Receiver<Result<Request, EgressError>>,
    events: Events,
) -> Result<(), EgressError> {
    LocalSet::new()
        .run_until(async {
            let session = Rc::new(Session::new(link, config, events.clone())?);
            session.link.send(&FromEgress::Hello { version: VERSION });
            events.push(Event::Ready);
            let ended = session.run(requests).await;
            session.close();
            ended
        })
        .await
}

impl Session {
    fn new(link: OwnedFd, config: Config, events: Events) -> Result<Self, EgressError> {
        Ok(Session {
            budget: Budget::new(&config.policy, config.spent),
            policy: RefCell::new(Rc::new(config.policy)),
            resolver: RefCell::new(Rc::new(Resolver::new(&config.resolver)?)),
            upstream: Upstream::new(&config.upstream),
            records: Records::new(events.clone()),
            events,
            link: Link::new(link)?,
            flows: Flows::default(),
            own: OwnAddresses::new(),
            buffer: RefCell::new(vec![0; CHUNK].into_boxed_slice()),
            pipe: SharedPipe::default(),
            greeted: Cell::new(false),
        })
    }

    pub(crate) fn policy(&self) -> Rc<EgressPolicy> {
        Rc::clone(&self.policy.borrow())
    }

    pub(crate) fn resolver(&self) -> Rc<Resolver> {
        Rc::clone(&self.resolver.borrow())
    }

    async fn run(
        self: &Rc<Self>,
        mut requests: mpsc::Receiver<Result<Request, EgressError>>,
    ) -> Result<(), EgressError> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let drain = self.link.drain();
        tokio::pin!(drain);
        loop {
            tokio::select! {
                biased;
                request = requests.recv() => match request {
                    Some(request) => self.obey(request?)?,
                    None => return Ok(()),
                },
                _ = ticks.tick() => self.tick(),
                broken = &mut drain => return Err(broken),
                incoming = self.link.receive() => {
                    self.answer(incoming?)?;
                    self.answer_more()?;
                }
            }
            // However much the machine has to say, flows have their turn.
            yield_now().await;
        }
    }

    fn answer_more(self: &Rc<Self>) -> Result<(), EgressError> {
        for _ in 1..MESSAGES_A_TURN {
            match self.link.try_receive()? {
                Some(incoming) => self.answer(incoming)?,
                None => break,
            }
        }
        Ok(())
    }

    fn obey(&self, request: Request) -> Result<(), EgressError> {
        match request {
            Request::Policy { policy } => {
                self.change_policy(policy);
                self.events.push(Event::Ready);
            }
            Request::Resolver { resolver } => {
                *self.resolver.borrow_mut() = Rc::new(Resolver::new(&resolver)?);
            }
        }
        Ok(())
    }

    fn change_policy(&self, policy: EgressPolicy) {
        self.budget.limit(&policy);
        *self.policy.borrow_mut() = Rc::new(policy);
        let own = self.own.now();
        for flow in self.flows.all() {
            let allowed = match &own {
                Ok(own) => self.still_allowed(&flow, own),
                Err(reason) => Err((*reason).into()),
            };
            if let Err(refusal) = allowed {
                flow.cut(End::Cut, refusal.reason);
            }
        }
    }

    /// Is a flow what the policy of now allows, and where it leads?
    pub(crate) fn still_allowed(&self, flow: &Live, own: &[IpAddr]) -> Result<(), Refusal> {
        let policy = self.policy();
        allowed(&policy.decide(&flow.target, flow.port))?;
        if let Some(address) = flow.address.get() {
            policy.decide_address(*address, flow.port, own)?;
        }
        Ok(())
    }

    fn answer(self: &Rc<Self>, Incoming { message, stream }: Incoming) -> Result<(), EgressError> {
        if !self.greeted.get() && !matches!(message, ToEgress::Hello { .. }) {
            return Err(EgressError::Hostile("no greeting"));
        }
        match (message, stream) {
            (ToEgress::Hello { version: VERSION }, _) if !self.greeted.get() => self.greeted.set(true),
            (ToEgress::Hello { version: VERSION }, _) => {
                return Err(EgressError::Hostile("a second greeting"));
            }
            (ToEgress::Hello { version }, _) => return Err(EgressError::LinkVersion(version)),
            (
                ToEgress::Name {
                    id,
                    name,
                    protocol,
                    port,
                },
                _,
            ) => self.name(id, name, protocol, port),
            (
                ToEgress::Open {
                    id,
                    source,
                    target,
                    port,
                },
                stream,
            ) => return self.open(Live::new(id, source, target, port), stream),
            (ToEgress::Dropped(dropped), _) => self.records.dropped(dropped),
        }
        Ok(())
    }

    fn name(&self, id: Id, name: HostName, protocol: Protocol, port: u16) {
        let policy = self.policy();
        let verdict = policy.decide_name(&name);
        let allowed = matches!(verdict, Verdict::Allow(_));
        self.link.send(&FromEgress::Name { id, allowed });
        let subject = Subject {
            source: Some(port),
            protocol,
            target: Some(Target::Name(name)),
            port: None,
        };
        match self::allowed(&verdict) {
            Ok(rule) => self.records.named(subject, rule.to_string()),
            Err(refusal) => self.records.refused(subject, refusal.reason, refusal.rule, None),
        }
    }

    fn open(self: &Rc<Self>, live: Live, stream: Option<OwnedFd>) -> Result<(), EgressError> {
        let Some(stream) = stream else {
            self.refuse(&live, Reason::TooManyFlows.into());
            return Ok(());
        };
        let guest = guest_stream(stream)?;
        let live = Rc::new(live);
        let policy = self.policy();
        let rule = match self.admit(&live, &policy) {
            Ok(rule) => rule,
            Err(refusal) => {
                self.refuse(&live, refusal);
                return Ok(());
            }
        };
        if !self.flows.add(&live) {
            return Err(EgressError::Hostile("a number that is in use"));
        }
        tokio::task::spawn_local(open::run(Rc::clone(self), live, guest, rule.to_string()));
        Ok(())
    }

    fn admit<'p>(&self, live: &Live, policy: &'p EgressPolicy) -> Result<&'p Rule, Refusal> {
        let rule = allowed(&policy.decide(&live.target, live.port))?;
        if self.flows.len() >= MAX_FLOWS || !self.records.has_room() {
            return Err(Reason::TooManyFlows.into());
        }
        self.budget.take_connection()?;
        Ok(rule)
    }

    pub(crate) fn refuse(&self, live: &Live, refusal: Refusal) {
        self.link.send(&FromEgress::Refused {
            id: live.id,
            reason: refusal.reason,
        });
        self.records
            .refused(live.subject(), refusal.reason, refusal.rule, refusal.address);
    }

    fn tick(&self) {
        let now = Instant::now();
        for flow in self.flows.all() {
            if flow.tick(now) && self.records.has_room() {
                let what = What::Carried {
                    flow: flow.id,
                    sent: flow.sent.get(),
                    received: flow.received.get(),
                };
                self.records.flow(flow.subject(), what);
            }
        }
        self.records.tick();
    }

    /// The machine is gone, and its flows with it.
    fn close(&self) {
        for flow in self.flows.all().iter().filter(|flow| flow.is_open()) {
            let what = What::Closed {
                flow: flow.id,
                sent: flow.sent.get(),
                received: flow.received.get(),
                end: End::Guest,
            };
            self.records.flow(flow.subject(), what);
        }
        self.records.finish();
    }
}

/// A no, and all that is known of why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) rule: Option<String>,
    pub(crate) address: Option<IpAddr>,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Refusal {
            reason,
            rule: None,
            address: None,
        }
    }
}

fn allowed<'p>(verdict: &Verdict<'p>) -> Result<&'p Rule, Refusal> {
    match verdict {
        Verdict::Allow(rule) => Ok(rule),
        Verdict::Refuse(reason, rule) => Err(Refusal {
            rule: rule.map(ToString::to_string),
            ..Refusal::from(*reason)
        }),
        Verdict::Ask => Err(Reason::NobodyToAsk.into()),
    }
}
