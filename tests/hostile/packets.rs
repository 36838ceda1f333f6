//! vsock, spoken by hand: packets with wrong lengths, CIDs, ports, types and operations, lies about credit,
//! floods of connections, and buffers that no packet fits, or none at all.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::{
    Kit,
    arena::{Arena, BUFFERS, TABLE},
    driver::{
        DEVICE_CONFIG, Descriptor, Device, INDIRECT, INDIRECT_DESC, NEXT, PATIENCE, RING_SIZE, Ring,
        VERSION_1, WRITE, describe_at,
    },
    pci::Kind,
    rings::{all_blows, any_blows, race_on},
};

const RX: usize = 0;
const TX: usize = 1;
const HOST: u64 = 2;
/// Where the agent dials; whoever listens there believes nobody.
const PORT: u32 = 1024;
const STREAM: u16 = 1;

const REQUEST: u16 = 1;
const RESPONSE: u16 = 2;
const RESET: u16 = 3;
const SHUTDOWN: u16 = 4;
const DATA: u16 = 5;
const CREDIT_UPDATE: u16 = 6;
const CREDIT_REQUEST: u16 = 7;

const HEADER: usize = 44;
/// Each slot of the transmit ring has a buffer of its own: header, then payload.
const SLOT_BYTES: usize = 0x800;
const RX_BUFFERS: usize = BUFFERS + 0x8_0000;
/// Packets under way, and those told of at once: floods are quick.
const TX_SIZE: u16 = 256;
const TOLD_AT_ONCE: u16 = 32;

/// Connections of one guest, and some.
const MORE_THAN_THERE_CAN_BE: u32 = 1100;
/// A host socket takes three largest packets and a bit of the fourth; the rest of that is the VMM's to hold.
const FILLS_SOCKET_AND_WINDOW: usize = 4;
/// The largest payload of a packet.
const LARGEST: u32 = 0x1_0000;
const FLOOD: u32 = 10_000;
const RANDOM_PACKETS: usize = 5_000;
/// For an answer that need not come.
const GLANCE: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug)]
struct Packet {
    source: (u64, u32),
    target: (u64, u32),
    len: u32,
    kind: u16,
    op: u16,
    flags: u32,
    buf_alloc: u32,
    fwd_cnt: u32,
}

/// The transmit side of a running device.
struct Line<'a> {
    device: &'a Device,
    tx: Ring<'a>,
    rx: Ring<'a>,
    cid: u64,
    sent: usize,
}

/// Makes one kind of attack on the device, which must still serve an honest guest before and after.
fn between_honest(
    kit: &mut Kit,
    attack: fn(&Device, &mut Kit) -> anyhow::Result<usize>,
) -> anyhow::Result<usize> {
    let device = Device::take(Kind::Vsock, 0)?;
    must_connect(&device, &kit.arena)?;
    let attacks = attack(&device, kit)?;
    must_connect(&device, &kit.arena)?;
    Ok(attacks)
}

pub(crate) fn floods(kit: &mut Kit) -> anyhow::Result<usize> {
    between_honest(kit, flood)
}

pub(crate) fn lengths(kit: &mut Kit) -> anyhow::Result<usize> {
    between_honest(kit, lie_about_length)
}

pub(crate) fn credit(kit: &mut Kit) -> anyhow::Result<usize> {
    between_honest(kit, lie_about_credit)
}

pub(crate) fn hoard(kit: &mut Kit) -> anyhow::Result<usize> {
    between_honest(kit, fill_all_windows)
}

pub(crate) fn packets(kit: &mut Kit) -> anyhow::Result<usize> {
    between_honest(kit, say_anything)
}

pub(crate) fn buffers(kit: &mut Kit) -> anyhow::Result<usize> {
    between_honest(kit, offer_useless_buffers)
}

pub(crate) fn rings(kit: &mut Kit) -> anyhow::Result<usize> {
    between_honest(kit, |device, kit| {
        let mut attacks = any_blows(device, kit);
        for queue in [RX, TX] {
            attacks += all_blows(device, queue, kit);
        }
        attacks += race_on(device, TX, kit);
        Ok(attacks)
    })
}

/// The kernel's driver finds the device as good as new, and the agent its way to the host.
pub(crate) fn give_back(_: &mut Kit) -> anyhow::Result<usize> {
    Device::take(Kind::Vsock, 0)?.function.give_back()?;
    Ok(0)
}

/// An honest connection is made, and one to nowhere refused.
fn must_connect(device: &Device, arena: &Arena) -> anyhow::Result<()> {
    let mut line = Line::new(device, arena, 0)?;
    line.offer_buffers();
    for (port, expected) in [(PORT, RESPONSE), (PORT + 1, RESET)] {
        let before = line.rx.used_index();
        line.say(Packet {
            target: (HOST, port),
            ..line.packet(4000, REQUEST)
        })?;
        device.notify(TX as u16);
        ensure!(
            line.rx.wait(before.wrapping_add(1), PATIENCE),
            "no answer to an honest request of port {port}"
        );
        let op: u16 = arena.read(RX_BUFFERS + usize::from(before % RING_SIZE) * SLOT_BYTES + 30);
        ensure!(
            op == expected,
            "request of port {port} is answered by operation {op}"
        );
    }
    device.reset();
    Ok(())
}

/// More connections than there can be, to a port that is there and to many that are not; packets for none; and
/// one opened and reset for ever. All of it without a single buffer for an answer.
fn flood(device: &Device, kit: &mut Kit) -> anyhow::Result<usize> {
    let mut requests = Line::new(device, &kit.arena, 0)?;
    for number in 0..FLOOD {
        let port = if number % 4 == 3 { PORT + number } else { PORT };
        requests.say(Packet {
            target: (HOST, port),
            ..requests.packet(number, REQUEST)
        })?;
    }
    let mut strays = Line::new(device, &kit.arena, 0)?;
    let ops = [DATA, RESET, SHUTDOWN, CREDIT_REQUEST, CREDIT_UPDATE];
    for number in 0..FLOOD / 2 {
        strays.say(strays.packet(number, kit.dice.pick(&ops)))?;
    }
    for number in 0..FLOOD / 2 {
        strays.say(strays.packet(1, [REQUEST, RESET][number as usize % 2]))?;
    }
    Ok(requests.sent + strays.sent)
}

/// Lengths that the chain does not hold, chains that hold no header, headers cut into bytes, chains with far
/// more behind the packet than in it.
fn lie_about_length(device: &Device, kit: &mut Kit) -> anyhow::Result<usize> {
    let arena = &kit.arena;
    let mut line = Line::new(device, arena, INDIRECT_DESC)?;
    for round in 0..300u32 {
        line.say(line.packet(round, REQUEST))?;
        let len = kit
            .dice
            .pick(&[1, 43, 2000, 65535, 65536, 65537, 0x7fff_ffff, u32::MAX]);
        line.say(Packet {
            len,
            ..line.packet(round, DATA)
        })?;
        line.say(Packet {
            len,
            ..line.packet(round, kit.dice.pick(&[REQUEST, RESET, CREDIT_UPDATE]))
        })?;
    }
    for bytes in 0..HEADER as u32 {
        line.send(
            Packet {
                len: 8,
                ..line.packet(1, DATA)
            },
            bytes,
        )?;
    }
    let mut attacks = line.sent;
    for entries in [2, 63, 64, 65, 66, 1023, 1024, 1025, 65535] {
        let mut line = Line::new(device, arena, INDIRECT_DESC)?;
        line.offer_long_tails(entries);
        attacks += usize::from(RING_SIZE);
    }
    Ok(attacks)
}

/// Windows and counts that cannot be, on connections that are.
fn lie_about_credit(device: &Device, kit: &mut Kit) -> anyhow::Result<usize> {
    let mut attacks = 0;
    for round in 0..40u32 {
        let mut line = Line::new(device, &kit.arena, 0)?;
        line.offer_buffers();
        line.say(Packet {
            buf_alloc: kit.dice.edge() as u32,
            fwd_cnt: kit.dice.pick(&[0, 0, 1, u32::MAX]),
            ..line.packet(round, REQUEST)
        })?;
        for _ in 0..60 {
            let (buf_alloc, fwd_cnt) = (kit.dice.edge() as u32, kit.dice.edge() as u32);
            let op = kit.dice.pick(&[CREDIT_UPDATE, CREDIT_REQUEST, DATA, SHUTDOWN]);
            let flags = if op == SHUTDOWN {
                kit.dice.below(5) as u32
            } else {
                0
            };
            let len = if op == DATA {
                kit.dice.below(2048) as u32
            } else {
                0
            };
            line.say(Packet {
                buf_alloc,
                fwd_cnt,
                len,
                flags,
                ..line.packet(round, op)
            })?;
        }
        attacks += line.sent;
    }
    Ok(attacks)
}

/// As many connections as there can be, each with all the data its window holds and more, for a listener that
/// waits for something else.
fn fill_all_windows(device: &Device, kit: &mut Kit) -> anyhow::Result<usize> {
    let mut line = Line::new(device, &kit.arena, 0)?;
    line.offer_buffers();
    for port in 0..MORE_THAN_THERE_CAN_BE {
        line.say(line.packet(port, REQUEST))?;
    }
    for _ in 0..FILLS_SOCKET_AND_WINDOW {
        for port in 0..MORE_THAN_THERE_CAN_BE {
            // The payload is whatever follows in the arena, but for the start.
            line.send(
                Packet {
                    len: LARGEST,
                    ..line.packet(port, DATA)
                },
                HEADER as u32 + LARGEST,
            )?;
        }
    }
    Ok(line.sent)
}

/// Packets whose every field is as it falls.
fn say_anything(device: &Device, kit: &mut Kit) -> anyhow::Result<usize> {
    let mut line = Line::new(device, &kit.arena, 0)?;
    for round in 0..RANDOM_PACKETS {
        let dice = &mut kit.dice;
        if round % 500 == 0 {
            line.offer_buffers();
        }
        let honest = line.packet(dice.below(8) as u32, dice.below(9) as u16);
        let packet = match dice.below(8) {
            0 => Packet {
                source: (dice.edge(), honest.source.1),
                ..honest
            },
            1 => Packet {
                target: (dice.edge(), PORT),
                ..honest
            },
            2 => Packet {
                target: (HOST, dice.edge() as u32),
                ..honest
            },
            3 => Packet {
                kind: dice.roll() as u16,
                ..honest
            },
            4 => Packet {
                op: dice.roll() as u16,
                flags: dice.edge() as u32,
                ..honest
            },
            5 => Packet {
                buf_alloc: dice.edge() as u32,
                fwd_cnt: dice.edge() as u32,
                ..honest
            },
            6 => Packet {
                len: dice.edge() as u32,
                flags: dice.roll() as u32 & 3,
                ..honest
            },
            _ => Packet {
                len: dice.below(2000) as u32,
                flags: dice.below(4) as u32,
                ..honest
            },
        };
        line.send(packet, HEADER as u32 + dice.below(2000) as u32)?;
    }
    Ok(line.sent)
}

/// Buffers for answers that are too small, not writable, or in more pieces than any packet needs.
fn offer_useless_buffers(device: &Device, kit: &mut Kit) -> anyhow::Result<usize> {
    let Kit { arena, dice } = kit;
    let mut attacks = 0;
    for entries in [1u32, 44, 64, 65, 1024, 1025, 65535] {
        let mut line = Line::new(device, arena, INDIRECT_DESC)?;
        for entry in 0..entries {
            let more = if entry + 1 < entries { NEXT } else { 0 };
            let write = if entry + 200 > entries || dice.once_in(2) {
                WRITE
            } else {
                0
            };
            let (address, next) = (arena.physical(BUFFERS), (entry + 1) as u16);
            let len = dice.pick(&[0, 1, 43, 44]);
            describe_at(
                arena,
                TABLE + entry as usize * 16,
                Descriptor::new(address, len, write | more, next),
            );
        }
        for slot in 0..RING_SIZE {
            let address = arena.physical(TABLE);
            line.rx
                .describe(slot, Descriptor::new(address, entries * 16, INDIRECT, 0));
            line.rx.offer(slot);
        }
        device.notify(RX as u16);
        for port in 0..128 {
            line.say(line.packet(port, REQUEST))?;
            line.say(Packet {
                target: (HOST, port),
                ..line.packet(port, REQUEST)
            })?;
        }
        attacks += line.sent;
    }
    Ok(attacks)
}

impl<'a> Line<'a> {
    fn new(device: &'a Device, arena: &'a Arena, features: u64) -> anyhow::Result<Self> {
        device.reset();
        device.negotiate(VERSION_1 | features);
        let rings: [_; 3] = [(RX, RING_SIZE), (TX, TX_SIZE), (2, RING_SIZE)]
            .map(|(queue, size)| Ring::new(arena, queue as u16, size));
        device.start(&rings);
        let [rx, tx, _] = rings;
        Ok(Line {
            device,
            tx,
            rx,
            cid: device.function.bar.read(DEVICE_CONFIG),
            sent: 0,
        })
    }

    /// An honest packet from this port.
    fn packet(&self, port: u32, op: u16) -> Packet {
        let (source, target) = ((self.cid, port), (HOST, PORT));
        Packet {
            source,
            target,
            len: 0,
            kind: STREAM,
            op,
            flags: 0,
            buf_alloc: 0x4_0000,
            fwd_cnt: 0,
        }
    }

    /// Room for as many answers as the ring holds.
    fn offer_buffers(&mut self) {
        for slot in 0..RING_SIZE {
            let address = self
                .rx
                .arena
                .physical(RX_BUFFERS + usize::from(slot) * SLOT_BYTES);
            self.rx
                .describe(slot, Descriptor::new(address, SLOT_BYTES as u32, WRITE, 0));
            self.rx.offer(slot);
        }
        self.device.notify(RX as u16);
    }

    fn say(&mut self, packet: Packet) -> anyhow::Result<()> {
        self.send(packet, HEADER as u32)
    }

    /// Sends the packet in a chain of `bytes`, in one piece or in two, once the ring has a place for it.
    fn send(&mut self, packet: Packet, bytes: u32) -> anyhow::Result<()> {
        let start = Instant::now();
        while self.tx.index().wrapping_sub(self.tx.used_index()) >= TX_SIZE {
            self.device.notify(TX as u16);
            ensure!(start.elapsed() < PATIENCE, "the device takes no more packets");
            std::thread::yield_now();
        }
        let slot = self.tx.index() % TX_SIZE;
        self.write(slot, packet);
        let descriptor = Descriptor::new(self.slot(slot), bytes, 0, 0);
        self.tx.describe(slot, descriptor);
        self.tx.offer(slot);
        if self.tx.index().is_multiple_of(TOLD_AT_ONCE) {
            self.device.notify(TX as u16);
        }
        self.sent += 1;
        Ok(())
    }

    /// A header and a long writable tail, many times over. No packet looks like that, so whether it is answered
    /// is not waited for long.
    fn offer_long_tails(&mut self, entries: u16) {
        let arena = self.tx.arena;
        describe_at(
            arena,
            TABLE,
            Descriptor::new(self.slot(0), HEADER as u32, NEXT, 1),
        );
        for entry in 1..entries {
            let more = if entry + 1 < entries { NEXT } else { 0 };
            let tail = Descriptor::new(arena.physical(BUFFERS), 1, WRITE | more, entry + 1);
            describe_at(arena, TABLE + usize::from(entry) * 16, tail);
        }
        self.write(0, self.packet(9, DATA));
        for slot in 0..RING_SIZE {
            let table = Descriptor::new(arena.physical(TABLE), u32::from(entries) * 16, INDIRECT, 0);
            self.tx.describe(slot, table);
            self.tx.offer(slot);
        }
        self.device.notify(TX as u16);
        self.tx.wait(self.tx.index(), GLANCE);
    }

    fn slot(&self, slot: u16) -> u64 {
        self.tx.arena.physical(BUFFERS + usize::from(slot) * SLOT_BYTES)
    }

    fn write(&self, slot: u16, packet: Packet) {
        let (arena, at) = (self.tx.arena, BUFFERS + usize::from(slot) * SLOT_BYTES);
        arena.write(at, packet.source.0);
        arena.write(at + 8, packet.target.0);
        arena.write(at + 16, packet.source.1);
        arena.write(at + 20, packet.target.1);
        arena.write(at + 24, packet.len);
        arena.write(at + 28, packet.kind);
        arena.write(at + 30, packet.op);
        arena.write(at + 32, packet.flags);
        arena.write(at + 36, packet.buf_alloc);
        arena.write(at + 40, packet.fwd_cnt);
        // The longest message the host takes, so that it waits for the rest.
        arena.write(at + HEADER, 0x0002_0000u32);
        arena.write(at + HEADER + 4, 0u8);
    }
}
