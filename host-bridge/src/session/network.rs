//! The session's network: from the start of its process to its last record.

use std::sync::{Arc, PoisonError};

use super::Session;
use crate::{
    Result,
    net::{
        Egress, NetChange, Refusal,
        publish::{Listening, Publish},
    },
};

impl Session {
    pub(super) fn egress(&self) -> Option<Arc<Egress>> {
        self.egress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on clients of published ports are led into the guest.
    pub(super) fn publish(&self, listening: Listening) {
        let serving = listening.serve(&self.link);
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = Some(serving);
    }

    /// Ports of this host that lead into the session.
    pub(crate) fn published(&self) -> Vec<Publish> {
        self.record().publish.clone()
    }

    /// Before this the machine refuses everything.
    pub(super) async fn connect_network(&self) -> Result<()> {
        match self.egress() {
            Some(egress) => egress.connect().await,
            None => Ok(()),
        }
    }

    /// Takes effect on the next connection; what is denied is cut.
    pub(crate) async fn net_change(&self, change: &NetChange) -> Result<()> {
        let Some(egress) = self.egress() else {
            return Err(self.ended().await);
        };
        egress.change(change).await?;
        let mut record = self.record();
        // As it is now: another change may have come meanwhile and be written already, and must not be lost.
        record.net = egress.policy();
        record.net_spent = egress.spent();
        record.write(self.directory.path())
    }

    /// Ends the network's process and waits until its last words are written. Says what was refused.
    pub async fn end_network(&self) -> Vec<Refusal> {
        self.published
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let egress = self.egress.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(egress) = egress else {
            return Vec::new();
        };
        egress.finish().await;
        self.record().net_spent = egress.spent();
        egress.refusals()
    }
}
