//! Requests that look right and say anything, on all queues at once.

use std::thread;

use anyhow::{Context, ensure};
use fuse::testing::Message;

use crate::{
    Kit,
    dice::Dice,
    driver::{Descriptor, Device, NEXT, RING_SIZE, WRITE},
    escapes::HIDDEN,
    mount::{FOLDER_SHIFT, Line, ROOT, put},
    pci::Kind,
};

const MESSAGES: usize = 100_000;
/// Requests told of at once: two descriptors each.
const AT_ONCE: u16 = RING_SIZE / 2;
const SLOT: usize = 0x3000;
const REQUEST: usize = 0x1000;
const REPLY: u32 = 0x2000;
/// Nodes one remembers.
const REMEMBERED: usize = 48;

/// Operations with words of eight bytes before the names, and how many names.
const FORMS: &[(u32, usize, usize)] = &[
    (1, 0, 1),
    (1, 0, 1),
    (1, 0, 1),
    (2, 1, 0),
    (3, 2, 0),
    (4, 11, 0),
    (5, 0, 0),
    (6, 0, 2),
    (8, 2, 1),
    (9, 1, 1),
    (10, 0, 1),
    (11, 0, 1),
    (12, 1, 2),
    (13, 1, 1),
    (14, 1, 0),
    (15, 5, 0),
    (16, 5, 0),
    (17, 0, 0),
    (18, 3, 0),
    (20, 2, 0),
    (21, 1, 1),
    (22, 1, 1),
    (23, 1, 0),
    (24, 0, 1),
    (26, 8, 0),
    (27, 1, 0),
    (28, 5, 0),
    (30, 2, 0),
    (31, 6, 0),
    (34, 1, 0),
    (35, 2, 1),
    (36, 1, 0),
    (39, 4, 0),
    (41, 3, 0),
    (42, 3, 0),
    (43, 4, 0),
    (44, 5, 0),
    (45, 2, 2),
    (46, 3, 0),
    (47, 7, 0),
    (50, 1, 0),
    (51, 2, 1),
    (52, 3, 0),
];
const WRITE_FILE: u32 = 16;
const SET_ATTRIBUTE: u32 = 21;
const INIT: u32 = 26;
/// These answer with a node.
const TELL_OF_NODES: [u32; 6] = [1, 6, 8, 9, 13, 35];

const NAMES: &[&[u8]] = &[
    b"plain",
    b"directory",
    b"to-file",
    b"to-directory",
    b"up-to-file",
    b"to-root",
    b"a",
    b"b",
    b"c",
    b"d",
    b"e",
    b"work",
    b"only",
    HIDDEN,
    b"user.a",
    b"security.capability",
    b"..",
    b".",
    b"/",
    b"../beside",
    b"",
    b"..\0",
    b".coffer-events",
    &[0xff; 255],
    &[b'x'; 256],
];

pub(crate) fn attack(kit: &mut Kit) -> anyhow::Result<usize> {
    let device = Device::take(Kind::Fs, 0)?;
    {
        let mut lines = Line::open(&device, &kit.arena)?;
        let talkers = lines.len() - 1;
        thread::scope(|scope| {
            let threads: Vec<_> = lines
                .iter_mut()
                .skip(1)
                .map(|line| {
                    let dice = kit.dice.split();
                    scope.spawn(move || Talker::new(line, dice)?.talk(MESSAGES / talkers))
                })
                .collect();
            for thread in threads {
                let done: usize = thread.join().ok().context("a thread failed")??;
                println!("{done} of {} requests were done", MESSAGES / talkers);
            }
            anyhow::Ok(())
        })?;
    }
    device.must_work(&kit.arena)?;
    Ok(MESSAGES)
}

struct Talker<'l, 'a> {
    line: &'l mut Line<'a>,
    dice: Dice,
    /// The folders, which are not forgotten, and then what it was told of.
    nodes: Vec<u64>,
    folders: usize,
}

impl<'l, 'a> Talker<'l, 'a> {
    fn new(line: &'l mut Line<'a>, dice: Dice) -> anyhow::Result<Self> {
        let mut nodes = Vec::new();
        for folder in [&b"work"[..], b"only", b"other"] {
            nodes.push(line.find(ROOT, folder)?);
        }
        Ok(Talker {
            line,
            dice,
            folders: nodes.len(),
            nodes,
        })
    }

    /// Returns how many requests were done, and not refused.
    fn talk(&mut self, messages: usize) -> anyhow::Result<usize> {
        let mut done = 0;
        for _ in 0..messages / usize::from(AT_ONCE) {
            let operations: Vec<u32> = (0..AT_ONCE).map(|slot| self.say(slot)).collect();
            self.line.device.notify(self.line.queue);
            ensure!(self.line.answered(), "{operations:?} are not answered");
            for (slot, operation) in (0..).zip(operations) {
                done += usize::from(self.hear(slot, operation)?);
            }
        }
        Ok(done)
    }

    fn say(&mut self, slot: u16) -> u32 {
        let (operation, message) = self.message();
        let (request, reply) = self.places(slot);
        let arena = self.line.ring.arena;
        put(arena, request, message.as_bytes());
        put(arena, reply, &[0; 16]);
        let len = message.as_bytes().len() as u32;
        let room = if self.dice.once_in(8) {
            self.dice.below(REPLY.into()) as u32
        } else {
            REPLY
        };
        let ring = &mut self.line.ring;
        let (head, address) = (slot * 2, |at| arena.physical(at));
        ring.describe(head, Descriptor::new(address(request), len, NEXT, head + 1));
        ring.describe(head + 1, Descriptor::new(address(reply), room, WRITE, 0));
        ring.offer(head);
        operation
    }

    /// False when it was refused.
    fn hear(&mut self, slot: u16, operation: u32) -> anyhow::Result<bool> {
        let (_, reply) = self.places(slot);
        let Some(answer) = self.line.reply(reply, REPLY)? else {
            return Ok(false);
        };
        let node = answer.node();
        if answer.error != 0 || node == 0 || !TELL_OF_NODES.contains(&operation) {
            return Ok(answer.error == 0);
        }
        if self.nodes.len() < REMEMBERED {
            self.nodes.push(node);
        } else {
            let place = self.folders + self.dice.below((REMEMBERED - self.folders) as u64) as usize;
            self.nodes[place] = node;
        }
        Ok(true)
    }

    fn places(&self, slot: u16) -> (usize, usize) {
        let request = self.line.request_at() + usize::from(slot) * SLOT;
        (request, request + REQUEST)
    }

    fn message(&mut self) -> (u32, Message) {
        let (mut operation, words, names) = self.dice.pick(FORMS);
        // All is forgotten each time.
        if operation == INIT && !self.dice.once_in(50) {
            operation = 3;
        }
        let node = self.node();
        let mut message = Message::of(operation, node);
        for _ in 0..words {
            let word = self.word();
            message = message.and(&word.to_le_bytes());
        }
        for _ in 0..names {
            let name = self.dice.pick(NAMES);
            message = message.and(name).and(&[0]);
        }
        if operation == WRITE_FILE || operation == SET_ATTRIBUTE {
            message = self.with_data(operation, message);
        }
        // The echo thread's number, others', and now and then a part of it all.
        let caller = self.dice.pick(&[1u32, 42, 43, u32::MAX]);
        message = message.replace(32..36, &caller.to_le_bytes());
        if self.dice.once_in(40) {
            let len = 40 + self.dice.below(64) as usize;
            message = message.cut(len);
        }
        (operation, message)
    }

    /// Data, and most often as much as is said.
    fn with_data(&mut self, operation: u32, message: Message) -> Message {
        let data = vec![b'z'; self.dice.below(2000) as usize];
        let at = if operation == WRITE_FILE { 56 } else { 40 };
        let len = data.len() as u32;
        let said = if self.dice.once_in(8) {
            self.dice.edge() as u32
        } else {
            len
        };
        message.and(&data).replace(at..at + 4, &said.to_le_bytes())
    }

    fn node(&mut self) -> u64 {
        let known = self.dice.pick(&self.nodes);
        match self.dice.below(16) {
            0 => ROOT,
            1 => self.dice.below(4) + 1,
            2 => known ^ 1 << self.dice.below(64),
            3 => self.dice.below(6) << FOLDER_SHIFT | self.dice.below(64),
            4 => self.dice.edge(),
            _ => known,
        }
    }

    fn word(&mut self) -> u64 {
        const MODES: [u64; 8] = [
            0o10_644, 0o20_666, 0o60_666, 0o100_644, 0o104_755, 0o140_777, 0o42_777, 0o7777,
        ];
        match self.dice.below(6) {
            0 => self.node(),
            1 => self.dice.edge(),
            2 => self.dice.pick(&MODES) | self.dice.pick(&MODES) << 32,
            3 => self.dice.below(256) | self.dice.below(256) << 32,
            _ => self.dice.below(8192),
        }
    }
}
