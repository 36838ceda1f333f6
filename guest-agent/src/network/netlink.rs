//! Just enough of rtnetlink to give an interface its addresses: requests of a few words, each acknowledged.

use std::{io, net::IpAddr, os::fd::OwnedFd, time::Duration};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
    sockopt::{Timeout, set_socket_timeout},
};

/// The kernel answers from within the request; one that does not never will.
const ANSWER: Duration = Duration::from_secs(5);

/// An acknowledgement is an error number and, of a request it refuses, the request again.
const MAX_ANSWER: usize = 4096;

const HEADER: usize = 16;
const REQUEST_ACK: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
/// What is there already, from an earlier attempt, is made to be as it should.
const PUT: u16 = REQUEST_ACK | (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;

/// RTNH_F_ONLINK.
const ONLINK: u32 = 4;

/// An interface by the kernel's number, as requests name it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Index(u32);

#[derive(Debug)]
pub(crate) struct Netlink(OwnedFd);

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        // The protocol numbered 0 is rtnetlink.
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER))?;
        Ok(Netlink(socket))
    }

    pub(crate) fn index(&self, name: &str) -> io::Result<Index> {
        let any = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        Ok(Index(rustix::net::netdevice::name_to_index(any, name)?))
    }

    pub(crate) fn set_mtu(&self, index: Index, mtu: u32) -> io::Result<()> {
        let message = Message::new(libc::RTM_NEWLINK, REQUEST_ACK).link(index, 0);
        self.request(message.attribute(libc::IFLA_MTU, &mtu.to_ne_bytes()))
    }

    pub(crate) fn bring_up(&self, index: Index) -> io::Result<()> {
        self.request(Message::new(libc::RTM_NEWLINK, REQUEST_ACK).link(index, libc::IFF_UP as u32))
    }

    /// Not tried out on the network first (IPv6's duplicate address detection): there is one at each end of the cable.
    pub(crate) fn put_address(&self, index: Index, address: IpAddr, prefix: u8) -> io::Result<()> {
        let bytes = octets(address);
        let message = Message::new(libc::RTM_NEWADDR, PUT)
            // struct ifaddrmsg
            .bytes(&[
                family(address),
                prefix,
                libc::IFA_F_NODAD as u8,
                libc::RT_SCOPE_UNIVERSE,
            ])
            .bytes(&index.0.to_ne_bytes());
        self.request(
            message
                .attribute(libc::IFA_LOCAL, &bytes)
                .attribute(libc::IFA_ADDRESS, &bytes),
        )
    }

    /// The gateway is at the other end of the cable, whether an address says so or not.
    pub(crate) fn put_default_route(&self, index: Index, gateway: IpAddr) -> io::Result<()> {
        // struct rtmsg: family, lengths of destination and source, type of service; table, origin, scope, kind; flags
        let message = Message::new(libc::RTM_NEWROUTE, PUT)
            .bytes(&[family(gateway), 0, 0, 0])
            .bytes(&[
                libc::RT_TABLE_MAIN,
                libc::RTPROT_STATIC,
                libc::RT_SCOPE_UNIVERSE,
                libc::RTN_UNICAST,
            ])
            .bytes(&ONLINK.to_ne_bytes());
        self.request(
            message
                .attribute(libc::RTA_GATEWAY, &octets(gateway))
                .attribute(libc::RTA_OIF, &index.0.to_ne_bytes()),
        )
    }

    fn request(&self, message: Message) -> io::Result<()> {
        send(&self.0, &message.finish(), SendFlags::empty())?;
        let mut answer = [0; MAX_ANSWER];
        let (count, _) = recv(&self.0, &mut answer[..], RecvFlags::empty())?;
        acknowledged(answer.get(..count).unwrap_or_default())
    }
}

/// A request being built: the header's length is filled in last.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        // struct nlmsghdr: length, kind, flags, sequence, sender
        Message(vec![0; 4])
            .bytes(&kind.to_ne_bytes())
            .bytes(&flags.to_ne_bytes())
            .bytes(&[0; 8])
    }

    /// struct ifinfomsg: family, padding, type; index; flags; which of them to change.
    fn link(self, index: Index, flags: u32) -> Self {
        self.bytes(&[0; 4])
            .bytes(&index.0.to_ne_bytes())
            .bytes(&flags.to_ne_bytes())
            .bytes(&flags.to_ne_bytes())
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// struct rtattr: length with itself, kind; then the value. All of ours are whole words, so nothing is padded.
    fn attribute(self, kind: u16, value: &[u8]) -> Self {
        debug_assert!(value.len().is_multiple_of(4));
        let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.bytes(&len.to_ne_bytes())
            .bytes(&kind.to_ne_bytes())
            .bytes(value)
    }

    fn finish(mut self) -> Vec<u8> {
        let len = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        if let Some(head) = self.0.first_chunk_mut() {
            *head = len.to_ne_bytes();
        }
        self.0
    }
}

/// `struct nlmsgerr` after the header: an error number, negative, or zero.
pub(super) fn acknowledged(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).and_then(|bytes| bytes.first_chunk().copied());
    let code = answer
        .get(HEADER..)
        .and_then(|bytes| bytes.first_chunk().copied());
    match (
        kind.map(u16::from_ne_bytes).map(i32::from),
        code.map(i32::from_ne_bytes),
    ) {
        (Some(libc::NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(libc::NLMSG_ERROR), Some(code)) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn family(address: IpAddr) -> u8 {
    let family = match address {
        IpAddr::V4(_) => libc::AF_INET,
        IpAddr::V6(_) => libc::AF_INET6,
    };
    u8::try_from(family).unwrap_or_default()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
