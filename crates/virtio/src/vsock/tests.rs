use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
};

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vsock_mux::{Address, HEADER_LEN, Header};

use super::*;
use crate::testing::{
    KeptFailures,
    driver::{DriverQueue, Piece, guest_memory, readable, writable},
    hostile,
};

const GUEST: u32 = 3;
const PORT: u32 = 1024;
const REQUEST: u16 = 1;
const RESPONSE: u16 = 2;
const RESET: u16 = 3;
const SHUTDOWN: u16 = 4;
const DATA: u16 = 5;
const CREDIT_UPDATE: u16 = 6;

const RX_BASE: u64 = 0;
const TX_BASE: u64 = 0x8000;
const EVENT_BASE: u64 = 0x10000;
const RX_BUFFERS: u64 = 0x10_0000;
const TX_BUFFERS: u64 = 0x20_0000;
/// Room of each receive and transmit buffer in memory.
const RX_STRIDE: u64 = 0x2000;
const TX_STRIDE: u64 = 0x2_0000;
const RX_SIZE: u16 = 64;
const TX_SIZE: u16 = 16;
const RAM: usize = 0x50_0000;

/// A guest's driver, its device, and the host's listener.
struct Machine {
    memory: Arc<GuestMemoryMmap>,
    rx: DriverQueue,
    tx: DriverQueue,
    event: DriverQueue,
    listener: UnixListener,
    device: Vsock,
    sent: u64,
    offered: u16,
    /// Bytes of data the guest took.
    taken: u32,
    _dir: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let memory = guest_memory(RAM);
        let dir = tempfile::tempdir().unwrap();
        let config = VsockConfig {
            guest_cid: GUEST,
            socket: dir.path().join("vsock"),
            ports: vec![PORT],
        };
        let mut machine = Machine {
            rx: DriverQueue::new(&memory, RX_BASE, RX_SIZE),
            tx: DriverQueue::new(&memory, TX_BASE, TX_SIZE),
            event: DriverQueue::new(&memory, EVENT_BASE, 16),
            memory,
            listener: UnixListener::bind(dir.path().join(format!("vsock_{PORT}"))).unwrap(),
            device: Vsock::new(&config).unwrap(),
            sent: 0,
            offered: 0,
            taken: 0,
            _dir: dir,
        };
        machine
            .device
            .activate(Activation {
                memory: Arc::clone(&machine.memory),
                features: 0,
                queues: vec![machine.rx.device(), machine.tx.device(), machine.event.device()],
                config_changed: Arc::new(crate::testing::CountedInterrupt::default()),
                failures: Arc::new(KeptFailures::default()),
            })
            .unwrap();
        machine
    }

    /// With `count` receive buffers of a page behind the header, as a Linux guest offers.
    fn with_buffers(count: u16) -> Self {
        let mut machine = Machine::new();
        for _ in 0..count {
            machine.offer(HEADER_LEN as u32 + 4096);
        }
        machine.rx.kick();
        machine
    }

    /// Each buffer lies where the number of its descriptor says.
    fn offer(&mut self, len: u32) {
        let at = RX_BUFFERS + u64::from(self.offered) * RX_STRIDE;
        assert_eq!(self.rx.offer(&[writable(at, len)]), self.offered);
        self.offered = (self.offered + 1) % RX_SIZE;
    }

    fn header(&self, op: u16) -> Header {
        Header {
            source: Address {
                cid: GUEST.into(),
                port: 7,
            },
            target: Address { cid: 2, port: PORT },
            kind: 1,
            op,
            buf_alloc: 256 * 1024,
            fwd_cnt: self.taken,
            ..Header::default()
        }
    }

    /// Sends a packet in two pieces, waits until it was taken.
    fn send(&mut self, header: Header, payload: &[u8]) {
        let at = TX_BUFFERS + self.sent % 16 * TX_STRIDE;
        self.sent += 1;
        self.memory
            .write_slice(&header.encode(), GuestAddress(at))
            .unwrap();
        self.memory
            .write_slice(payload, GuestAddress(at + 0x100))
            .unwrap();
        let mut pieces = vec![readable(at, HEADER_LEN as u32)];
        if !payload.is_empty() {
            pieces.push(readable(at + 0x100, payload.len() as u32));
        }
        self.send_chain(&pieces);
    }

    fn send_chain(&mut self, pieces: &[Piece]) {
        let seen = self.tx.interrupt.count();
        self.tx.offer(pieces);
        self.tx.kick();
        self.tx.interrupt.wait_for(seen + 1);
        assert!(self.tx.used().is_some());
    }

    fn data(&mut self, payload: &[u8]) {
        let header = Header {
            len: payload.len() as u32,
            ..self.header(DATA)
        };
        self.send(header, payload);
    }

    /// The next packet for the guest; its buffer is offered again.
    fn packet(&mut self) -> (Header, Vec<u8>) {
        let (head, written) = loop {
            let seen = self.rx.interrupt.count();
            match self.rx.used() {
                Some(used) => break used,
                None => self.rx.interrupt.wait_for(seen + 1),
            }
        };
        let at = RX_BUFFERS + u64::from(head) * RX_STRIDE;
        let mut bytes = vec![0; written as usize];
        self.memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        self.offer(HEADER_LEN as u32 + 4096);
        self.rx.kick();
        let payload = bytes.split_off(HEADER_LEN);
        let header = Header::decode(&bytes.try_into().unwrap());
        assert_eq!(header.len as usize, payload.len());
        self.taken = self.taken.wrapping_add(header.len);
        (header, payload)
    }

    fn dial(&mut self) -> UnixStream {
        self.send(self.header(REQUEST), &[]);
        assert_eq!(self.packet().0.op, RESPONSE);
        self.listener.accept().unwrap().0
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7 % 251) as u8).collect()
}

#[test]
fn the_configuration_is_the_guests_cid() {
    let machine = Machine::new();
    let mut cid = [0xff; 12];
    machine.device.read_config(0, &mut cid);
    assert_eq!(cid, [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_config_that_cannot_work_is_refused() {
    let config = VsockConfig {
        guest_cid: 2,
        socket: "/s".into(),
        ports: vec![PORT],
    };
    assert!(Vsock::new(&config).is_err());
}

#[test]
fn bytes_go_both_ways() {
    let mut machine = Machine::with_buffers(RX_SIZE);
    let mut host = machine.dial();
    machine.data(b"ping");
    let mut heard = [0; 4];
    host.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"ping");
    host.write_all(b"pong").unwrap();
    let (header, payload) = machine.packet();
    assert_eq!((header.op, &payload[..]), (DATA, &b"pong"[..]));
    assert_eq!(header.fwd_cnt, 4);
}

#[test]
fn a_long_stream_to_the_host_arrives_whole() {
    let mut machine = Machine::with_buffers(RX_SIZE);
    let mut host = machine.dial();
    let bytes = pattern(3_000_000);
    let expected = bytes.clone();
    let reader = std::thread::spawn(move || {
        let mut heard = Vec::new();
        host.read_to_end(&mut heard).unwrap();
        assert!(heard == expected);
    });
    let (window, mut delivered, mut sent) = (256 * 1024, 0, 0);
    for chunk in bytes.chunks(50_000) {
        while sent + chunk.len() > delivered + window {
            let (header, _) = machine.packet();
            assert_eq!(header.op, CREDIT_UPDATE);
            delivered = header.fwd_cnt as usize;
        }
        machine.data(chunk);
        sent += chunk.len();
    }
    let header = Header {
        flags: 3,
        ..machine.header(SHUTDOWN)
    };
    machine.send(header, &[]);
    while machine.packet().0.op != RESET {}
    reader.join().unwrap();
}

#[test]
fn a_long_stream_to_the_guest_arrives_whole_and_then_ends() {
    let mut machine = Machine::with_buffers(RX_SIZE);
    let mut host = machine.dial();
    let bytes = pattern(3_000_000);
    let expected = bytes.clone();
    let writer = std::thread::spawn(move || host.write_all(&bytes).unwrap());
    let mut heard = Vec::new();
    let mut told = 0;
    loop {
        let (header, payload) = machine.packet();
        heard.extend_from_slice(&payload);
        if header.op == SHUTDOWN {
            assert_eq!(header.flags, 3);
            break;
        }
        if machine.taken - told > 128 * 1024 {
            told = machine.taken;
            machine.send(machine.header(CREDIT_UPDATE), &[]);
        }
    }
    assert!(heard == expected);
    writer.join().unwrap();
}

#[test]
fn a_guest_without_receive_buffers_can_still_send_and_is_answered_once_it_has_some() {
    let mut machine = Machine::with_buffers(1);
    let mut first = machine.dial();
    assert_eq!(machine.rx.used(), None);
    let other = Header {
        source: Address {
            cid: GUEST.into(),
            port: 8,
        },
        ..machine.header(REQUEST)
    };
    // The one buffer goes to the second connection's response; nothing is left for the rest.
    machine.send(other, &[]);
    let _second = machine.listener.accept().unwrap();
    first.write_all(b"waiting").unwrap();
    machine.data(b"still heard");
    let mut heard = [0; 11];
    first.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"still heard");
    assert_eq!(machine.packet().0.op, RESPONSE);
    let (header, payload) = machine.packet();
    assert_eq!((header.op, &payload[..]), (DATA, &b"waiting"[..]));
}

#[test]
fn buffers_too_small_for_a_packet_go_back_empty() {
    let mut machine = Machine::new();
    for len in [1, HEADER_LEN as u32, 0, HEADER_LEN as u32 + 1] {
        machine.offer(len);
    }
    machine.send(machine.header(REQUEST), &[]);
    machine.rx.interrupt.wait_for(1);
    for head in 0..3 {
        assert_eq!(machine.rx.used(), Some((head, 0)));
    }
    assert_eq!(machine.rx.used(), Some((3, HEADER_LEN as u32)));
}

#[test]
fn chains_that_are_no_packet_are_answered_and_the_next_one_is_served() {
    let mut machine = Machine::with_buffers(RX_SIZE);
    machine.send_chain(&[readable(TX_BUFFERS, HEADER_LEN as u32 - 1)]);
    machine.send_chain(&[writable(TX_BUFFERS, 100)]);
    machine.dial();
}

#[test]
fn a_length_beyond_the_chain_ends_that_connection_only() {
    let mut machine = Machine::with_buffers(RX_SIZE);
    let mut host = machine.dial();
    let header = Header {
        len: 1000,
        ..machine.header(DATA)
    };
    machine.send(header, b"short");
    assert_eq!(machine.packet().0.op, RESET);
    assert_eq!(host.read(&mut [0]).unwrap(), 0);
    machine.dial();
}

#[test]
fn a_header_cut_into_bytes_is_still_a_header() {
    let mut machine = Machine::with_buffers(RX_SIZE);
    let header = machine.header(REQUEST).encode();
    machine
        .memory
        .write_slice(&header, GuestAddress(TX_BUFFERS))
        .unwrap();
    let pieces: Vec<Piece> = (0..11).map(|index| readable(TX_BUFFERS + index * 4, 4)).collect();
    machine.send_chain(&pieces);
    assert_eq!(machine.packet().0.op, RESPONSE);
}

#[test]
fn a_reset_closes_every_socket() {
    let mut machine = Machine::with_buffers(RX_SIZE);
    let mut host = machine.dial();
    machine.device.reset();
    assert_eq!(host.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_driver_that_breaks_its_ring_loses_its_connections() {
    let mut machine = Machine::with_buffers(RX_SIZE);
    let mut host = machine.dial();
    machine.tx.offer_head(u16::MAX);
    machine.tx.offer(&[readable(u64::MAX, 4)]);
    machine.tx.kick();
    assert_eq!(host.read(&mut [0]).unwrap(), 0);
}

/// A worker without its thread, its three queues in these drivers' memory.
fn worker(rx: &DriverQueue, tx: &DriverQueue, dir: &std::path::Path) -> VsockWorker {
    let routes = Routes::new(GUEST, &dir.join("vsock"), &[PORT]).unwrap();
    let queues = Queues {
        rx: rx.device(),
        tx: tx.device(),
        event: DriverQueue::new(&rx.memory, 0xf_0000, 16).device(),
    };
    let memory = Arc::clone(&rx.memory);
    VsockWorker::new(Mux::new(Arc::new(routes)), queues, memory).unwrap()
}

/// Well-formed, where a hostile ring leaves room.
const FREE: u64 = 0x8_0000;

proptest! {
    #[test]
    fn no_transmit_ring_breaks_the_device(ring in hostile::ring()) {
        let dir = tempfile::tempdir().unwrap();
        let tx = ring.lay_out(&guest_memory(hostile::RAM));
        let mut rx = DriverQueue::new(&tx.memory, FREE, 8);
        for index in 0..8 {
            rx.offer(&[writable(FREE + 0x1000 * (index + 1), 4096)]);
        }
        let mut worker = worker(&rx, &tx, dir.path());
        hostile::exhaust(&tx, || worker.turn().is_ok());
    }

    #[test]
    fn no_receive_ring_breaks_the_device(ring in hostile::ring(), packets in 1u16..8) {
        let dir = tempfile::tempdir().unwrap();
        let rx = ring.lay_out(&guest_memory(hostile::RAM));
        let mut tx = DriverQueue::new(&rx.memory, FREE, 8);
        let header = Header {
            source: Address { cid: GUEST.into(), port: 1 },
            target: Address { cid: 2, port: 9 },
            kind: 1,
            op: REQUEST,
            ..Header::default()
        };
        let at = FREE + 0x1000;
        rx.memory.write_slice(&header.encode(), GuestAddress(at)).unwrap();
        for _ in 0..packets {
            tx.offer(&[readable(at, HEADER_LEN as u32)]);
        }
        let mut worker = worker(&rx, &tx, dir.path());
        hostile::exhaust(&rx, || worker.turn().is_ok());
    }
}
