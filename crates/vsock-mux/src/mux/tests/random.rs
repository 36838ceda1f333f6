use proptest::prelude::*;

use super::*;
use crate::limits::{MAX_LOOSE_RESETS, WIDE_WINDOW};

#[derive(Clone, Debug)]
enum Step {
    Packet(Header, usize),
    Accept,
    HostWrites(usize),
    HostReads,
    HostShuts(bool),
    HostCloses,
    Ready,
    Deliver,
    Wait(u64),
}

const PORTS: u32 = 3;

fn any_header() -> impl Strategy<Value = Header> {
    let numbers = (0..PORTS, 0u16..9, 0u32..5, 0u32..100_000);
    let odd = prop::bool::weighted(0.05);
    let credit = (
        prop_oneof![Just(262_144u32), any::<u32>(), 0u32..100],
        prop_oneof![Just(0u32), 0u32..1_000, any::<u32>()],
    );
    (numbers, (odd, odd, odd), credit).prop_map(
        |((port, op, flags, len), (cid, target, kind), (buf_alloc, fwd_cnt))| Header {
            source: Address {
                cid: if cid { 9 } else { 3 },
                port,
            },
            target: Address {
                cid: 2,
                port: PORT + u32::from(target),
            },
            len: if op == DATA { len } else { 0 },
            kind: 1 + u16::from(kind),
            op,
            flags,
            buf_alloc,
            fwd_cnt,
        },
    )
}

fn request() -> impl Strategy<Value = Step> {
    (0..PORTS).prop_map(|port| {
        let header = Header {
            source: Address { cid: 3, port },
            target: Address { cid: 2, port: PORT },
            kind: 1,
            op: REQUEST,
            buf_alloc: 262_144,
            ..Header::default()
        };
        Step::Packet(header, 0)
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any_header(), 0usize..100_000).prop_map(|(header, available)| Step::Packet(header, available)),
        3 => request(),
        2 => Just(Step::Accept),
        1 => (0usize..100_000).prop_map(Step::HostWrites),
        1 => Just(Step::HostReads),
        1 => any::<bool>().prop_map(Step::HostShuts),
        1 => Just(Step::HostCloses),
        3 => Just(Step::Ready),
        2 => Just(Step::Deliver),
        1 => (0u64..20_000).prop_map(Step::Wait),
    ]
}

impl Bench {
    fn take(&mut self, step: &Step, hosts: &mut Vec<UnixStream>) {
        match *step {
            Step::Packet(ref header, available) => self.packet(header, available),
            Step::Accept => {
                if let Ok((stream, _)) = self.listener.accept() {
                    stream.set_nonblocking(true).unwrap();
                    hosts.push(stream);
                }
            }
            Step::HostWrites(len) => {
                let _ = hosts.first_mut().map(|host| host.write(&vec![1; len]));
            }
            Step::HostReads => {
                let _ = hosts.first_mut().map(|host| host.read(&mut vec![0; 1 << 18]));
            }
            Step::HostShuts(read) => {
                let how = if read { Shutdown::Read } else { Shutdown::Write };
                let _ = hosts.first().map(|host| host.shutdown(how));
            }
            Step::HostCloses => drop(hosts.pop()),
            Step::Ready => self.ready(),
            Step::Deliver => {
                self.packets();
                while let Some(pair) = self.mux.next_in_line() {
                    self.pull(pair.guest);
                }
            }
            Step::Wait(millis) => drop(self.later(Duration::from_millis(millis))),
        }
    }

    fn packet(&mut self, header: &Header, available: usize) {
        if let Ok(Received::Data { pair, len }) = self.mux.receive(header, available, self.now) {
            assert!(len <= available);
            self.mux.write(pair, &Plain(&vec![7; len]), self.now);
        }
    }

    /// Every socket is reported as everything it could be.
    fn ready(&mut self) {
        for port in 0..PORTS {
            self.mux.writable(pair(port), self.now);
            self.pull(port);
            self.mux.hung_up(pair(port), self.now);
        }
    }

    /// The host leaves, the guest takes all its packets, and time passes.
    fn end(&mut self, mut hosts: Vec<UnixStream>) {
        hosts.clear();
        for _ in 0..3 {
            while self.listener.accept().is_ok() {}
            self.later(Duration::from_secs(1));
            self.packets();
            for port in 0..PORTS {
                while !self.pull(port).is_empty() {}
            }
            self.ready();
        }
        self.later(CLOSE_TIMEOUT);
        self.packets();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_sequence_of_packets_breaks_the_bounds(steps in prop::collection::vec(step(), 1..120)) {
        let mut bench = Bench::new();
        bench.listener.set_nonblocking(true).unwrap();
        let mut hosts = Vec::new();
        for step in steps {
            bench.take(&step, &mut hosts);
            bench.mux.settle(&mut Forgetful).unwrap();
            let connections = bench.mux.connections();
            prop_assert!(connections <= PORTS as usize);
            prop_assert!(bench.mux.held() <= connections * WIDE_WINDOW as usize);
            prop_assert!(bench.mux.outbox.len() <= connections);
            prop_assert!(bench.mux.line.len() <= connections);
            prop_assert!(bench.mux.loose_resets.len() <= MAX_LOOSE_RESETS);
            prop_assert!(bench.mux.touched.is_empty());
        }
        bench.end(hosts);
        for connection in bench.mux.connections.values() {
            // A host that left with bytes for a guest that gives no credit waits for it.
            prop_assert!(connection.state().is_down_open() && connection.quota() == 0, "{:?}", connection);
        }
    }
}

/// Sockets come and go under one pair here, so what was watched before says nothing.
struct Forgetful;

impl Watch for Forgetful {
    type Error = Infallible;

    fn watch(
        &mut self,
        _socket: BorrowedFd<'_>,
        _pair: Pair,
        before: Option<Interest>,
        after: Option<Interest>,
    ) -> Result<(), Infallible> {
        assert_ne!(before, after);
        Ok(())
    }
}
