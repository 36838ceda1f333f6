//! What the server has told the guest, counted as the guest's kernel would count it.

use std::collections::BTreeMap;

use fuse::{
    Entry,
    testing::{Answer, Message},
};

const FORGET: u32 = 2;
const DESTROY: u32 = 38;
const INIT: u32 = 26;
const BATCH_FORGET: u32 = 42;
/// Requests that are answered with an entry, with an entry and a handle, and with many.
const ENTRY: [u32; 5] = [1, 6, 8, 9, 13];
const CREATED: [u32; 2] = [35, 51];
const READDIRPLUS: u32 = 44;

/// Enough to choose from.
const MAX_LISTED: usize = super::step::ODD_NODE as usize;

#[derive(Debug, Default)]
pub(crate) struct Known {
    /// In the order they were told of, for requests to name.
    pub(crate) nodes: Vec<u64>,
    /// Inode numbers, for the set of what is watched.
    pub(crate) inodes: Vec<u64>,
    told: BTreeMap<u64, Told>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Told {
    times: u64,
    /// Some request spoke of forgetting it, if only a broken one: the count may be too high.
    forgotten: bool,
}

impl Known {
    pub(crate) fn with(nodes: &[u64]) -> Self {
        Known {
            nodes: nodes.to_vec(),
            ..Known::default()
        }
    }

    /// Takes note of a request and its answer. True when the server has forgotten everything.
    pub(crate) fn note(&mut self, request: &[u8], answer: Option<&Answer>) -> bool {
        let opcode = number(request, 4, 4) as u32;
        match opcode {
            FORGET => self.forgotten(number(request, 16, 8)),
            BATCH_FORGET => {
                for at in (48..request.len()).step_by(16) {
                    self.forgotten(number(request, at, 8));
                }
            }
            // Done, it may be, with no room to say so.
            DESTROY if answer.is_none() => self.told.values_mut().for_each(|told| told.forgotten = true),
            _ => {}
        }
        let Some(answer) = answer.filter(|answer| answer.error().is_none()) else {
            return false;
        };
        match opcode {
            INIT if number(request, 40, 4) == 7 => self.start_again(),
            DESTROY => self.start_again(),
            opcode if ENTRY.contains(&opcode) => {
                self.tell(&answer.entry().expect("an entry is whole"));
                false
            }
            opcode if CREATED.contains(&opcode) => {
                self.tell(&answer.created().expect("what was made is told whole").0);
                false
            }
            READDIRPLUS => {
                for listed in answer.listing(true).expect("a listing is whole") {
                    listed.entry.iter().for_each(|entry| self.tell(entry));
                }
                false
            }
            _ => false,
        }
    }

    /// How many nodes the guest has been told of, and how many of them nobody forgot, as far as `counts` says that they
    /// count.
    pub(crate) fn bounds(&self, counts: impl Fn(u64) -> bool) -> (u64, u64) {
        let counted = || self.told.iter().filter(|(node, _)| counts(**node));
        let kept = counted().filter(|(_, told)| !told.forgotten).count();
        (kept as u64, counted().count() as u64)
    }

    /// The requests after which the server knows nothing: each node as often as it was told of.
    pub(crate) fn forget_all(&self) -> Vec<Message> {
        self.told
            .iter()
            .map(|(node, told)| {
                let times = if told.forgotten { u64::MAX } else { told.times };
                Message::forget(*node, times)
            })
            .collect()
    }

    fn tell(&mut self, entry: &Entry) {
        let Entry::Found { node, attributes, .. } = entry else {
            return;
        };
        self.told.entry(node.0).or_default().times += 1;
        if self.nodes.len() < MAX_LISTED && !self.nodes.contains(&node.0) {
            self.nodes.push(node.0);
        }
        if self.inodes.len() < MAX_LISTED && !self.inodes.contains(&attributes.inode) {
            self.inodes.push(attributes.inode);
        }
    }

    fn forgotten(&mut self, node: u64) {
        if let Some(told) = self.told.get_mut(&node) {
            told.forgotten = true;
        }
    }

    fn start_again(&mut self) -> bool {
        self.told.clear();
        true
    }
}

/// 0 where the request ends before.
fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    let mut number = [0; 8];
    if let Some(from) = bytes.get(at..at + len) {
        number[..len].copy_from_slice(from);
    }
    u64::from_le_bytes(number)
}
