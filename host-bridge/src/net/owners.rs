//! Who in the guest opened a connection: asked the moment it is heard of, while the process still has its port.

use std::{future::Future, sync::Weak};

use agent_protocol::PortProtocol;
use egress_policy::{
    control::{Record, What},
    link::Protocol,
};
use tokio::{sync::mpsc, task::JoinHandle};

use super::journal::{By, Entry, Recorder};
use crate::agent::Link;

/// Records waiting for their answers, which are written in the order in which they came.
const WAITING: usize = 256;

/// Adds to each record who it was and passes it on.
#[derive(Debug)]
pub(super) struct Owners {
    guest: Weak<Link>,
    waiting: mpsc::Sender<Asked>,
    passing_on: JoinHandle<()>,
}

/// A record and, where the guest was asked, its answer to come.
#[derive(Debug)]
struct Asked {
    record: Record,
    link: u32,
    answer: Option<JoinHandle<Option<By>>>,
}

impl Owners {
    pub(super) fn new(guest: Weak<Link>, recorder: Recorder) -> Self {
        let (waiting, queue) = mpsc::channel(WAITING);
        Owners {
            guest,
            waiting,
            passing_on: tokio::spawn(pass_on(queue, recorder)),
        }
    }

    pub(super) async fn record(&self, record: Record, link: u32) {
        let answer = self.question(&record).map(tokio::spawn);
        // It ends only when this sender is gone.
        let _ = self.waiting.send(Asked { record, link, answer }).await;
    }

    /// Waits until all is passed on.
    pub(super) async fn finish(self) {
        drop(self.waiting);
        let _ = self.passing_on.await;
    }

    fn question(&self, record: &Record) -> Option<impl Future<Output = Option<By>> + Send + 'static> {
        // What is told later of a flow is told of the same one.
        if matches!(record.what, What::Carried { .. } | What::Closed { .. }) {
            return None;
        }
        let protocol = match record.protocol {
            Protocol::Tcp => PortProtocol::Tcp,
            Protocol::Udp => PortProtocol::Udp,
            Protocol::Icmp | Protocol::Ip(_) => return None,
        };
        let port = record.source?;
        let guest = self.guest.upgrade()?;
        // It answers within a moment or not at all, and only so many are under way.
        let likely = guest.last_command().map(|argv| By::likely(&argv));
        Some(async move { guest.owner(protocol, port).await.map(By::from).or(likely) })
    }
}

async fn pass_on(mut queue: mpsc::Receiver<Asked>, recorder: Recorder) {
    while let Some(Asked { record, link, answer }) = queue.recv().await {
        let by = match answer {
            Some(answer) => answer.await.ok().flatten(),
            None => None,
        };
        recorder.entry(Entry { record, link, by }).await;
    }
}
