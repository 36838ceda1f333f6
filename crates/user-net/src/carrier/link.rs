//! The machine's end of the link.

use std::{
    collections::VecDeque,
    io::IoSlice,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use egress_policy::link::{FromEgress, MAX_MESSAGE, ToEgress, VERSION, decode, encode};
use rustix::{
    io::Errno,
    net::{
        RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
        sockopt::socket_type,
    },
};

use crate::limits::{MAX_OPENING, MAX_QUESTIONS};

/// Messages that wait because the other end is busy: the kernel keeps some two hundred, and a guest may open more at
/// once than that.
const MAX_WAITING: usize = MAX_OPENING + MAX_QUESTIONS;

#[derive(Debug)]
pub(super) struct Link {
    socket: OwnedFd,
    greeted: bool,
    waiting: VecDeque<(Vec<u8>, Option<OwnedFd>)>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("it closed")]
    Closed,
    #[error("it said something else than a message")]
    Malformed,
    #[error("it speaks version {found}, not {VERSION}")]
    Version { found: u16 },
    #[error("it did not say its version first")]
    NoVersion,
    #[error("not a connection that keeps messages apart")]
    Kind,
    #[error("message is too long for it")]
    TooLong,
    #[error(transparent)]
    Io(#[from] Errno),
}

impl Link {
    pub(super) fn new(socket: OwnedFd) -> Result<Self, LinkError> {
        if socket_type(&socket)? != rustix::net::SocketType::SEQPACKET {
            return Err(LinkError::Kind);
        }
        let mut link = Link {
            socket,
            greeted: false,
            waiting: VecDeque::new(),
        };
        link.send(&ToEgress::Hello { version: VERSION }, None)?;
        Ok(link)
    }

    pub(super) fn send(&mut self, message: &ToEgress, beside: Option<OwnedFd>) -> Result<(), LinkError> {
        let bytes = encode(message).ok_or(LinkError::TooLong)?;
        if !self.is_waiting() {
            match self.send_now(&bytes, beside.as_ref()) {
                Err(Errno::AGAIN) => {}
                sent => return Ok(sent?),
            }
        }
        if self.waiting.len() >= MAX_WAITING {
            return Err(Errno::AGAIN.into());
        }
        self.waiting.push_back((bytes, beside));
        Ok(())
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// There may be room for what waits.
    pub(super) fn flush(&mut self) -> Result<(), LinkError> {
        while let Some((bytes, beside)) = self.waiting.front() {
            match self.send_now(bytes, beside.as_ref()) {
                Err(Errno::AGAIN) => return Ok(()),
                sent => sent?,
            }
            self.waiting.pop_front();
        }
        Ok(())
    }

    fn send_now(&self, bytes: &[u8], beside: Option<&OwnedFd>) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = beside.map(AsFd::as_fd);
        if descriptors.is_some() {
            control.push(SendAncillaryMessage::ScmRights(descriptors.as_slice()));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut control, flags).map(|_| ())
    }

    /// The next message, if there is one. No descriptor is ever taken from it.
    pub(super) fn receive(&mut self) -> Result<Option<FromEgress>, LinkError> {
        let mut bytes = [0; MAX_MESSAGE];
        let got = {
            let mut into = [rustix::io::IoSliceMut::new(&mut bytes)];
            let mut none = rustix::net::RecvAncillaryBuffer::new(&mut []);
            match recvmsg(
                &self.socket,
                &mut into,
                &mut none,
                RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC,
            ) {
                Err(Errno::AGAIN) => return Ok(None),
                got => got?,
            }
        };
        if got.bytes == 0 {
            return Err(LinkError::Closed);
        }
        let message = bytes
            .get(..got.bytes)
            .filter(|_| !got.flags.contains(ReturnFlags::TRUNC));
        let message = message.and_then(decode).ok_or(LinkError::Malformed)?;
        match (self.greeted, &message) {
            (false, FromEgress::Hello { version: VERSION }) => self.greeted = true,
            (false, FromEgress::Hello { version }) => return Err(LinkError::Version { found: *version }),
            (false, _) => return Err(LinkError::NoVersion),
            (true, _) => {}
        }
        Ok(Some(message))
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
