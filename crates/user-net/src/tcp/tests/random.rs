//! Whatever comes, nothing panics and the stream is the guest's stream.

use std::time::Duration;

use proptest::{collection::vec, prelude::*};

use super::{
    by_hand::{ACK, FIN, FIRST, Hand, PSH, RST, SYN, Said, URG},
    world::{Stream, pattern},
};
use crate::{FlowId, tcp::FlowEvent};

#[derive(Clone, Copy, Debug)]
enum Step {
    /// `off` from what the guest would say next.
    Say {
        flags: u8,
        off: i32,
        ack_off: i32,
        window: u16,
        length: usize,
    },
    Read(usize),
    Write(usize),
    Take(usize),
    Wait(u64),
    Finish,
}

fn step() -> impl Strategy<Value = Step> {
    let flags = prop_oneof![
        20 => Just(ACK),
        5 => Just(ACK | PSH),
        1 => Just(ACK | FIN),
        1 => Just(ACK | URG),
        1 => Just(SYN),
        1 => Just(SYN | ACK),
        1 => Just(RST),
        1 => any::<u8>().prop_map(|flags| flags & 0x3f),
    ];
    let off = prop_oneof![
        20 => Just(0),
        10 => -70_000..70_000_i32,
        5 => -5..5_i32,
        5 => Just(1 << 20),
        5 => (1 << 20) - 70_000..(1 << 20) + 70_000_i32,
        2 => (1 << 30) - 2..(1 << 30) + 2_i32,
        2 => i32::MAX - 2..i32::MAX,
        2 => any::<i32>(),
    ];
    let ack_off = prop_oneof![20 => Just(0), 5 => -70_000..70_000_i32, 1 => any::<i32>()];
    let window = prop_oneof![5 => Just(1000_u16), 2 => Just(0), 1 => Just(1), 1 => any::<u16>()];
    let length =
        prop_oneof![2 => Just(0), 2 => 1..10_usize, 2 => 1000..3000_usize, 3 => 60_000..65_400_usize];
    let say =
        (flags, off, ack_off, window, length).prop_map(|(flags, off, ack_off, window, length)| Step::Say {
            flags,
            off,
            ack_off,
            window,
            length,
        });
    prop_oneof![
        20 => say,
        2 => (1..200_000_usize).prop_map(Step::Read),
        2 => (1..2_000_000_usize).prop_map(Step::Write),
        4 => (1..40_usize).prop_map(Step::Take),
        1 => (0..100_000_u64).prop_map(Step::Wait),
        1 => Just(Step::Finish),
    ]
}

struct Run {
    hand: Hand,
    flow: FlowId,
    pattern: Vec<u8>,
    read: Stream,
    ended: bool,
}

impl Run {
    fn new() -> Self {
        let (hand, flow) = Hand::open();
        Run {
            hand,
            flow,
            pattern: pattern(),
            read: Stream::new(),
            ended: false,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Say {
                flags,
                off,
                ack_off,
                window,
                length,
            } => self.say((flags, window), off, ack_off, length),
            Step::Read(count) => self.read(count),
            Step::Write(count) => {
                self.hand.write(self.flow, &vec![9; count]);
            }
            Step::Take(count) => self.hear(count),
            Step::Wait(millis) => self.hand.wait(Duration::from_millis(millis)),
            Step::Finish => self.hand.flows.finish(self.flow, self.hand.now),
        }
        for event in self.hand.events() {
            self.ended |= matches!(event, FlowEvent::Closed { .. });
        }
    }

    /// The bytes of the stream that stand at this sequence number, wherever it is.
    fn say(&mut self, (flags, window): (u8, u16), off: i32, ack_off: i32, length: usize) {
        let seq = self.hand.seq.wrapping_add_signed(off);
        let at = i64::from(seq.wrapping_sub(FIRST.wrapping_add(1)).cast_signed());
        let period = self.pattern.len() as i64;
        let byte = |n: usize| self.pattern[usize::try_from((at + n as i64).rem_euclid(period)).unwrap()];
        let payload: Vec<u8> = (0..length).map(byte).collect();
        let said = Said {
            port: self.hand.port,
            flags,
            seq,
            ack: self.hand.ack.wrapping_add_signed(ack_off),
            window,
            payload: &payload,
        };
        self.hand.say_exactly(&said);
        if off == 0 && flags & (SYN | RST) == 0 {
            self.hand.seq = seq.wrapping_add(u32::try_from(length).unwrap());
        }
    }

    fn read(&mut self, count: usize) {
        let unread = self.hand.flows.unread(self.flow);
        let count = count.min(unread.len());
        self.read.check(&unread[..count]);
        self.hand.flows.consume(self.flow, count, self.hand.now);
    }

    fn hear(&mut self, count: usize) {
        let mut packet = Vec::new();
        for _ in 0..count {
            packet.clear();
            if !self.hand.flows.transmit(&mut packet, self.hand.now) {
                return;
            }
            let heard = super::by_hand::Heard::read(&packet);
            let length = u32::try_from(heard.payload.len()).unwrap();
            let end = heard
                .seq
                .wrapping_add(length)
                .wrapping_add(u32::from(heard.flags & FIN));
            if end.wrapping_sub(self.hand.ack).cast_signed() > 0 && heard.flags & RST == 0 {
                self.hand.ack = end;
            }
            // Where it says it is, unless it was led astray.
            if heard.flags & ACK != 0 && heard.flags & RST == 0 {
                self.hand.seq = heard.ack;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn random_segments_around_a_flow_never_panic_and_never_change_its_stream(steps in vec(step(), 1..60)) {
        let mut run = Run::new();
        for step in steps {
            run.take(step);
            prop_assert!(run.hand.flows.flows.len() < 5);
            // Whatever happened, it comes to rest.
            run.hear(2000);
            prop_assert!(!run.hand.flows.transmit(&mut Vec::new(), run.hand.now), "it never stops talking");
        }
        run.read(usize::MAX);
    }

    #[test]
    fn random_bytes_never_panic(packet in vec(any::<u8>(), 0..200)) {
        let (mut hand, _) = Hand::open();
        hand.flows.receive(&packet, hand.now);
        hand.hear();
    }

    #[test]
    fn a_packet_with_random_changes_never_panics(
        changes in vec((0..90_usize, any::<u8>()), 1..6),
        flags in any::<u8>(),
    ) {
        let (mut hand, _) = Hand::open();
        let said = Said {
            port: hand.port,
            flags: flags & 0x3f,
            seq: hand.seq,
            ack: hand.ack,
            window: 1000,
            payload: b"forty bytes of payload, more or less....",
        };
        let mut packet = said.packet();
        for (at, byte) in changes {
            if let Some(place) = packet.get_mut(at) {
                *place = byte;
            }
        }
        hand.flows.receive(&packet, hand.now);
        hand.events();
        hand.hear();
    }
}
