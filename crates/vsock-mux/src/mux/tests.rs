use std::{
    collections::HashMap,
    convert::Infallible,
    io::{self, Read, Write},
    net::Shutdown,
    os::{
        fd::BorrowedFd,
        unix::net::{UnixListener, UnixStream},
    },
    time::{Duration, Instant},
};

use rustix::net::{RecvFlags, SendFlags};

use super::*;
use crate::{
    limits::{CLOSE_TIMEOUT, MAX_PAYLOAD},
    packet::Address,
};

mod close;
mod flow;
mod hostile;
mod random;

const GUEST: u32 = 3;
const PORT: u32 = 1024;

const REQUEST: u16 = 1;
const RESPONSE: u16 = 2;
const RESET: u16 = 3;
const SHUTDOWN: u16 = 4;
const DATA: u16 = 5;
const CREDIT_UPDATE: u16 = 6;
const CREDIT_REQUEST: u16 = 7;

const RECEIVE: u32 = 1;
const SEND: u32 = 2;

struct Plain<'a>(&'a [u8]);

impl Source for Plain<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn send(&self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(rustix::net::send(socket, self.0, flags)?)
    }

    fn copy(&self, skip: usize, out: &mut [u8]) -> usize {
        out.copy_from_slice(&self.0[skip..]);
        out.len()
    }
}

struct Room(Vec<u8>);

impl Sink for Room {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let (len, _) = rustix::net::recv(socket, &mut self.0[..], RecvFlags::DONTWAIT)?;
        self.0.truncate(len);
        Ok(len)
    }
}

#[derive(Default)]
struct Watched(HashMap<Pair, Option<Interest>>);

impl Watch for Watched {
    type Error = Infallible;

    fn watch(
        &mut self,
        _socket: BorrowedFd<'_>,
        pair: Pair,
        before: Option<Interest>,
        after: Option<Interest>,
    ) -> Result<(), Infallible> {
        assert_eq!(self.0.get(&pair).copied().flatten(), before);
        self.0.insert(pair, after);
        Ok(())
    }
}

/// A guest with all the room in the world, and the host's side of its connections.
struct Bench {
    mux: Mux,
    listener: UnixListener,
    watched: Watched,
    now: Instant,
    socket: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("vsock");
        let listener = UnixListener::bind(dir.path().join(format!("vsock_{PORT}"))).unwrap();
        let routes = Routes::new(GUEST, &socket, &[PORT]).unwrap();
        Bench {
            mux: Mux::new(Arc::new(routes)),
            listener,
            watched: Watched::default(),
            now: Instant::now(),
            socket,
            _dir: dir,
        }
    }

    fn header(&self, guest_port: u32, op: u16) -> Header {
        Header {
            source: Address {
                cid: GUEST.into(),
                port: guest_port,
            },
            target: Address { cid: 2, port: PORT },
            kind: 1,
            op,
            buf_alloc: 256 * 1024,
            ..Header::default()
        }
    }

    fn give(&mut self, header: Header) -> Result<Received, Refusal> {
        let available = header.len as usize;
        self.mux.receive(&header, available, self.now)
    }

    fn send(&mut self, guest_port: u32, op: u16) -> Result<Received, Refusal> {
        self.give(self.header(guest_port, op))
    }

    fn shut(&mut self, guest_port: u32, flags: u32) {
        let header = Header {
            flags,
            ..self.header(guest_port, SHUTDOWN)
        };
        self.give(header).unwrap();
    }

    fn credit(&mut self, guest_port: u32, buf_alloc: u32, fwd_cnt: u32) -> Result<Received, Refusal> {
        self.give(Header {
            buf_alloc,
            fwd_cnt,
            ..self.header(guest_port, CREDIT_UPDATE)
        })
    }

    fn data(&mut self, guest_port: u32, bytes: &[u8]) -> Result<(), Refusal> {
        let header = Header {
            len: bytes.len() as u32,
            ..self.header(guest_port, DATA)
        };
        if let Received::Data { pair, len } = self.give(header)? {
            self.mux.write(pair, &Plain(&bytes[..len]), self.now);
        }
        Ok(())
    }

    fn dial(&mut self, guest_port: u32) -> UnixStream {
        self.send(guest_port, REQUEST).unwrap();
        assert_eq!(self.ops(), [RESPONSE]);
        self.listener.accept().unwrap().0
    }

    fn packets(&mut self) -> Vec<Header> {
        std::iter::from_fn(|| self.mux.next_packet()).collect()
    }

    fn ops(&mut self) -> Vec<u16> {
        self.packets().iter().map(|header| header.op).collect()
    }

    fn pull(&mut self, guest_port: u32) -> Vec<u8> {
        let pair = pair(guest_port);
        let mut room = Room(vec![0; self.mux.quota(pair)]);
        let len = self.mux.read(pair, &mut room, self.now);
        room.0.truncate(len as usize);
        room.0
    }

    fn interest(&mut self, guest_port: u32) -> Option<Interest> {
        self.mux.settle(&mut self.watched).unwrap();
        self.watched.0.get(&pair(guest_port)).copied().flatten()
    }

    /// Sends until the host's socket is full and some bytes are held; returns how many were sent.
    fn fill(&mut self, guest_port: u32) -> usize {
        let chunk = vec![9; MAX_PAYLOAD as usize];
        let mut sent = 0;
        while self.mux.held() == 0 {
            self.data(guest_port, &chunk).unwrap();
            sent += chunk.len();
        }
        self.packets();
        sent
    }

    fn read_to_end(&mut self, guest_port: u32, host: &mut UnixStream) -> Vec<u8> {
        let mut heard = Vec::new();
        let mut scrap = vec![0; 1 << 20];
        loop {
            match host.read(&mut scrap).unwrap() {
                0 => return heard,
                len => heard.extend_from_slice(&scrap[..len]),
            }
            self.mux.writable(pair(guest_port), self.now);
        }
    }

    /// The flags of the packets due, which are all shutdowns.
    fn shutdowns(&mut self) -> Vec<u32> {
        let packets = self.packets();
        assert!(packets.iter().all(|packet| packet.op == SHUTDOWN));
        packets.iter().map(|packet| packet.flags).collect()
    }

    /// So that it fills.
    fn shorten_backlog(&self, backlog: i32) {
        rustix::net::listen(&self.listener, backlog).unwrap();
    }

    fn later(&mut self, by: Duration) -> Vec<Refusal> {
        self.now += by;
        self.mux.expire(self.now)
    }
}

fn pair(guest: u32) -> Pair {
    Pair { guest, host: PORT }
}

const READ: Option<Interest> = Some(Interest {
    read: true,
    write: false,
});
const WRITE: Option<Interest> = Some(Interest {
    read: false,
    write: true,
});
const HANG_UP: Option<Interest> = Some(Interest {
    read: false,
    write: false,
});
