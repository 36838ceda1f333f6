//! Bytes that arrive, and the ends of streams.

use std::{net::IpAddr, time::Duration};

use smoltcp::socket::tcp::State;

use super::world::{FAR_V4, FAR_V6, Far, World};
use crate::{Offloads, limits::BUFFER};

const MIB: u64 = 1 << 20;
const WHILE: Duration = Duration::from_secs(3600);

fn far(to_send: u64) -> impl Fn() -> Far {
    move || Far {
        to_send,
        ..Far::default()
    }
}

/// One flow that carries `up` bytes from the guest and `down` to it, and ends.
fn transfer(mut world: World, address: IpAddr, up: u64, down: u64) -> World {
    let client = world.guest.connect(address, BUFFER, up);
    world.settle();
    world.accept(far(down));
    world.run(WHILE, |world| !world.closed.is_empty());
    let flow = *world.far.keys().next().unwrap();
    assert_eq!(world.closed, [(flow, false)]);
    assert_eq!(world.far[&flow].received.at, up);
    assert!(world.far[&flow].heard_end);
    assert_eq!(world.guest.clients[client].received.at, down);
    assert!(matches!(
        world.guest.state(client),
        State::Closed | State::TimeWait
    ));
    world
}

#[test]
fn sixty_four_mebibytes_go_each_way_at_the_cables_mtu() {
    transfer(World::new(65_520), FAR_V4, 64 * MIB, 64 * MIB);
    transfer(World::new(65_520), FAR_V6, 64 * MIB, 64 * MIB);
}

#[test]
fn sixty_four_mebibytes_go_each_way_at_ethernets_mtu() {
    transfer(World::new(1500), FAR_V4, 64 * MIB, 64 * MIB);
    transfer(World::new(1500), FAR_V6, 64 * MIB, 64 * MIB);
}

#[test]
fn a_guest_that_needs_no_checksums_gets_none() {
    let offloads = Offloads {
        receives_without_checksum: true,
    };
    transfer(World::with(65_520, offloads), FAR_V4, MIB, MIB);
    transfer(World::with(65_520, offloads), FAR_V6, MIB, MIB);
}

#[test]
fn nothing_at_all_can_be_said_both_ways() {
    transfer(World::new(65_520), FAR_V4, 0, 0);
}

#[test]
fn lost_packets_are_sent_again_both_ways() {
    for every in [7, 13, 50] {
        let mut world = World::new(1500);
        world.loses = Some(every);
        transfer(world, FAR_V4, MIB, MIB);
        let mut world = World::new(65_520);
        world.loses = Some(every);
        transfer(world, FAR_V6, 4 * MIB, 4 * MIB);
    }
}

#[test]
fn without_loss_no_time_passes() {
    let mut world = World::new(65_520);
    let start = world.now;
    world = transfer(world, FAR_V4, 16 * MIB, 16 * MIB);
    assert!(
        world.now - start < Duration::from_millis(100),
        "{:?}",
        world.now - start
    );
}

#[test]
fn five_hundred_flows_at_once_all_arrive() {
    let mut world = World::new(65_520);
    for n in 0..500 {
        world
            .guest
            .connect(if n % 2 == 0 { FAR_V4 } else { FAR_V6 }, 64 * 1024, 100_000);
        world.turn();
        world.accept(far(200_000));
    }
    world.run(WHILE, |world| world.closed.len() == 500);
    assert!(world.closed.iter().all(|(_, broken)| !broken));
    assert!(
        world
            .far
            .values()
            .all(|far| far.received.at == 100_000 && far.heard_end)
    );
    assert!(
        world
            .guest
            .clients
            .iter()
            .all(|client| client.received.at == 200_000)
    );
}

#[test]
fn after_the_guests_fin_data_still_flows_to_it() {
    let mut world = World::new(65_520);
    let client = world.guest.connect(FAR_V4, BUFFER, 10);
    world.settle();
    world.accept(|| Far {
        finishes: false,
        ..Far::default()
    });
    world.wait(Duration::from_secs(600));
    let flow = *world.far.keys().next().unwrap();
    assert!(world.far[&flow].heard_end);
    let far = world.far.get_mut(&flow).unwrap();
    (far.to_send, far.finishes) = (5 * MIB, true);
    world.write(flow);
    world.run(WHILE, |world| !world.closed.is_empty());
    assert_eq!(world.closed, [(flow, false)]);
    assert_eq!(world.guest.clients[client].received.at, 5 * MIB);
}

#[test]
fn after_our_fin_data_still_flows_from_the_guest() {
    let mut world = World::new(65_520);
    let client = world.guest.connect(FAR_V4, BUFFER, 0);
    world.guest.clients[client].finishes = false;
    world.settle();
    world.accept(far(10));
    world.wait(Duration::from_secs(600));
    assert_eq!(world.guest.clients[client].received.at, 10);
    assert_eq!(world.guest.state(client), State::CloseWait);
    let guest = &mut world.guest.clients[client];
    (guest.to_send, guest.finishes) = (5 * MIB, true);
    world.run(WHILE, |world| !world.closed.is_empty());
    let flow = *world.far.keys().next().unwrap();
    assert_eq!(world.closed, [(flow, false)]);
    assert_eq!(world.far[&flow].received.at, 5 * MIB);
}

#[test]
fn an_end_that_comes_before_the_handshake_is_done_waits_for_it() {
    let mut world = World::new(65_520);
    let client = world.guest.connect(FAR_V4, BUFFER, 10);
    world.settle();
    let opening = world.openings.pop_front().unwrap();
    world.far.insert(opening.flow, Far::default());
    world.flows.accept(opening.flow, world.now);
    world.flows.finish(opening.flow, world.now);
    world.run(WHILE, |world| !world.closed.is_empty());
    assert_eq!(world.closed, [(opening.flow, false)]);
    assert_eq!(world.far[&opening.flow].received.at, 10);
    assert!(world.guest.state(client) == State::TimeWait || world.guest.state(client) == State::Closed);
}

#[test]
fn what_a_far_end_is_slow_to_read_waits_for_it_after_both_fins() {
    let mut world = World::new(65_520);
    world.guest.connect(FAR_V4, BUFFER, MIB / 2);
    world.settle();
    world.accept(|| Far {
        reads: false,
        ..Far::default()
    });
    world.wait(Duration::from_secs(300));
    let flow = *world.far.keys().next().unwrap();
    assert!(world.far[&flow].finished);
    assert!(world.closed.is_empty(), "closed with half a mebibyte unread");
    // A little, whereupon the connection might be asked for a packet, and then all.
    let far = world.far.get_mut(&flow).unwrap();
    far.received.check(&world.flows.unread(flow)[..1000]);
    world.flows.consume(flow, 1000, world.now);
    world.wait(Duration::from_secs(300));
    world.far.get_mut(&flow).unwrap().reads = true;
    world.read(flow);
    world.serve();
    assert_eq!(world.far[&flow].received.at, MIB / 2);
    assert!(world.far[&flow].heard_end);
    assert_eq!(world.closed, [(flow, false)]);
}

#[test]
fn a_far_end_that_does_not_read_stops_the_guest_and_then_gets_all() {
    let mut world = World::new(65_520);
    let client = world.guest.connect(FAR_V4, BUFFER, 8 * MIB);
    world.settle();
    world.accept(|| Far {
        reads: false,
        ..Far::default()
    });
    world.wait(Duration::from_secs(120));
    assert!(world.guest.clients[client].sent.at <= 2 * BUFFER as u64);
    let flow = *world.far.keys().next().unwrap();
    world.far.get_mut(&flow).unwrap().reads = true;
    world.read(flow);
    world.run(WHILE, |world| !world.closed.is_empty());
    assert_eq!(world.far[&flow].received.at, 8 * MIB);
}

#[test]
fn a_guest_that_does_not_read_stops_the_far_end_and_then_gets_all() {
    let mut world = World::new(65_520);
    let client = world.guest.connect(FAR_V4, 64 * 1024, 0);
    world.guest.clients[client].reads = false;
    world.settle();
    world.accept(far(8 * MIB));
    world.wait(Duration::from_secs(3000));
    let flow = *world.far.keys().next().unwrap();
    assert!(world.far[&flow].sent.at <= (BUFFER + 64 * 1024) as u64);
    world.guest.clients[client].reads = true;
    world.run(WHILE, |world| !world.closed.is_empty());
    assert_eq!(world.guest.clients[client].received.at, 8 * MIB);
}

#[test]
fn a_guest_that_said_its_end_and_reads_late_does_not_wait_for_a_timer() {
    let mut world = World::new(65_520);
    let client = world.guest.connect(FAR_V4, 64 * 1024, 0);
    world.guest.clients[client].reads = false;
    world.settle();
    world.accept(far(MIB / 2));
    world.wait(Duration::from_millis(10));
    world.guest.clients[client].reads = true;
    let start = world.now;
    world.run(WHILE, |world| !world.closed.is_empty());
    assert_eq!(world.guest.clients[client].received.at, MIB / 2);
    assert!(
        world.now - start < Duration::from_millis(100),
        "{:?}",
        world.now - start
    );
}

#[test]
fn a_far_end_that_reads_a_little_at_a_time_gets_all_in_good_time() {
    let mut world = World::new(65_520);
    world.guest.connect(FAR_V4, BUFFER, 4 * MIB);
    world.settle();
    world.accept(|| Far {
        reads: false,
        ..Far::default()
    });
    let start = world.now;
    world.settle();
    let flow = *world.far.keys().next().unwrap();
    while !world.far[&flow].heard_end {
        // An odd number, so that windows end anywhere.
        let far = world.far.get_mut(&flow).unwrap();
        let unread = world.flows.unread(flow);
        let count = unread.len().min(7_777);
        far.received.check(&unread[..count]);
        world.flows.consume(flow, count, world.now);
        far.heard_end = world.flows.guest_finished(flow);
        world.wait(Duration::from_millis(1));
    }
    assert_eq!(world.far[&flow].received.at, 4 * MIB);
    // A millisecond a piece, and not one retransmission.
    assert!(
        world.now - start < Duration::from_millis(600),
        "{:?}",
        world.now - start
    );
}

#[test]
fn the_guests_reset_breaks_the_flow_at_once_whatever_is_unread() {
    let mut world = World::new(65_520);
    let client = world.guest.connect(FAR_V4, BUFFER, 1000);
    world.guest.clients[client].finishes = false;
    world.settle();
    world.accept(|| Far {
        reads: false,
        ..Far::default()
    });
    world.settle();
    world.guest.socket(client).abort();
    world.settle();
    let flow = *world.far.keys().next().unwrap();
    assert_eq!(world.closed, [(flow, true)]);
    assert!(world.flows.unread(flow).is_empty());
    assert!(world.flows.room(flow).is_empty());
}
