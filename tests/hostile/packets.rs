//! vsock, spoken by hand: packets with wrong lengths, CIDs, ports, types and operations, lies about credit,
//! floods of connections, and buffers that no packet fits, or none at all.

use std::time::Instant;

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

const FLOOD: u32 = 20_000;
const RANDOM_PACKETS: usize = 10_000;

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

pub(crate) fn attack(kit: &mut Kit) -> anyhow::Result<usize> {
    let device = Device::take(Kind::Vsock, 0)?;
    must_connect(&device, &kit.arena)?;
    let mut attacks = 0;
    for phase in [floods, lengths, lies, stubborn, anything] {
        attacks += phase(&device, kit)?;
        must_connect(&device, &kit.arena)?;
    }
    attacks += useless_buffers(&device, kit)?;
    must_connect(&device, &kit.arena)?;
    for queue in [RX, TX] {
        attacks += all_blows(&device, queue, kit) + race_on(&device, queue, kit);
        must_connect(&device, &kit.arena)?;
    }
    attacks += any_blows(&device, kit);
    must_connect(&device, &kit.arena)?;
    Ok(attacks)
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
fn floods(device: &Device, kit: &mut Kit) -> anyhow::Result<usize> {
    let mut line = Line::new(device, &kit.arena, 0)?;
    for number in 0..FLOOD {
        let port = if number % 4 == 3 { PORT + number } else { PORT };
        line.say(Packet {
            target: (HOST, port),
            ..line.packet(number, REQUEST)
        })?;
    }
    let mut line = Line::new(device, &kit.arena, 0)?;
    for number in 0..FLOOD {
        line.say(
            line.packet(
                number,
                kit.dice
                    .pick(&[DATA, RESET, SHUTDOWN, CREDIT_REQUEST, CREDIT_UPDATE]),
            ),
        )?;
    }
    for number in 0..FLOOD {
        line.say(line.packet(1, if number % 2 == 0 { REQUEST } else { RESET }))?;
    }
    Ok(line.sent + FLOOD as usize)
}

/// Lengths that the chain does not hold, chains that hold no header, headers cut into bytes, chains with far
/// more behind the packet than in it.
fn lengths(device: &Device, kit: &mut Kit) -> anyhow::Result<usize> {
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
    // A header and a long writable tail, as often as the ring holds.
    for entries in [2u32, 63, 64, 65, 66, 1023, 1024, 1025, 65535] {
        for slot in 0..RING_SIZE {
            let at = TABLE;
            describe_at(
                arena,
                at,
                Descriptor {
                    address: line.slot(slot),
                    len: HEADER as u32,
                    flags: NEXT,
                    next: 1,
                },
            );
            for entry in 1..entries {
                let more = if entry + 1 < entries { NEXT } else { 0 };
                let (address, next) = (arena.physical(BUFFERS), (entry + 1) as u16);
                describe_at(
                    arena,
                    at + entry as usize * 16,
                    Descriptor {
                        address,
                        len: 1,
                        flags: WRITE | more,
                        next,
                    },
                );
            }
            line.write(slot, line.packet(9, DATA));
            let address = arena.physical(TABLE);
            line.tx.describe(
                slot,
                Descriptor {
                    address,
                    len: entries * 16,
                    flags: INDIRECT,
                    next: 0,
                },
            );
        }
        for slot in 0..RING_SIZE {
            line.tx.offer(slot);
        }
        line.device.notify(TX as u16);
        if !line
            .tx
            .wait(line.tx.index(), std::time::Duration::from_millis(50))
        {
            line = Line::new(device, arena, INDIRECT_DESC)?;
        }
    }
    Ok(line.sent + 300)
}

/// Windows and counts that cannot be, on connections that are.
fn lies(device: &Device, kit: &mut Kit) -> anyhow::Result<usize> {
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
fn stubborn(device: &Device, kit: &mut Kit) -> anyhow::Result<usize> {
    let mut line = Line::new(device, &kit.arena, 0)?;
    line.offer_buffers();
    for port in 0..1100 {
        line.say(line.packet(port, REQUEST))?;
    }
    for _ in 0..3 {
        for port in 0..1100 {
            // Nearly a frame of the agent's, so that whoever reads it waits for the rest.
            line.send(
                Packet {
                    len: 2000,
                    ..line.packet(port, DATA)
                },
                HEADER as u32 + 2000,
            )?;
        }
    }
    Ok(line.sent)
}

/// Packets whose every field is as it falls.
fn anything(device: &Device, kit: &mut Kit) -> anyhow::Result<usize> {
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
fn useless_buffers(device: &Device, kit: &mut Kit) -> anyhow::Result<usize> {
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
                Descriptor {
                    address,
                    len,
                    flags: write | more,
                    next,
                },
            );
        }
        for slot in 0..RING_SIZE {
            let address = arena.physical(TABLE);
            line.rx.describe(
                slot,
                Descriptor {
                    address,
                    len: entries * 16,
                    flags: INDIRECT,
                    next: 0,
                },
            );
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
            self.rx.describe(
                slot,
                Descriptor {
                    address,
                    len: SLOT_BYTES as u32,
                    flags: WRITE,
                    next: 0,
                },
            );
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
        let descriptor = Descriptor {
            address: self.slot(slot),
            len: bytes,
            flags: 0,
            next: 0,
        };
        self.tx.describe(slot, descriptor);
        self.tx.offer(slot);
        if self.tx.index().is_multiple_of(TOLD_AT_ONCE) {
            self.device.notify(TX as u16);
        }
        self.sent += 1;
        Ok(())
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
        // The start of a frame the agent could send.
        arena.write(at + HEADER, 0x0000_4000u32);
        arena.write(at + HEADER + 4, 0u8);
    }
}
