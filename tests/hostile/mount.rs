//! The file system device with a driver that speaks FUSE: what an honest one says, and room for what it does not.

use anyhow::{Context, ensure};
use fuse::testing::Message;

use crate::{
    arena::{Arena, BUFFER_BYTES, BUFFERS, TABLE},
    driver::{
        Descriptor, Device, INDIRECT, INDIRECT_DESC, NEXT, PATIENCE, RING_SIZE, Ring, WRITE, describe_at,
    },
};

/// The device's root, which lists the folders.
pub(crate) const ROOT: u64 = 1;
/// In the content of whatever a guest must not see. The host half of this test puts it there.
const CANARY: &[u8] = b"canary-";

const IN_HEADER: usize = 40;
const OUT_HEADER: usize = 16;
/// Where a folder's number stands in a node's.
pub(crate) const FOLDER_SHIFT: u32 = 48;

/// Each queue has its own part of the buffers: requests, then replies.
const AREA: usize = BUFFER_BYTES / 4;
const REQUEST_BYTES: usize = 0x1_4000;
/// Room for a reply, as a rule.
pub(crate) const ROOM: u32 = 0x1_0000;

/// One queue of a device that has answered INIT.
pub(crate) struct Line<'a> {
    pub(crate) device: &'a Device,
    pub(crate) ring: Ring<'a>,
    pub(crate) queue: u16,
}

#[derive(Debug)]
pub(crate) struct Answer {
    /// An errno, or zero.
    pub(crate) error: i32,
    pub(crate) body: Vec<u8>,
}

/// A piece of a chain: offset in the arena, length, flags.
pub(crate) type Piece = (usize, u32, u16);

impl<'a> Line<'a> {
    /// All queues, that of FORGETs first.
    pub(crate) fn open(device: &'a Device, arena: &'a Arena) -> anyhow::Result<Vec<Line<'a>>> {
        let rings = device.set_up(arena, INDIRECT_DESC);
        let mut lines: Vec<_> = (0..)
            .zip(rings)
            .map(|(queue, ring)| Line { device, ring, queue })
            .collect();
        let answer = lines
            .get_mut(1)
            .context("too few queues")?
            .must(&Message::init())?;
        ensure!(answer.body.len() == 64, "an odd answer to INIT: {answer:?}");
        Ok(lines)
    }

    /// The first queue for requests.
    pub(crate) fn one(device: &'a Device, arena: &'a Arena) -> anyhow::Result<Line<'a>> {
        Ok(Line::open(device, arena)?.swap_remove(1))
    }

    pub(crate) fn request_at(&self) -> usize {
        BUFFERS + usize::from(self.queue) * AREA
    }

    pub(crate) fn reply_at(&self) -> usize {
        self.request_at() + REQUEST_BYTES
    }

    /// `None`: it was taken, and nothing said to it.
    pub(crate) fn ask(&mut self, message: &Message) -> anyhow::Result<Option<Answer>> {
        self.ask_raw(message.as_bytes(), ROOM)
    }

    pub(crate) fn ask_raw(&mut self, bytes: &[u8], room: u32) -> anyhow::Result<Option<Answer>> {
        let pieces = [
            (self.request_at(), bytes.len() as u32, 0),
            (self.reply_at(), room, WRITE),
        ];
        put(self.ring.arena, self.request_at(), bytes);
        self.exchange(&pieces, room)
    }

    /// What was put where the first piece is, in these pieces.
    pub(crate) fn exchange(&mut self, pieces: &[Piece], room: u32) -> anyhow::Result<Option<Answer>> {
        put(self.ring.arena, self.reply_at(), &[0; OUT_HEADER]);
        self.offer(pieces);
        ensure!(self.answered(), "a request is not answered");
        self.reply(self.reply_at(), room)
    }

    /// Makes a chain of the pieces available, by a table if the ring is too small for it.
    pub(crate) fn offer(&mut self, pieces: &[Piece]) {
        let arena = self.ring.arena;
        let in_table = pieces.len() > usize::from(RING_SIZE);
        let base = if in_table { TABLE } else { self.ring.at };
        for (index, (at, len, flags)) in pieces.iter().enumerate() {
            let next = if index + 1 < pieces.len() { NEXT } else { 0 };
            let descriptor = Descriptor::new(arena.physical(*at), *len, flags | next, index as u16 + 1);
            describe_at(arena, base + index * 16, descriptor);
        }
        if in_table {
            let bytes = pieces.len() as u32 * 16;
            self.ring
                .describe(0, Descriptor::new(arena.physical(TABLE), bytes, INDIRECT, 0));
        }
        self.ring.offer(0);
        self.device.notify(self.queue);
    }

    pub(crate) fn answered(&self) -> bool {
        self.ring.wait(self.ring.index(), PATIENCE)
    }

    /// What the device left at `at`, which is nobody's secret.
    pub(crate) fn reply(&self, at: usize, room: u32) -> anyhow::Result<Option<Answer>> {
        let arena = self.ring.arena;
        let len: u32 = arena.read(at);
        if len == 0 {
            return Ok(None);
        }
        ensure!(
            (OUT_HEADER as u32..=room).contains(&len),
            "a reply of {len} bytes where there is room for {room}"
        );
        let error: u32 = arena.read(at + 4);
        let body = take(arena, at + OUT_HEADER, len as usize - OUT_HEADER);
        let seen = body.windows(CANARY.len()).any(|window| window == CANARY);
        ensure!(!seen, "a guest must not see this: {}", body.escape_ascii());
        Ok(Some(Answer {
            error: -error.cast_signed(),
            body,
        }))
    }

    /// Succeeds when the device does what it is asked.
    pub(crate) fn must(&mut self, message: &Message) -> anyhow::Result<Answer> {
        let answer = self.ask(message)?.context("no answer")?;
        ensure!(
            answer.error == 0,
            "{}: error {}",
            described(message),
            answer.error
        );
        Ok(answer)
    }

    /// Succeeds when the device does not do what it is asked.
    pub(crate) fn refused(&mut self, message: &Message) -> anyhow::Result<()> {
        let Some(answer) = self.ask(message)? else {
            return Ok(());
        };
        let nothing_there = opcode(message) == 1 && answer.node() == 0;
        ensure!(
            answer.error != 0 || nothing_there,
            "{} succeeded: {}",
            described(message),
            answer.body.escape_ascii()
        );
        Ok(())
    }

    pub(crate) fn find(&mut self, parent: u64, name: &[u8]) -> anyhow::Result<u64> {
        let node = self.must(&Message::lookup(parent, name))?.node();
        ensure!(node != 0, "no {} in {parent:#x}", name.escape_ascii());
        Ok(node)
    }

    /// The names in a directory.
    pub(crate) fn list(&mut self, node: u64) -> anyhow::Result<Vec<Vec<u8>>> {
        Ok(self.must(&Message::readdir(node, 0, ROOM / 2))?.names())
    }
}

impl Answer {
    /// The node that was found or made; zero if it was neither.
    pub(crate) fn node(&self) -> u64 {
        self.body
            .first_chunk()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// The names that READDIR gave.
    fn names(&self) -> Vec<Vec<u8>> {
        const HEAD: usize = 24;
        let mut rest = self.body.as_slice();
        let mut names = Vec::new();
        while let Some((head, behind)) = rest.split_at_checked(HEAD) {
            let len = u32::from_le_bytes([head[16], head[17], head[18], head[19]]) as usize;
            names.push(behind.get(..len).unwrap_or_default().to_vec());
            rest = rest.get((HEAD + len).next_multiple_of(8)..).unwrap_or_default();
        }
        names
    }
}

/// The folders are listed, and one can be looked into.
pub(crate) fn must_work(device: &Device, arena: &Arena) -> anyhow::Result<()> {
    const DIRECTORY: u32 = 0o4;
    let mut line = Line::one(device, arena)?;
    let names = line.list(ROOT)?;
    let name = names
        .iter()
        .find(|name| !name.starts_with(b"."))
        .context("no folder is listed")?;
    let folder = line.find(ROOT, name)?;
    let attributes = line.must(&Message::getattr(folder))?;
    // A header of the attributes, and the mode at 60 of them.
    let mode = attributes.body.get(76..80).context("odd attributes")?;
    let kind = u32::from_le_bytes([mode[0], mode[1], mode[2], mode[3]]) >> 12;
    ensure!(kind == DIRECTORY, "a folder of mode {mode:?}");
    ensure!(line.list(folder)?.len() >= 2, "a folder without dots");
    Ok(())
}

pub(crate) fn put(arena: &Arena, at: usize, bytes: &[u8]) {
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        arena.write(at + index * 8, u64::from_le_bytes(*word));
    }
    for (index, byte) in rest.iter().enumerate() {
        arena.write(at + words.len() * 8 + index, *byte);
    }
}

fn take(arena: &Arena, at: usize, len: usize) -> Vec<u8> {
    let words = (0..len.div_ceil(8)).map(|word| arena.read::<u64>(at + word * 8));
    let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    bytes.truncate(len);
    bytes
}

fn opcode(message: &Message) -> u32 {
    let bytes = message.as_bytes().get(4..8).and_then(|bytes| bytes.first_chunk());
    bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn described(message: &Message) -> String {
    let node = message
        .as_bytes()
        .get(16..24)
        .and_then(|bytes| bytes.first_chunk());
    let body = message.as_bytes().get(IN_HEADER..).unwrap_or_default();
    let shown = body.get(..200).unwrap_or(body);
    format!(
        "operation {} on node {:#x} with {}",
        opcode(message),
        node.map_or(0, |bytes| u64::from_le_bytes(*bytes)),
        shown.escape_ascii()
    )
}
