//! The file system device: chains that are no request or have no room for a reply, and resets under its hands.
//!
//! What requests may say is up to [`crate::escapes`] and [`crate::babble`].

use std::{
    slice,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::ensure;
use fuse::testing::Message;

use crate::{
    Kit,
    arena::Arena,
    dice::Dice,
    doorbells::storm,
    driver::{Descriptor, Device, INDIRECT_DESC, NEXT, RING_SIZE, WRITE, address, register},
    mount::{Line, Piece, ROOM, ROOT, put},
    pci::Kind,
};

const GUARD: u64 = 0xa5a5_a5a5_a5a5_a5a5;
const OPERATIONS: u32 = 64;
const TAG: &[u8; 9] = b"cofferdam";
const TAG_BYTES: usize = 36;
const HIPRIO_SIZE: u16 = 256;
const REQUEST_SIZE: u16 = 1024;

pub(crate) fn attack(kit: &mut Kit) -> anyhow::Result<usize> {
    let device = Device::take(Kind::Fs, 0)?;
    device.must_work(&kit.arena)?;
    says_what_it_is(&device)?;
    let mut attacks = small_rooms(&device, &kit.arena)?;
    attacks += odd_lengths(&device, &kit.arena)?;
    attacks += many_pieces(&device, &kit.arena)?;
    device.must_work(&kit.arena)?;
    attacks += broken_chains(&device, kit)?;
    attacks += nowhere(&device, kit)?;
    attacks += reset_under_way(&device, kit);
    device.must_work(&kit.arena)?;
    Ok(attacks)
}

fn says_what_it_is(device: &Device) -> anyhow::Result<()> {
    let bar = &device.function.bar;
    let config = crate::driver::DEVICE_CONFIG;
    let tag: Vec<u8> = (0..TAG_BYTES).map(|at| bar.read(config + at)).collect();
    ensure!(
        tag.starts_with(TAG) && tag.iter().skip(TAG.len()).all(|byte| *byte == 0),
        "the tag is {}",
        tag.escape_ascii()
    );
    let requests: u32 = bar.read(config + TAG_BYTES);
    ensure!(
        u32::from(device.queues()) == requests + 1,
        "{requests} request queues"
    );
    for queue in 0..device.queues() {
        bar.write(register::QUEUE_SELECT, queue);
        let size: u16 = bar.read(register::QUEUE_SIZE);
        let expected = if queue == 0 { HIPRIO_SIZE } else { REQUEST_SIZE };
        ensure!(size == expected, "queue {queue} holds {size}");
    }
    Ok(())
}

/// A reply ends where its room does, or does not come.
fn small_rooms(device: &Device, arena: &Arena) -> anyhow::Result<usize> {
    let mut line = Line::one(device, arena)?;
    let mut attacks = 0;
    let messages = [
        Message::init(),
        Message::getattr(ROOT),
        Message::lookup(ROOT, b"work"),
        Message::readdir(ROOT, 0, 4096),
        Message::readdirplus(ROOT, 0, 4096),
        Message::statfs(ROOT),
        Message::of(999, ROOT),
    ];
    for message in &messages {
        for room in (0..24).chain([63, 79, 80, 81, 119, 120, 143, 144, 145, 200]) {
            let at = line.reply_at();
            (0..0x1000)
                .step_by(8)
                .for_each(|byte| arena.write(at + byte, GUARD));
            line.ask_raw(message.as_bytes(), room)?;
            let guard: [u8; 8] = std::array::from_fn(|byte| arena.read(at + room as usize + byte));
            // The first sixteen were cleared, for a reply to be told from none.
            ensure!(
                room < 16 || guard == GUARD.to_le_bytes(),
                "written beyond room for {room}: {guard:x?}"
            );
            attacks += 1;
        }
    }
    Ok(attacks)
}

/// Messages shorter and longer than they say, headers without a message, parts of a header.
fn odd_lengths(device: &Device, arena: &Arena) -> anyhow::Result<usize> {
    let mut line = Line::one(device, arena)?;
    let lookup = Message::lookup(ROOT, b"work");
    let whole = lookup.as_bytes();
    for len in 0..whole.len() {
        line.ask_raw(&whole[..len], ROOM)?;
        line.refused(&lookup.clone().cut(len.max(40)))?;
    }
    let len = whole.len() as u32;
    for lie in [0, 1, 39, 40, 41, len - 1, len + 1, 1 << 20, 1 << 31, u32::MAX] {
        line.refused(&lookup.clone().replace(0..4, &lie.to_le_bytes()))?;
    }
    // Room for extensions that nobody negotiated.
    line.refused(&lookup.clone().replace(36..38, &[1, 0]))?;
    for operation in (0..OPERATIONS).chain([4096, 1 << 31, u32::MAX]) {
        // Not the one after which nothing is answered.
        if operation != 38 {
            line.ask(&Message::of(operation, ROOT))?;
        }
        line.ask_raw(&Message::of(operation, ROOT).as_bytes()[..39], ROOM)?;
    }
    line.find(ROOT, b"work")?;
    // What belongs into another queue.
    let mut lines = Line::open(device, arena)?;
    for operation in (0..OPERATIONS).filter(|operation| *operation != 38) {
        let message = Message::of(operation, ROOT).and(&[0; 24]);
        lines
            .iter_mut()
            .try_for_each(|line| line.ask(&message).map(drop))?;
    }
    Ok(2 * whole.len() + 11 + 5 * OPERATIONS as usize)
}

/// Cut as small as can be it is the same request, as long as there are not too many pieces.
fn many_pieces(device: &Device, arena: &Arena) -> anyhow::Result<usize> {
    let mut line = Line::one(device, arena)?;
    let message = Message::lookup(ROOT, b"work");
    let len = message.as_bytes().len();
    put(arena, line.request_at(), message.as_bytes());
    let (request, reply) = (line.request_at(), line.reply_at());
    let bytes = |at: usize, len: usize, flags: u16| (at..at + len).map(move |at| (at, 1, flags));
    let mut pieces: Vec<Piece> = bytes(request, len, 0).chain(bytes(reply, 300, WRITE)).collect();
    let answer = line.exchange(&pieces, 300)?;
    ensure!(
        answer.is_some_and(|answer| answer.error == 0),
        "a request in single bytes is not answered"
    );
    // Nothing in between, which is no reason to stop.
    pieces.insert(1, (request, 0, 0));
    line.exchange(&pieces, 300)?;
    // No room, and one that is answered from several CPUs at once.
    line.offer(&[(request, len as u32, 0)]);
    ensure!(line.answered(), "a request without room is not given back");
    line.offer(&[(request, len as u32, 0), (reply, 300, WRITE)]);
    (1..RING_SIZE).for_each(|_| line.ring.offer(0));
    device.notify(line.queue);
    ensure!(line.answered(), "one head many times is not answered as often");
    Ok(4)
}

/// Pieces from where a request lies, how long it is, and where there is room.
type Broken = fn(usize, u32, usize) -> Vec<Piece>;

/// After each the queue may have stopped, and a reset has to bring it back.
fn broken_chains(device: &Device, kit: &Kit) -> anyhow::Result<usize> {
    let arena = &kit.arena;
    let message = Message::readdirplus(ROOT, 0, 4096);
    let len = message.as_bytes().len();
    let attacks: [Broken; 7] = [
        // Room before the request, between its parts, and only room.
        |request, len, reply| vec![(reply, 300, WRITE), (request, len, 0)],
        |request, len, reply| vec![(request, 40, 0), (reply, 300, WRITE), (request + 40, len - 40, 0)],
        |_, _, reply| vec![(reply, 4096, WRITE)],
        // The reply over the request.
        |request, len, _| vec![(request, len, 0), (request, 4096, WRITE)],
        // As many pieces as a table holds, and as a chain may have, and one more.
        |request, len, _| vec![(request, len, 0); 0xffff],
        |request, _, reply| {
            vec![(request, 1, 0); 1023]
                .into_iter()
                .chain([(reply, 300, WRITE)])
                .collect()
        },
        |request, _, reply| {
            vec![(request, 1, 0); 1024]
                .into_iter()
                .chain([(reply, 300, WRITE)])
                .collect()
        },
    ];
    for attack in attacks {
        let mut line = Line::one(device, arena)?;
        put(arena, line.request_at(), message.as_bytes());
        let pieces = attack(line.request_at(), len as u32, line.reply_at());
        line.offer(&pieces);
        device.notify(line.queue);
        device.must_work(arena)?;
    }
    Ok(attacks.len())
}

/// Requests from and replies to where no memory is, the rings themselves, and all of four gigabytes.
fn nowhere(device: &Device, kit: &mut Kit) -> anyhow::Result<usize> {
    const ROUNDS: usize = 60;
    let Kit { arena, dice } = kit;
    for round in 0..ROUNDS {
        let mut line = Line::one(device, arena)?;
        let message = Message::readdirplus(ROOT, 0, 4096);
        put(arena, line.request_at(), message.as_bytes());
        let rings = [line.ring.at, line.ring.avail(), line.ring.used()].map(|at| arena.physical(at));
        let place = |dice: &mut Dice| {
            if dice.once_in(3) {
                dice.pick(&rings)
            } else {
                address(arena, dice)
            }
        };
        let mut from = (arena.physical(line.request_at()), message.as_bytes().len() as u32);
        let mut to = (place(dice), dice.pick(&[16, 300, 8192, u32::MAX]));
        if round % 3 == 0 {
            from = (place(dice), from.1);
            to = (arena.physical(line.reply_at()), to.1);
        }
        line.ring.describe(0, Descriptor::new(from.0, from.1, NEXT, 1));
        line.ring.describe(1, Descriptor::new(to.0, to.1, WRITE, 2));
        line.ring.offer(0);
        device.notify(line.queue);
    }
    device.must_work(arena)?;
    Ok(ROUNDS)
}

/// Doorbells from all CPUs while requests are under way and the device is reset.
fn reset_under_way(device: &Device, kit: &mut Kit) -> usize {
    let (arena, stop) = (&kit.arena, AtomicBool::new(false));
    let dice = &mut kit.dice;
    thread::scope(|scope| {
        let resets = scope.spawn(|| {
            let mut resets = 0;
            while !stop.load(Ordering::Relaxed) {
                fill_queues(device, arena);
                resets += 1;
            }
            resets
        });
        let rung = storm(slice::from_ref(device), dice);
        stop.store(true, Ordering::Relaxed);
        rung + resets.join().unwrap_or(0)
    })
}

/// INIT, and behind it more work than is done when the next reset comes.
fn fill_queues(device: &Device, arena: &Arena) {
    let mut rings = device.set_up(arena, INDIRECT_DESC);
    let (at, room) = (crate::arena::BUFFERS, crate::arena::BUFFERS + 0x2_0000);
    let init = Message::init();
    let list = Message::readdirplus(ROOT, 0, 4096);
    // A worker's to answer.
    let slow = Message::lseek(ROOT, 0, 3);
    put(arena, at, init.as_bytes());
    put(arena, at + 0x1000, list.as_bytes());
    put(arena, at + 0x2000, slow.as_bytes());
    for (queue, ring) in (0..).zip(&mut rings) {
        let requests = [
            (at, init.as_bytes().len()),
            (at + 0x1000, list.as_bytes().len()),
            (at + 0x2000, slow.as_bytes().len()),
        ];
        for (head, (at, len)) in (0..).step_by(2).zip(requests) {
            ring.describe(
                head,
                Descriptor::new(arena.physical(at), len as u32, NEXT, head + 1),
            );
            ring.describe(head + 1, Descriptor::new(arena.physical(room), 8192, WRITE, 0));
        }
        ring.offer(0);
        (1..RING_SIZE).for_each(|turn| ring.offer(2 + turn % 2 * 2));
        device.notify(queue);
    }
}
