//! The guest: a smoltcp of its own, and programs in it.

use std::{collections::VecDeque, net::IpAddr, time::Instant};

use egress_policy::addresses::{GATEWAY_V4, GATEWAY_V6, GUEST_V4, GUEST_V6};
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp::{Socket, SocketBuffer, State},
    wire::{HardwareAddress, IpAddress, IpCidr},
};

use super::world::Stream;
use crate::{Offloads, tcp::clock::Clock};

pub(super) struct Guest {
    pub(super) cable: Cable,
    pub(super) interface: Interface,
    pub(super) sockets: SocketSet<'static>,
    pub(super) clients: Vec<Client>,
    port: u16,
}

/// A program in the guest.
pub(super) struct Client {
    pub(super) handle: SocketHandle,
    pub(super) received: Stream,
    pub(super) sent: Stream,
    pub(super) to_send: u64,
    pub(super) finishes: bool,
    pub(super) reads: bool,
}

impl Guest {
    pub(super) fn new(mtu: usize, offloads: Offloads) -> Self {
        let mut cable = Cable {
            mtu,
            checks: !offloads.receives_without_checksum,
            ..Cable::default()
        };
        let config = Config::new(HardwareAddress::Ip);
        let mut interface = Interface::new(config, &mut cable, smoltcp::time::Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(GUEST_V4.into(), 24)).unwrap();
            addresses.push(IpCidr::new(GUEST_V6.into(), 64)).unwrap();
        });
        interface.routes_mut().add_default_ipv4_route(GATEWAY_V4).unwrap();
        interface.routes_mut().add_default_ipv6_route(GATEWAY_V6).unwrap();
        Guest {
            cable,
            interface,
            sockets: SocketSet::new(Vec::new()),
            clients: Vec::new(),
            port: 40_000,
        }
    }

    pub(super) fn connect(&mut self, far: IpAddr, buffer: usize, to_send: u64) -> usize {
        self.port += 1;
        let port = self.port;
        self.connect_from(port, far, buffer, to_send)
    }

    pub(super) fn connect_from(&mut self, port: u16, far: IpAddr, buffer: usize, to_send: u64) -> usize {
        let empty = || SocketBuffer::new(vec![0; buffer]);
        let mut socket = Socket::new(empty(), empty());
        socket.set_ack_delay(None);
        socket
            .connect(self.interface.context(), (IpAddress::from(far), 443), port)
            .unwrap();
        let handle = self.sockets.add(socket);
        self.clients.push(Client {
            handle,
            received: Stream::new(),
            sent: Stream::new(),
            to_send,
            finishes: true,
            reads: true,
        });
        self.clients.len() - 1
    }

    pub(super) fn socket(&mut self, client: usize) -> &mut Socket<'static> {
        self.sockets.get_mut(self.clients[client].handle)
    }

    pub(super) fn state(&self, client: usize) -> State {
        self.sockets
            .get::<Socket<'_>>(self.clients[client].handle)
            .state()
    }

    pub(super) fn poll(&mut self, now: smoltcp::time::Instant) {
        self.interface.poll(now, &mut self.cable, &mut self.sockets);
        for client in &mut self.clients {
            client.act(self.sockets.get_mut(client.handle));
        }
        self.interface.poll(now, &mut self.cable, &mut self.sockets);
    }

    pub(super) fn deadline(&mut self, clock: Clock, now: Instant) -> Option<Instant> {
        let at = self.interface.poll_at(clock.at(now), &self.sockets)?;
        Some(clock.instant(at))
    }
}

impl Client {
    fn act(&mut self, socket: &mut Socket<'static>) {
        while self.reads && socket.can_recv() {
            let received = &mut self.received;
            socket.recv(|bytes| (bytes.len(), received.check(bytes))).unwrap();
        }
        while socket.can_send() && self.sent.at < self.to_send {
            socket
                .send(|space| (self.sent.write(space, self.to_send), ()))
                .unwrap();
        }
        // smoltcp does not hear of windows any more once it has a FIN to send.
        if socket.may_send() && self.finishes && self.sent.at == self.to_send && socket.send_queue() == 0 {
            socket.close();
        }
    }
}

#[derive(Default)]
pub(super) struct Cable {
    pub(super) to_us: VecDeque<Vec<u8>>,
    pub(super) to_guest: VecDeque<Vec<u8>>,
    mtu: usize,
    checks: bool,
}

impl Device for Cable {
    type RxToken<'t> = Packet;
    type TxToken<'t> = Space<'t>;

    fn receive(&mut self, _now: smoltcp::time::Instant) -> Option<(Packet, Space<'_>)> {
        let packet = self.to_guest.pop_front()?;
        Some((Packet(packet), Space(&mut self.to_us)))
    }

    fn transmit(&mut self, _now: smoltcp::time::Instant) -> Option<Space<'_>> {
        Some(Space(&mut self.to_us))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        if !self.checks {
            capabilities.checksum = ChecksumCapabilities::ignored();
        }
        capabilities
    }
}

pub(super) struct Packet(Vec<u8>);

impl RxToken for Packet {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

pub(super) struct Space<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Space<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut packet = vec![0; length];
        let result = write(&mut packet);
        self.0.push_back(packet);
        result
    }
}
