//! How fast the stack alone is: a guest (another smoltcp) and far ends in the same process, no I/O, no copies but the
//! stack's and the guest's own.
//!
//! `cargo run --release -p user-net --example stack-bench`. "alone" counts only the time spent in the stack, which is
//! what a machine's network thread has to spend; "with guest" is the clock on the wall.

use std::{
    collections::VecDeque,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp::{Socket, SocketBuffer},
    wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr},
};
use user_net::{
    Event, FlowId, Offloads, Stack,
    addresses::{GATEWAY_V4, GUEST_MAC, GUEST_V4, MTU, PREFIX_V4},
};

const BYTES: u64 = 4 << 30;
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const ETHERNET_HEADER: usize = 14;

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Up,
    Down,
    Neither,
}

fn main() {
    println!("{:<34} {:>12} {:>12}", "", "alone", "with guest");
    for (mtu, flows) in [(usize::from(MTU), 1), (usize::from(MTU), 64), (1500, 1)] {
        for (way, name) in [(Way::Up, "from"), (Way::Down, "to")] {
            let mut bench = Bench::new(mtu, way);
            let wall = bench.run(flows);
            let title = format!("{flows} flows {name} the guest, MTU {mtu}");
            println!(
                "{title:<34} {:>7.1} Gb/s {:>7.1} Gb/s",
                rate(bench.spent),
                rate(wall)
            );
        }
    }
    let (opened, refused) = Bench::new(usize::from(MTU), Way::Neither).connect_many();
    println!("a connection, opened and ended: {opened:?}; refused: {refused:?} (alone)");
}

fn rate(time: Duration) -> f64 {
    BYTES as f64 * 8.0 / 1e9 / time.as_secs_f64()
}

struct Bench {
    stack: Stack,
    guest: Interface,
    sockets: SocketSet<'static>,
    handles: Vec<SocketHandle>,
    cable: Cable,
    way: Way,
    start: Instant,
    spent: Duration,
    moved: u64,
    refuses: bool,
    /// Frames are used again, as rings are.
    spare: Vec<Vec<u8>>,
}

impl Bench {
    fn new(mtu: usize, way: Way) -> Self {
        let start = Instant::now();
        let offloads = Offloads {
            receives_without_checksum: true,
        };
        let mut cable = Cable {
            mtu: mtu + ETHERNET_HEADER,
            ..Cable::default()
        };
        let config = Config::new(HardwareAddress::Ethernet(EthernetAddress(GUEST_MAC)));
        let mut guest = Interface::new(config, &mut cable, smoltcp::time::Instant::ZERO);
        guest.update_ip_addrs(|addresses| {
            let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(GUEST_V4), PREFIX_V4));
        });
        let _ = guest.routes_mut().add_default_ipv4_route(GATEWAY_V4);
        Bench {
            stack: Stack::new(offloads, start),
            guest,
            sockets: SocketSet::new(Vec::new()),
            handles: Vec::new(),
            cable,
            way,
            start,
            spent: Duration::ZERO,
            moved: 0,
            refuses: false,
            spare: Vec::new(),
        }
    }

    fn run(&mut self, flows: u16) -> Duration {
        (0..flows).for_each(|n| self.connect(10_000 + n));
        let started = Instant::now();
        while self.moved < BYTES {
            self.turn();
        }
        started.elapsed()
    }

    fn connect_many(&mut self) -> (Duration, Duration) {
        const MANY: u16 = 2000;
        let mut took = [Duration::ZERO; 2];
        for (refuses, took) in [false, true].into_iter().zip(&mut took) {
            self.refuses = refuses;
            let before = self.spent;
            for port in 0..MANY {
                self.connect(10_000 + port);
                (0..4).for_each(|_| self.turn());
                if let Some(handle) = self.handles.pop() {
                    self.sockets.get_mut::<Socket<'_>>(handle).abort();
                    (0..2).for_each(|_| self.turn());
                    self.sockets.remove(handle);
                }
            }
            *took = (self.spent - before) / u32::from(MANY);
        }
        (took[0], took[1])
    }

    fn connect(&mut self, port: u16) {
        let empty = || SocketBuffer::new(vec![0; 1 << 20]);
        let mut socket = Socket::new(empty(), empty());
        socket.set_ack_delay(None);
        socket.set_nagle_enabled(false);
        socket
            .connect(self.guest.context(), (IpAddress::Ipv4(FAR), 443), port)
            .ok();
        self.handles.push(self.sockets.add(socket));
    }

    fn turn(&mut self) {
        let micros = i64::try_from(self.start.elapsed().as_micros()).unwrap_or(i64::MAX);
        let now = smoltcp::time::Instant::from_micros(micros);
        self.guest.poll(now, &mut self.cable, &mut self.sockets);
        for handle in &self.handles {
            let socket = self.sockets.get_mut::<Socket<'_>>(*handle);
            while socket.can_recv() {
                let took = socket.recv(|bytes| (bytes.len(), bytes.len())).unwrap_or(0);
                self.moved += took as u64;
            }
            while self.way == Way::Up && socket.can_send() {
                let _ = socket.send(|space| (space.len(), ()));
            }
        }
        self.guest.poll(now, &mut self.cable, &mut self.sockets);
        let before = Instant::now();
        self.serve(before);
        self.spent += before.elapsed();
    }

    fn serve(&mut self, now: Instant) {
        while let Some(frame) = self.cable.to_us.pop_front() {
            self.stack.receive(&frame, now);
            self.cable.spare.push(frame);
        }
        while let Some(event) = self.stack.next_event() {
            match event {
                Event::Open { flow, .. } if self.refuses => self.stack.refuse(flow, now),
                Event::Open { flow, .. } => self.stack.accept(flow, now),
                Event::Readable(flow) => self.drain(flow, now),
                Event::Writable(flow) => self.fill(flow, now),
                _ => {}
            }
        }
        self.stack.expire(now);
        let mut frame = self.spare.pop().unwrap_or_default();
        while self.stack.transmit(&mut frame, now) {
            self.cable.to_guest.push_back(frame);
            frame = self.cable.used.pop().unwrap_or_default();
            frame.clear();
        }
        self.spare.push(frame);
    }

    fn drain(&mut self, flow: FlowId, now: Instant) {
        loop {
            let count = self.stack.unread(flow).len();
            if count == 0 {
                return;
            }
            self.moved += count as u64;
            self.stack.consume(flow, count, now);
        }
    }

    fn fill(&mut self, flow: FlowId, now: Instant) {
        while self.way == Way::Down {
            let count = self.stack.room(flow).len();
            if count == 0 {
                return;
            }
            self.stack.produced(flow, count, now);
        }
    }
}

#[derive(Default)]
struct Cable {
    to_us: VecDeque<Vec<u8>>,
    to_guest: VecDeque<Vec<u8>>,
    /// Frames the stack has read, and frames the guest has.
    spare: Vec<Vec<u8>>,
    used: Vec<Vec<u8>>,
    mtu: usize,
}

impl Device for Cable {
    type RxToken<'t> = Frame<'t>;
    type TxToken<'t> = Space<'t>;

    fn receive(&mut self, _now: smoltcp::time::Instant) -> Option<(Frame<'_>, Space<'_>)> {
        let frame = self.to_guest.pop_front()?;
        let space = Space {
            to_us: &mut self.to_us,
            spare: &mut self.spare,
        };
        let used = &mut self.used;
        Some((Frame { frame, used }, space))
    }

    fn transmit(&mut self, _now: smoltcp::time::Instant) -> Option<Space<'_>> {
        Some(Space {
            to_us: &mut self.to_us,
            spare: &mut self.spare,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu;
        capabilities.checksum = ChecksumCapabilities::ignored();
        capabilities
    }
}

struct Frame<'a> {
    frame: Vec<u8>,
    used: &'a mut Vec<Vec<u8>>,
}

impl RxToken for Frame<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        let result = read(&self.frame);
        self.used.push(self.frame);
        result
    }
}

struct Space<'a> {
    to_us: &'a mut VecDeque<Vec<u8>>,
    spare: &'a mut Vec<Vec<u8>>,
}

impl TxToken for Space<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut frame = self.spare.pop().unwrap_or_default();
        frame.clear();
        frame.resize(length, 0);
        let result = write(&mut frame);
        self.to_us.push_back(frame);
        result
    }
}
