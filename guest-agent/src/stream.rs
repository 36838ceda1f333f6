//! One operation's connection to the host.
//!
//! Outgoing frames collect in an [`Outbox`] and leave in as few writes as possible; incoming frames
//! carry nothing but Stdin data, which [`Incoming`] hands on as it arrives, frame by frame but never
//! waiting for a whole one. Both hold one buffer of 64 KiB, whatever the other end sends.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use agent_protocol::{Channel, FrameError, Header, Hello, Limit, MAX_DATA, Reply, Role, StreamId, encode};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, retry_on_intr},
    net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown},
};

use crate::dial::Dialer;

/// Room below which the next frame waits for the one before to leave, so that frames stay large.
const SMALLEST_READ: usize = 4096;

/// How long a finished stream waits for the host to close it. Closing first while the host still sends
/// would reset the connection, and with it whatever the host has not read yet.
const LINGER: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Stream {
    socket: OwnedFd,
    out: Outbox,
    pub(crate) incoming: Incoming,
}

impl Stream {
    /// Dials the host; the Hello leaves together with what is said first.
    pub(crate) fn dial(dialer: &dyn Dialer, id: StreamId) -> io::Result<Self> {
        let socket = dialer.dial()?;
        let hello = encode(&Hello::new(Role::Stream(id)), Limit::ToHost).map_err(io::Error::other)?;
        let mut out = Outbox::default();
        out.push(&hello);
        Ok(Stream {
            socket,
            out,
            incoming: Incoming::default(),
        })
    }

    pub(crate) fn queue(&mut self, reply: &Reply) -> io::Result<()> {
        let frame = encode(reply, Limit::ToHost).map_err(io::Error::other)?;
        self.out.push(&frame);
        Ok(())
    }

    /// The empty frame that says that a channel has ended.
    pub(crate) fn queue_end(&mut self, channel: Channel) {
        self.out.push(&Header::data(channel, 0));
    }

    pub(crate) fn has_output(&self) -> bool {
        !self.out.is_empty()
    }

    /// Whether another data frame fits behind what is queued.
    pub(crate) fn has_room(&self) -> bool {
        self.out.len() + Header::SIZE + SMALLEST_READ <= MAX_DATA
    }

    /// One frame of at most `limit` bytes read from `source`: how many, 0 at its end. All that is
    /// queued, headers included, stays within the 64 KiB that one packet of the vsock driver holds.
    pub(crate) fn queue_from(
        &mut self,
        channel: Channel,
        source: BorrowedFd<'_>,
        limit: usize,
    ) -> io::Result<usize> {
        let room = MAX_DATA.saturating_sub(self.out.len() + Header::SIZE).min(limit);
        self.out.read_frame(channel, source, room)
    }

    /// Sends what the transport takes now.
    pub(crate) fn try_flush(&mut self) -> io::Result<()> {
        match self
            .out
            .send(&self.socket, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
        {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            result => result,
        }
    }

    /// Sends everything, waiting for the host to take it.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.send(&self.socket, SendFlags::NOSIGNAL)
    }

    /// Reads what is there without waiting: how much, 0 when the host has closed.
    pub(crate) fn try_receive(&mut self) -> io::Result<usize> {
        self.incoming.receive(&self.socket, RecvFlags::DONTWAIT)
    }

    pub(crate) fn receive(&mut self) -> io::Result<usize> {
        self.incoming.receive(&self.socket, RecvFlags::empty())
    }

    /// What comes where nothing is to come: how much, 0 when the host has closed.
    pub(crate) fn try_discard(&mut self) -> io::Result<usize> {
        self.incoming.discard();
        self.try_receive()
    }

    /// Says the last word and leaves when the host does.
    pub(crate) fn finish(mut self, last: &Reply) {
        if self.queue(last).and_then(|()| self.flush()).is_ok() {
            self.linger();
        }
    }

    fn linger(mut self) {
        let _ = shutdown(&self.socket, Shutdown::Write);
        let deadline = Instant::now() + LINGER;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
            let ready = poll(&mut fds, Some(&timespec(left)));
            match ready {
                Err(Errno::INTR) => {}
                Ok(1..) if matches!(self.try_discard(), Ok(1..)) => {}
                _ => return,
            }
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// Frames not yet sent: `bytes[start..end]`.
#[derive(Debug, Default)]
struct Outbox {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Outbox {
    fn len(&self) -> usize {
        self.end - self.start
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn push(&mut self, frame: &[u8]) {
        self.space(frame.len()).copy_from_slice(frame);
        self.end += frame.len();
    }

    fn read_frame(&mut self, channel: Channel, source: BorrowedFd<'_>, room: usize) -> io::Result<usize> {
        let (head, body) = self.space(Header::SIZE + room).split_at_mut(Header::SIZE);
        let count = retry_on_intr(|| rustix::io::read(source, &mut *body))?;
        if count > 0 {
            head.copy_from_slice(&Header::data(channel, count));
            self.end += Header::SIZE + count;
        }
        Ok(count)
    }

    fn send(&mut self, socket: &OwnedFd, flags: SendFlags) -> io::Result<()> {
        while !self.is_empty() {
            self.start += retry_on_intr(|| send(socket, &self.bytes[self.start..self.end], flags))?;
        }
        Ok(())
    }

    /// `len` bytes to write after what is queued.
    fn space(&mut self, len: usize) -> &mut [u8] {
        if self.is_empty() || self.end + len > 2 * MAX_DATA {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.len());
        }
        if self.bytes.len() < self.end + len {
            self.bytes.resize(self.end + len, 0);
        }
        &mut self.bytes[self.end..self.end + len]
    }
}

/// Bytes from the host not yet used: `bytes[start..end]`, the first `frame` of which, so far as they
/// have come, belong to the frame at hand.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    frame: usize,
    ended: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// Never empty. [`Incoming::consume`] what was used of it.
    Data(&'a [u8]),
    /// The host has sent all it wants to send; nothing after this is looked at.
    End,
    /// Nothing more here: receive.
    Nothing,
}

impl Incoming {
    pub(crate) fn next(&mut self) -> Result<Piece<'_>, Violation> {
        if self.ended {
            return Ok(Piece::End);
        }
        if self.frame == 0 {
            let Some(head) = self.bytes[self.start..self.end].first_chunk() else {
                return Ok(Piece::Nothing);
            };
            let header = Header::parse(*head, Limit::ToGuest)?;
            if header.channel() != Channel::Stdin {
                return Err(Violation::NotStdin(header.channel()));
            }
            self.start += Header::SIZE;
            if header.is_empty() {
                self.ended = true;
                return Ok(Piece::End);
            }
            self.frame = header.len();
        }
        match self.frame.min(self.end - self.start) {
            0 => Ok(Piece::Nothing),
            count => Ok(Piece::Data(&self.bytes[self.start..self.start + count])),
        }
    }

    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        self.frame -= count;
    }

    /// Whether something waits to be used; receiving more before it is would need more room.
    pub(crate) fn is_pending(&self) -> bool {
        self.ended || self.frame > 0 && self.end > self.start
    }

    fn receive(&mut self, socket: &OwnedFd, flags: RecvFlags) -> io::Result<usize> {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        self.bytes.resize(MAX_DATA, 0);
        let (count, _) = retry_on_intr(|| recv(socket, &mut self.bytes[self.end..], flags))?;
        self.end += count;
        Ok(count)
    }

    fn discard(&mut self) {
        (self.start, self.end, self.frame, self.ended) = (0, 0, 0, false);
    }
}

/// The host broke the protocol on this stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Violation {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("a {0:?} frame where only Stdin may come")]
    NotStdin(Channel),
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use agent_protocol::encode_frame;

    use super::*;

    fn incoming(bytes: &[u8]) -> Incoming {
        Incoming {
            bytes: bytes.to_vec(),
            start: 0,
            end: bytes.len(),
            frame: 0,
            ended: false,
        }
    }

    #[test]
    fn a_frame_is_handed_on_in_the_pieces_it_arrives_in() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let ours = OwnedFd::from(ours);
        let mut incoming = Incoming::default();
        let mut seen = Vec::new();
        let mut frames = encode_frame(Channel::Stdin, b"hello world");
        frames.extend(encode_frame(Channel::Stdin, b""));
        for byte in frames {
            send(&theirs, &[byte], SendFlags::empty()).unwrap();
            assert_eq!(incoming.receive(&ours, RecvFlags::DONTWAIT).unwrap(), 1);
            match incoming.next().unwrap() {
                Piece::Data(data) => {
                    seen.extend_from_slice(data);
                    let count = data.len();
                    incoming.consume(count);
                }
                Piece::End => seen.push(b'$'),
                Piece::Nothing => {}
            }
        }
        assert_eq!(seen, b"hello world$");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic_or_invent_data(bytes in proptest::collection::vec(0u8..4, 0..256)) {
            let mut incoming = incoming(&bytes);
            let mut used = 0;
            while let Ok(Piece::Data(data)) = incoming.next() {
                let count = data.len().min(3);
                incoming.consume(count);
                used += count;
            }
            proptest::prop_assert!(used <= bytes.len());
        }
    }

    #[test]
    fn anything_but_stdin_is_a_violation() {
        let stdout = encode_frame(Channel::Stdout, b"x");
        assert!(matches!(
            incoming(&stdout).next(),
            Err(Violation::NotStdin(Channel::Stdout))
        ));
        assert!(matches!(
            incoming(&[0xff; 64]).next(),
            Err(Violation::Frame(FrameError::UnknownChannel { .. }))
        ));
        assert!(matches!(
            incoming(&[0xff, 0xff, 0xff, 0xff, 1]).next(),
            Err(Violation::Frame(FrameError::TooLong { .. }))
        ));
    }
}
