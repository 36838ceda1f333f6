//! The network card, by hand: frames of every kind and length behind headers that promise anything, rings that lie,
//! and buffers in which no frame has room.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::{
    Kit,
    arena::{Arena, BUFFERS, TABLE},
    dice::Dice,
    driver::{
        Descriptor, Device, INDIRECT, INDIRECT_DESC, NEXT, PATIENCE, RING_SIZE, Ring, VERSION_1, WRITE,
        describe_at,
    },
    pci::Kind,
    rings::{all_blows, any_blows, race_on},
};

const RX: usize = 0;
const TX: usize = 1;
/// In front of every frame.
const HEADER: usize = 12;
/// Each slot of the transmit ring has a buffer of its own.
const SLOT_BYTES: usize = 0x800;
const RX_BUFFERS: usize = BUFFERS + 0x8_0000;
/// Frames under way, and those told of at once: floods are quick.
const TX_SIZE: u16 = 256;
const TOLD_AT_ONCE: u16 = 32;
const FRAMES: usize = 20_000;
/// Of the header, each with many lengths.
const ROUNDS: usize = 500;
const RESETS: usize = 200;
/// For an answer that need not come.
const GLANCE: Duration = Duration::from_millis(50);
/// Merged receive buffers.
const MERGED: u64 = 1 << 15;

const GATEWAY: [u8; 6] = [0x02, 0xc0, 0xff, 0xe4, 0, 1];
const GUEST: [u8; 6] = [0x02, 0xc0, 0xff, 0xe4, 0, 2];
const EVERYBODY: [u8; 6] = [0xff; 6];
const GUEST_V4: [u8; 4] = [198, 18, 0, 2];
const GATEWAY_V4: [u8; 4] = [198, 18, 0, 1];

/// The transmit side of a running device.
struct Line<'a> {
    device: &'a Device,
    tx: Ring<'a>,
    rx: Ring<'a>,
    sent: usize,
    heard: u16,
}

pub(crate) fn frames(kit: &mut Kit) -> anyhow::Result<usize> {
    between_honest(kit, say_anything)
}

pub(crate) fn headers(kit: &mut Kit) -> anyhow::Result<usize> {
    between_honest(kit, lie_in_headers)
}

pub(crate) fn room(kit: &mut Kit) -> anyhow::Result<usize> {
    between_honest(kit, offer_useless_buffers)
}

pub(crate) fn resets(kit: &mut Kit) -> anyhow::Result<usize> {
    between_honest(kit, reset_in_the_middle)
}

pub(crate) fn rings(kit: &mut Kit) -> anyhow::Result<usize> {
    between_honest(kit, |device, kit| {
        let mut attacks = any_blows(device, kit);
        for queue in [RX, TX] {
            attacks += all_blows(device, queue, kit) + race_on(device, queue, kit);
        }
        Ok(attacks)
    })
}

/// The kernel's driver finds the device as good as new.
pub(crate) fn give_back(_: &mut Kit) -> anyhow::Result<usize> {
    Device::take(Kind::Net, 0)?.function.give_back()?;
    Ok(0)
}

fn between_honest(
    kit: &mut Kit,
    attack: fn(&Device, &mut Kit) -> anyhow::Result<usize>,
) -> anyhow::Result<usize> {
    let device = Device::take(Kind::Net, 0)?;
    device.must_work(&kit.arena)?;
    let attacks = attack(&device, kit)?;
    device.must_work(&kit.arena)?;
    Ok(attacks)
}

/// Who asks for the gateway's address is told, and who pings it hears of it: what is sent gets where it is read.
pub(crate) fn must_work(device: &Device, arena: &Arena) -> anyhow::Result<()> {
    let mut line = Line::new(device, arena, 0);
    line.offer_buffers();
    let told = |at| (arena.read::<u16>(at + 12), arena.read::<u16>(at + 20)) == (0x0608, 0x0200);
    ensure!(line.ask(&arp(), told)?, "nobody answers for the gateway");
    let pong = |at| {
        (
            arena.read::<u16>(at + 12),
            arena.read::<u8>(at + 23),
            arena.read::<u8>(at + 34),
        ) == (8, 1, 0)
    };
    ensure!(line.ask(&echo(64), pong)?, "the gateway answers no ping");
    device.reset();
    Ok(())
}

fn say_anything(device: &Device, kit: &mut Kit) -> anyhow::Result<usize> {
    let mut line = Line::new(device, &kit.arena, 0);
    for round in 0..FRAMES {
        if round % 64 == 0 {
            line.offer_buffers();
        }
        let frame = any_frame(&mut kit.dice);
        line.send([0; HEADER], &frame)?;
    }
    Ok(line.sent)
}

/// Flags, kinds of segmentation, and places of checksums that are not offered or not in the frame, on chains of
/// which the frame is a part, or that hold no frame, or more than any frame has.
fn lie_in_headers(device: &Device, kit: &mut Kit) -> anyhow::Result<usize> {
    let mut line = Line::new(device, &kit.arena, INDIRECT_DESC);
    for _ in 0..ROUNDS {
        let dice = &mut kit.dice;
        let header = [(); HEADER].map(|()| dice.pick(&[0, 1, 3, 4, 0x7f, 0x80, 0xff]));
        let frame = any_frame(dice);
        line.send(header, &frame)?;
        // No kind of segmentation, so that the rest is looked at.
        let mut honest = header;
        honest[..2].fill(0);
        let len = dice.pick(&[
            0, 1, 11, 12, 13, 25, 26, 27, 65_000, 65_546, 65_601, 65_602, 0x2_0000,
        ]);
        line.send_as(honest, &frame, len)?;
    }
    let mut attacks = line.sent;
    // Out of the guest's memory: the driver is at fault, and the device waits for a reset.
    for len in [0x7fff_ffff, u32::MAX] {
        let mut line = Line::new(device, &kit.arena, 0);
        line.send_as([0; HEADER], &arp(), len)?;
        device.notify(TX as u16);
        line.tx.wait(1, GLANCE);
        attacks += line.sent;
    }
    for entries in [2, 63, 64, 65, 1023, 1024, 1025, 65_535] {
        let mut line = Line::new(device, &kit.arena, INDIRECT_DESC);
        line.offer_long_chains(entries);
        attacks += usize::from(RING_SIZE);
    }
    Ok(attacks)
}

/// Buffers that are too small, not writable, or in more pieces than any frame needs, or none at all, while answers
/// wait for them.
fn offer_useless_buffers(device: &Device, kit: &mut Kit) -> anyhow::Result<usize> {
    let Kit { arena, dice } = kit;
    let mut attacks = 0;
    for (features, entries) in [0, MERGED].into_iter().flat_map(|features| {
        [0u32, 1, 12, 63, 64, 65, 1025, 65_535].map(|entries| (features | INDIRECT_DESC, entries))
    }) {
        let mut line = Line::new(device, arena, features);
        for entry in 0..entries {
            let more = if entry + 1 < entries { NEXT } else { 0 };
            let write = if dice.once_in(20) { 0 } else { WRITE };
            let len = dice.pick(&[0, 1, 11, 12, 13, 40]);
            let descriptor =
                Descriptor::new(arena.physical(RX_BUFFERS), len, write | more, (entry + 1) as u16);
            describe_at(arena, TABLE + entry as usize * 16, descriptor);
        }
        for slot in 0..if entries == 0 { 0 } else { RING_SIZE } {
            let table = Descriptor::new(arena.physical(TABLE), entries * 16, INDIRECT, 0);
            line.rx.describe(slot, table);
            line.rx.offer(slot);
        }
        device.notify(RX as u16);
        for _ in 0..100 {
            line.send([0; HEADER], &echo(dice.below(1500) as usize))?;
            line.send([0; HEADER], &arp())?;
        }
        attacks += line.sent;
    }
    Ok(attacks)
}

fn reset_in_the_middle(device: &Device, kit: &mut Kit) -> anyhow::Result<usize> {
    let mut attacks = 0;
    for _ in 0..RESETS {
        let mut line = Line::new(device, &kit.arena, kit.dice.pick(&[0, MERGED]));
        line.offer_buffers();
        for _ in 0..kit.dice.below(40) {
            let frame = any_frame(&mut kit.dice);
            line.send([0; HEADER], &frame)?;
        }
        device.notify(TX as u16);
        device.reset();
        attacks += line.sent;
    }
    Ok(attacks)
}

/// Something that would be answered, with some of its bytes as they fall; or nothing but such bytes.
fn any_frame(dice: &mut Dice) -> Vec<u8> {
    let mut frame = match dice.below(6) {
        0 => arp(),
        1 => echo(dice.below(1400) as usize),
        2 => segment(dice),
        3 => question(dice),
        4 => six(dice),
        _ => noise(dice),
    };
    if dice.once_in(8) {
        frame[..6].copy_from_slice(&EVERYBODY);
    }
    for _ in 0..dice.below(4) {
        let at = dice.below(frame.len() as u64) as usize;
        frame[at] = dice.edge() as u8;
    }
    if dice.once_in(8) {
        frame.truncate(dice.below(frame.len() as u64 + 1) as usize);
    }
    frame
}

/// Nothing, behind the head of each kind of frame.
fn noise(dice: &mut Dice) -> Vec<u8> {
    let kind = dice.pick(&[[8, 0], [8, 6], [0x86, 0xdd], [0x81, 0]]);
    let bytes: Vec<u8> = (0..dice.below(1500)).map(|_| dice.roll() as u8).collect();
    [&GATEWAY[..], &GUEST, &kind, &bytes].concat()
}

fn arp() -> Vec<u8> {
    let head = [0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1];
    [
        &EVERYBODY[..],
        &GUEST,
        &head,
        &GUEST,
        &GUEST_V4,
        &[0; 6],
        &GATEWAY_V4,
    ]
    .concat()
}

fn echo(len: usize) -> Vec<u8> {
    let mut packet = [&[8, 0, 0, 0, 0, 1, 0, 1][..], &vec![0x55; len]].concat();
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum);
    four(1, GATEWAY_V4, &packet)
}

/// TCP, of any kind, to addresses that stand for names or do not. So few ends and so near numbers that many segments
/// are of one connection.
fn segment(dice: &mut Dice) -> Vec<u8> {
    let mut packet: Vec<u8> = (0..20 + dice.below(40)).map(|_| dice.roll() as u8).collect();
    if !dice.once_in(4) {
        packet[..4].copy_from_slice(&[0x40, dice.pick(&[0, 1, 2, 3]), 0, 80]);
        let number = 1000 + dice.below(3) as u32;
        packet[4..8].copy_from_slice(&number.to_be_bytes());
    }
    packet[12] = dice.pick(&[0x50, 0x50, 0x60, 0xf0, 0]);
    packet[13] = dice.pick(&[2, 2, 0x10, 0x12, 4, 1, 0xff, 0]);
    let target = dice.pick(&[[198, 18, 1, 0], [192, 0, 2, 1], GATEWAY_V4, [224, 0, 0, 1]]);
    four(6, target, &packet)
}

fn question(dice: &mut Dice) -> Vec<u8> {
    let name: Vec<u8> = match dice.once_in(4) {
        true => b"\x06server\x04test".to_vec(),
        false => (0..dice.below(300))
            .map(|_| dice.pick(b"\x03abc.\xc0\x00\x3f"))
            .collect(),
    };
    let head = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let question = [&head[..], &name, &[0, 0, 1, 0, 1]].concat();
    let len = (question.len() as u16 + 8).to_be_bytes();
    let port = dice.pick(&[53u16, 67, 5353, 443]).to_be_bytes();
    let packet = [&[0x30, 0x39][..], &port, &len, &[0, 0], &question].concat();
    four(17, GATEWAY_V4, &packet)
}

fn six(dice: &mut Dice) -> Vec<u8> {
    let body: Vec<u8> = (0..dice.below(200)).map(|_| dice.roll() as u8).collect();
    let next = dice.pick(&[0, 6, 17, 43, 44, 58, 60, 0xff]);
    let gateway = [0xfd, 0xc0, 0xff, 0xe4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let mut guest = gateway;
    guest[15] = 2;
    let len = (body.len() as u16).to_be_bytes();
    let head = [0x60, 0, 0, 0, len[0], len[1], next, 64];
    [
        &GATEWAY[..],
        &GUEST,
        &[0x86, 0xdd],
        &head,
        &guest,
        &gateway,
        &body,
    ]
    .concat()
}

fn four(protocol: u8, target: [u8; 4], packet: &[u8]) -> Vec<u8> {
    let len = (packet.len() as u16 + 20).to_be_bytes();
    let start = [0x45, 0, len[0], len[1], 0, 0, 0, 0, 64, protocol, 0, 0];
    let mut head = [&start[..], &GUEST_V4, &target].concat();
    let sum = checksum(&head);
    head[10..12].copy_from_slice(&sum);
    [&GATEWAY[..], &GUEST, &[8, 0], &head, packet].concat()
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

impl<'a> Line<'a> {
    fn new(device: &'a Device, arena: &'a Arena, features: u64) -> Self {
        device.reset();
        device.negotiate(VERSION_1 | features);
        let rings =
            [(RX, RING_SIZE), (TX, TX_SIZE)].map(|(queue, size)| Ring::new(arena, queue as u16, size));
        device.start(&rings);
        let [rx, tx] = rings;
        Line {
            device,
            tx,
            rx,
            sent: 0,
            heard: 0,
        }
    }

    /// Whether what comes back is, in time, what `is_answer` knows by the place of the frame. What the driver before
    /// this one asked for may come first.
    fn ask(&mut self, frame: &[u8], is_answer: impl Fn(usize) -> bool) -> anyhow::Result<bool> {
        self.send([0; HEADER], frame)?;
        self.device.notify(TX as u16);
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if self.rx.used_index() == self.heard {
                std::thread::yield_now();
                continue;
            }
            let slot = usize::from(self.heard % RING_SIZE);
            self.heard = self.heard.wrapping_add(1);
            if is_answer(RX_BUFFERS + slot * SLOT_BYTES + HEADER) {
                return Ok(true);
            }
            self.offer_buffers();
        }
        Ok(false)
    }

    /// Room for as many frames as the ring holds; what is there is forgotten.
    fn offer_buffers(&mut self) {
        while self.rx.index().wrapping_sub(self.rx.used_index()) < RING_SIZE {
            let slot = self.rx.index() % RING_SIZE;
            let at = RX_BUFFERS + usize::from(slot) * SLOT_BYTES;
            let buffer = Descriptor::new(self.rx.arena.physical(at), SLOT_BYTES as u32, WRITE, 0);
            self.rx.describe(slot, buffer);
            self.rx.offer(slot);
        }
        self.device.notify(RX as u16);
    }

    fn send(&mut self, header: [u8; HEADER], frame: &[u8]) -> anyhow::Result<()> {
        self.send_as(header, frame, (HEADER + frame.len()) as u32)
    }

    /// Sends it as a chain of `len` bytes, once the ring has a place for it.
    fn send_as(&mut self, header: [u8; HEADER], frame: &[u8], len: u32) -> anyhow::Result<()> {
        let start = Instant::now();
        while self.tx.index().wrapping_sub(self.tx.used_index()) >= TX_SIZE {
            self.device.notify(TX as u16);
            ensure!(start.elapsed() < PATIENCE, "the device takes no more frames");
            std::thread::yield_now();
        }
        let slot = self.tx.index() % TX_SIZE;
        let at = BUFFERS + usize::from(slot) * SLOT_BYTES;
        for (at, byte) in (at..at + SLOT_BYTES).zip(header.iter().chain(frame)) {
            self.tx.arena.write(at, *byte);
        }
        self.tx
            .describe(slot, Descriptor::new(self.tx.arena.physical(at), len, 0, 0));
        self.tx.offer(slot);
        if self.tx.index().is_multiple_of(TOLD_AT_ONCE) {
            self.device.notify(TX as u16);
        }
        self.sent += 1;
        Ok(())
    }

    /// A frame in so many pieces, some of them to be written by the device. Whether it is answered is not waited for
    /// long.
    fn offer_long_chains(&mut self, entries: u16) {
        let arena = self.tx.arena;
        for entry in 0..entries {
            let more = if entry + 1 < entries { NEXT } else { 0 };
            let write = if entry % 7 == 6 { WRITE } else { 0 };
            let piece = Descriptor::new(arena.physical(BUFFERS), 64, write | more, entry + 1);
            describe_at(arena, TABLE + usize::from(entry) * 16, piece);
        }
        for slot in 0..RING_SIZE {
            let table = Descriptor::new(arena.physical(TABLE), u32::from(entries) * 16, INDIRECT, 0);
            self.tx.describe(slot, table);
            self.tx.offer(slot);
        }
        self.device.notify(TX as u16);
        self.tx.wait(self.tx.index(), GLANCE);
    }
}
