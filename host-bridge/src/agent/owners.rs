//! Asking the guest whose port it is. For display: the answer is the guest's word, comes within a moment or not at
//! all, and nothing waits for it.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use agent_protocol::{GuestMessage, HostMessage, MAX_OWNER_ARGUMENTS, PortOwner, PortProtocol};
use tokio::sync::oneshot;

use super::link::{Link, lock};

/// A record of the network is written with or without a command's name; it is not held up for longer.
const DEADLINE: Duration = Duration::from_millis(300);
/// Questions under way. The agent looks at one after another; what comes in a flood goes without an answer.
const MAX_WAITING: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Owners(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    askers: HashMap<u64, oneshot::Sender<Option<PortOwner>>>,
}

impl Link {
    /// The process in the guest that has this local port, as far as the guest can be believed.
    pub async fn owner(&self, protocol: PortProtocol, port: u16) -> Option<PortOwner> {
        let owners = self.owners();
        let (nonce, answer) = owners.ask()?;
        let _forget = Forget { owners, nonce };
        // A guest that does not read what it is told is not waited for.
        self.try_send(HostMessage::Owner {
            nonce,
            protocol,
            port,
        })?;
        let owner = tokio::time::timeout(DEADLINE, answer).await.ok()?.ok()??;
        Some(bounded(owner))
    }
}

impl Owners {
    fn ask(&self) -> Option<(u64, oneshot::Receiver<Option<PortOwner>>)> {
        let mut waiting = lock(&self.0);
        if waiting.askers.len() >= MAX_WAITING {
            return None;
        }
        waiting.last = waiting.last.wrapping_add(1);
        let nonce = waiting.last;
        let (answered, answer) = oneshot::channel();
        waiting.askers.insert(nonce, answered);
        Some((nonce, answer))
    }

    /// An answer to a question that nobody asked, or asks no more, is dropped.
    pub(super) fn answered(&self, message: GuestMessage) {
        let GuestMessage::Owner { nonce, owner } = message else {
            return;
        };
        if let Some(asker) = lock(&self.0).askers.remove(&nonce) {
            let _ = asker.send(owner);
        }
    }
}

struct Forget<'a> {
    owners: &'a Owners,
    nonce: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(&self.owners.0).askers.remove(&self.nonce);
    }
}

/// The agent cuts arguments; who answers need not be the agent we sent.
fn bounded(mut owner: PortOwner) -> PortOwner {
    let mut room = MAX_OWNER_ARGUMENTS;
    owner.argv.retain_mut(|argument| {
        let fits = room > 0;
        argument.truncate(room);
        // The space before the next.
        room = room.saturating_sub(argument.len() + 1);
        fits
    });
    owner
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_answers_at_length_is_cut_short() {
        let owner = |argv| PortOwner {
            pid: 1,
            argv,
            operation: None,
        };
        let arguments = bounded(owner(vec![Vec::new(); 100_000])).argv;
        assert_eq!(arguments.len(), MAX_OWNER_ARGUMENTS);
        let arguments = bounded(owner(vec![vec![b'x'; 100_000], b"y".to_vec()])).argv;
        assert_eq!(arguments, [vec![b'x'; MAX_OWNER_ARGUMENTS]]);
        let short = vec![b"curl".to_vec(), b"-sS".to_vec()];
        assert_eq!(bounded(owner(short.clone())).argv, short);
    }

    #[test]
    fn only_so_many_ask_at_once_and_an_answer_nobody_waits_for_is_dropped() {
        let owners = Owners::default();
        let asked: Vec<_> = (0..MAX_WAITING).map(|_| owners.ask().unwrap()).collect();
        assert!(owners.ask().is_none());
        owners.answered(GuestMessage::Owner {
            nonce: u64::MAX,
            owner: None,
        });
        assert!(owners.ask().is_none());
        drop(Forget {
            owners: &owners,
            nonce: asked[0].0,
        });
        assert!(owners.ask().is_some());
    }
}
