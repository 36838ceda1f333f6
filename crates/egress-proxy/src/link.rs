//! This end of the link to the machine. Whatever comes in is hostile: the guest may have taken over the machine.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::fd::OwnedFd,
};

use egress_policy::link::{self, FromEgress, MAX_MESSAGE, ToEgress};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, SocketType,
    recvmsg, send,
    sockopt::{socket_domain, socket_type},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::UnixStream,
    sync::Notify,
};

use crate::{EgressError, limits::MAX_WAITING};

#[derive(Debug)]
pub(crate) struct Link {
    socket: AsyncFd<OwnedFd>,
    waiting: RefCell<VecDeque<Waiting>>,
    queued: Notify,
    drained: Notify,
}

#[derive(Debug)]
struct Waiting {
    message: Vec<u8>,
    /// Closed when the message is out: the machine hears why before it sees the end.
    _guest: Option<UnixStream>,
}

/// What the machine asked, and the guest's end of the flow where it asked for one.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) message: ToEgress,
    /// `None` with a question for a flow when this process has no descriptor left for it.
    pub(crate) stream: Option<OwnedFd>,
}

impl Link {
    pub(crate) fn new(socket: OwnedFd) -> Result<Self, EgressError> {
        let io = |error: rustix::io::Errno| EgressError::NoLink(error.into());
        if socket_domain(&socket).map_err(io)? != AddressFamily::UNIX
            || socket_type(&socket).map_err(io)? != SocketType::SEQPACKET
        {
            return Err(EgressError::LinkKind);
        }
        rustix::io::ioctl_fionbio(&socket, true).map_err(io)?;
        Ok(Link {
            socket: registered(socket)?,
            waiting: RefCell::default(),
            queued: Notify::new(),
            drained: Notify::new(),
        })
    }

    /// The next message; not before the machine has read what it was told.
    pub(crate) async fn receive(&self) -> Result<Incoming, EgressError> {
        while self.waiting.borrow().len() > MAX_WAITING {
            self.drained.notified().await;
        }
        let read = self
            .socket
            .async_io(Interest::READABLE, |socket| Ok(packet(socket)?));
        read.await.map_err(EgressError::Link)?.parse()
    }

    /// One that is there already.
    pub(crate) fn try_receive(&self) -> Result<Option<Incoming>, EgressError> {
        if self.waiting.borrow().len() > MAX_WAITING {
            return Ok(None);
        }
        match self
            .socket
            .try_io(Interest::READABLE, |socket| Ok(packet(socket)?))
        {
            Ok(packet) => packet.parse().map(Some),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(EgressError::Link(error)),
        }
    }

    pub(crate) fn send(&self, message: &FromEgress) {
        self.send_then_close(message, None);
    }

    /// Never waits. A link that breaks here is found broken by [`Self::receive`].
    pub(crate) fn send_then_close(&self, message: &FromEgress, guest: Option<UnixStream>) {
        let Some(message) = link::encode(message) else {
            return;
        };
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.is_empty() || self.send_now(&message).is_err_and(|error| would_block(&error)) {
            waiting.push_back(Waiting {
                message,
                _guest: guest,
            });
            self.queued.notify_one();
        }
    }

    /// Sends what had to wait, whenever there is room. Ends when the link does.
    pub(crate) async fn drain(&self) -> EgressError {
        loop {
            while self.waiting.borrow().is_empty() {
                self.queued.notified().await;
            }
            let sent = self.socket.async_io(Interest::WRITABLE, |_| self.send_first());
            if let Err(error) = sent.await {
                return EgressError::Link(error);
            }
        }
    }

    fn send_first(&self) -> io::Result<()> {
        let mut waiting = self.waiting.borrow_mut();
        if let Some(first) = waiting.front() {
            self.send_now(&first.message)?;
            waiting.pop_front();
            self.drained.notify_one();
        }
        Ok(())
    }

    fn send_now(&self, message: &[u8]) -> io::Result<()> {
        send(
            self.socket.get_ref(),
            message,
            SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        )?;
        Ok(())
    }
}

#[allow(unsafe_code, reason = "the runtime keeps the number of a descriptor")]
fn registered(socket: OwnedFd) -> Result<AsyncFd<OwnedFd>, EgressError> {
    // SAFETY: an `OwnedFd` is open and the same descriptor for as long as it lives, and it lives in the `AsyncFd`.
    let registered = unsafe { AsyncFd::register(socket) };
    registered.map_err(|error| EgressError::NoLink(error.into()))
}

fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// As it came out of the socket.
struct Packet {
    bytes: [u8; MAX_MESSAGE],
    len: usize,
    whole: bool,
    /// Descriptors came that were not taken.
    lost: bool,
    descriptors: Vec<OwnedFd>,
}

fn packet(socket: &OwnedFd) -> rustix::io::Result<Packet> {
    let mut bytes = [0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags)?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            descriptors.extend(passed);
        }
    }
    Ok(Packet {
        bytes,
        len: received.bytes,
        whole: !received.flags.contains(ReturnFlags::TRUNC),
        lost: received.flags.contains(ReturnFlags::CTRUNC),
        descriptors,
    })
}

impl Packet {
    fn parse(mut self) -> Result<Incoming, EgressError> {
        if self.len == 0 {
            return Err(EgressError::LinkClosed);
        }
        let bytes = self.bytes.get(..self.len).filter(|_| self.whole);
        let message: ToEgress = bytes
            .and_then(link::decode)
            .ok_or(EgressError::Hostile("not a message"))?;
        let stream = self.descriptors.pop();
        let expected = matches!(message, ToEgress::Open { .. });
        let came = stream.is_some() || self.lost;
        // Of one that was sent and none that was taken, the guilt is with the limit of descriptors.
        let several = !self.descriptors.is_empty() || (stream.is_some() && self.lost);
        if several || came != expected {
            return Err(EgressError::Hostile("a descriptor too many or too few"));
        }
        Ok(Incoming { message, stream })
    }
}

/// The guest's end of a flow, if that is what came.
pub(crate) fn guest_stream(descriptor: OwnedFd) -> Result<UnixStream, EgressError> {
    const WHY: EgressError = EgressError::Hostile("a descriptor that is no stream of this host");
    if socket_domain(&descriptor) != Ok(AddressFamily::UNIX)
        || socket_type(&descriptor) != Ok(SocketType::STREAM)
    {
        return Err(WHY);
    }
    let stream = std::os::unix::net::UnixStream::from(descriptor);
    stream.set_nonblocking(true).map_err(|_| WHY)?;
    UnixStream::from_std(stream).map_err(|_| WHY)
}
