//! Whatever comes, nothing panics, and nothing grows.

use proptest::prelude::*;

use super::*;
use crate::limits::{MAX_EVENTS, MAX_FLOWS, MAX_QUESTIONS, MAX_REPLIES};

/// Frames of every kind that is answered, to be damaged.
fn valid() -> Vec<Vec<u8>> {
    use hickory_proto::rr::RecordType;
    let mut syn = vec![
        0x9c, 0x40, 0, 53, 0, 0, 0, 9, 0, 0, 0, 0, 0x60, 2, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 5, 0xb4,
    ];
    let to_resolver = ip(to(GATEWAY_V4), IpProtocol::Tcp, &syn);
    syn[3] = 80;
    let dhcp = [
        [1, 1, 6, 0].as_slice(),
        &[0; 232],
        &[
            0x63, 0x82, 0x53, 0x63, 53, 1, 1, 50, 4, 198, 18, 0, 2, 61, 3, 1, 2, 3, 255,
        ],
    ]
    .concat();
    let everybody = Ends::V4 {
        source: Ipv4Addr::UNSPECIFIED,
        destination: Ipv4Addr::BROADCAST,
    };
    let neighbor = [
        &[135, 0, 0, 0, 0, 0, 0, 0],
        GATEWAY_V6.octets().as_slice(),
        &[1, 1, 2, 0, 0, 0, 0, 0],
    ]
    .concat();
    let arp = [
        &[0, 1, 8, 0, 6, 4, 0, 1],
        GUEST_MAC.as_slice(),
        &GUEST_V4.octets(),
        &[0; 6],
        &GATEWAY_V4.octets(),
    ];
    vec![
        dns::ask("www.example.com", RecordType::A),
        dns::ask("1.1.18.198.in-addr.arpa", RecordType::PTR),
        ping(to(GATEWAY_V4), &[1; 32]),
        ping(to(GATEWAY_V6), &[1; 32]),
        udp(v4("192.0.2.1"), 443, &[1; 32]),
        udp(v6("2001:db8::1"), 443, &[1; 32]),
        from_guest(udp_packet(EthernetAddress::BROADCAST, everybody, (68, 67), &dhcp).unwrap()),
        ip(v6("ff02::1:ff00:1"), IpProtocol::Icmpv6, &neighbor),
        ip(v6("ff02::2"), IpProtocol::Icmpv6, &[133, 0, 0, 0, 0, 0, 0, 0]),
        ethernet(0x0806, &arp.concat()),
        to_resolver,
        ip(v4("192.0.2.1"), IpProtocol::Tcp, &syn),
        ip(v6("2001:db8::1"), IpProtocol::Tcp, &syn),
    ]
}

#[test]
fn the_valid_frames_are_valid() {
    for frame in valid() {
        let mut cable = Cable::new();
        cable.send(&frame);
        let is_known = !cable.frames().is_empty()
            || matches!(cable.events()[..], [Event::Name { .. } | Event::Open { .. }]);
        assert!(is_known, "{frame:?}");
    }
}

#[derive(Clone, Debug)]
enum Damage {
    Byte(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
}

fn damage() -> impl Strategy<Value = Damage> {
    let bytes = prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        6 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, to)| Damage::Byte(at, to)),
        1 => any::<prop::sample::Index>().prop_map(Damage::Cut),
        1 => (any::<prop::sample::Index>(), bytes).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
    ]
}

impl Damage {
    fn apply(&self, frame: &mut Vec<u8>) {
        let length = frame.len();
        match self {
            _ if length == 0 => {}
            Damage::Byte(at, to) => frame[at.index(length)] = *to,
            Damage::Cut(at) => frame.truncate(at.index(length)),
            Damage::Insert(at, bytes) => {
                let at = at.index(length);
                frame.splice(at..at, bytes.iter().copied());
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Frame(Vec<u8>),
    Damaged(prop::sample::Index, Vec<Damage>),
    Pass(u64),
    /// Fetch events and frames, and answer in this way.
    Drive(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![Just(0x0800_u16), Just(0x86dd), Just(0x0806), any::<u16>()];
    let content = prop::collection::vec(any::<u8>(), 0..120);
    prop_oneof![
        2 => (kind, content).prop_map(|(kind, content)| Step::Frame(ethernet(kind, &content))),
        1 => prop::collection::vec(any::<u8>(), 0..100).prop_map(Step::Frame),
        10 => (any::<prop::sample::Index>(), prop::collection::vec(damage(), 0..4))
            .prop_map(|(which, damage)| Step::Damaged(which, damage)),
        1 => (0_u64..20_000).prop_map(Step::Pass),
        3 => any::<bool>().prop_map(Step::Drive),
    ]
}

impl Cable {
    fn step(&mut self, step: &Step, valid: &[Vec<u8>]) {
        match step {
            Step::Frame(frame) => self.send(frame),
            Step::Damaged(which, damage) => {
                let mut frame = valid[which.index(valid.len())].clone();
                damage.iter().for_each(|damage| damage.apply(&mut frame));
                self.send(&frame);
            }
            Step::Pass(time) => self.pass(Duration::from_millis(*time)),
            Step::Drive(allowed) => self.drive(*allowed),
        }
    }

    fn drive(&mut self, allowed: bool) {
        for event in self.events() {
            match event {
                Event::Name { query, .. } => self.stack.name_decided(query, allowed, self.now),
                Event::Open { flow, .. } if allowed => self.stack.accept(flow, self.now),
                Event::Open { flow, .. } => self.stack.refuse(flow, self.now),
                _ => {}
            }
        }
        for frame in self.frames() {
            let frame = smoltcp::wire::EthernetFrame::new_checked(frame).unwrap();
            assert_eq!(frame.src_addr(), EthernetAddress(GATEWAY_MAC));
        }
    }
}

proptest! {
    #[test]
    fn nothing_panics_and_nothing_grows(steps in prop::collection::vec(step(), 0..200)) {
        let mut cable = Cable::new();
        let valid = valid();
        for step in &steps {
            cable.step(step, &valid);
        }
        prop_assert!(cable.stack.events.len() <= MAX_EVENTS);
        prop_assert!(cable.stack.told.len() <= MAX_FLOWS);
        let names = cable.stack.events.iter().filter(|event| matches!(event, Event::Name { .. })).count();
        prop_assert!(names <= MAX_QUESTIONS);
        let mut frame = Vec::new();
        let mut count = 0;
        while cable.stack.transmit(&mut frame, cable.now) {
            count += 1;
        }
        prop_assert!(count <= MAX_REPLIES + 4 * MAX_FLOWS);
        // In the end all is forgotten.
        for _ in 0..200 {
            cable.pass(Duration::from_secs(30));
            cable.drive(false);
        }
        prop_assert_eq!(cable.stack.deadline(), None);
        prop_assert!(cable.stack.told.is_empty());
    }
}
