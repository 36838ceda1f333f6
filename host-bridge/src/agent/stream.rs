//! One operation's own connection, read and written by threads that may block: the socket is the
//! back-pressure, all the way into the guest.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::{fd::OwnedFd, unix::net::UnixStream},
};

use agent_protocol::{Channel, Header, Limit, MAX_DATA, MAX_MESSAGE_TO_HOST, Reply, StreamId, decode};

use crate::{Error, Result, error::Context};

/// Several frames a read, and always room for the longest one.
const BUFFER: usize = 4 * MAX_DATA;
const _: () = assert!(BUFFER >= Header::SIZE + MAX_MESSAGE_TO_HOST);

#[derive(Debug)]
pub struct Operation {
    id: StreamId,
    stream: UnixStream,
}

/// What the guest said on a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    Stdout(&'a [u8]),
    Stderr(&'a [u8]),
    Reply(Reply),
}

impl Operation {
    pub(crate) fn new(id: StreamId, stream: UnixStream) -> Self {
        Operation { id, stream }
    }

    pub fn id(&self) -> StreamId {
        self.id
    }

    pub fn split(self) -> Result<(OperationReader, OperationWriter)> {
        let stream = self
            .stream
            .try_clone()
            .act("stream of the sandbox cannot be used")?;
        Ok((OperationReader::new(self.stream), OperationWriter::new(stream)))
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.stream.into()
    }
}

#[derive(Debug)]
pub struct OperationReader {
    stream: UnixStream,
    buffer: Box<[u8]>,
    /// What was read and not yet given out.
    filled: std::ops::Range<usize>,
}

impl OperationReader {
    fn new(stream: UnixStream) -> Self {
        OperationReader {
            stream,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            filled: 0..0,
        }
    }

    /// The next thing the guest says; `None` when the connection ended between two frames.
    pub fn receive(&mut self) -> Result<Option<Incoming<'_>>> {
        let Some(header) = self.header()? else {
            return Ok(None);
        };
        if !self.fill(Header::SIZE + header.len())? {
            return Err(Error::Unexpected {
                what: "it stopped in the middle of a frame",
            });
        }
        let start = self.filled.start + Header::SIZE;
        let payload = start..start + header.len();
        self.filled.start = payload.end;
        let payload = &self.buffer[payload];
        Ok(Some(match header.channel() {
            Channel::Stdout => Incoming::Stdout(payload),
            Channel::Stderr => Incoming::Stderr(payload),
            Channel::Message => Incoming::Reply(decode(payload)?),
            Channel::Stdin => {
                return Err(Error::Unexpected {
                    what: "standard input from the wrong side",
                });
            }
        }))
    }

    /// The next reply, where no data may come before it.
    pub fn reply(&mut self) -> Result<Reply> {
        match self.receive()? {
            Some(Incoming::Reply(reply)) => Ok(reply),
            Some(_) => Err(Error::Unexpected {
                what: "data where a reply belongs",
            }),
            None => Err(Error::AgentGone),
        }
    }

    fn header(&mut self) -> Result<Option<Header>> {
        if !self.fill(Header::SIZE)? {
            return match self.filled.len() {
                0 => Ok(None),
                _ => Err(Error::Unexpected {
                    what: "it stopped in the middle of a header",
                }),
            };
        }
        let head = self.buffer[self.filled.clone()]
            .first_chunk()
            .copied()
            .unwrap_or_default();
        Ok(Some(Header::parse(head, Limit::ToHost)?))
    }

    /// Reads until `want` bytes are there; false when the stream ends before. `want` always fits.
    fn fill(&mut self, want: usize) -> Result<bool> {
        if self.filled.start + want > self.buffer.len() {
            self.buffer.copy_within(self.filled.clone(), 0);
            self.filled = 0..self.filled.len();
        }
        while self.filled.len() < want {
            match self.stream.read(&mut self.buffer[self.filled.end..]) {
                Ok(0) => return Ok(false),
                Ok(n) => self.filled.end += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
                Err(error) => return Err(error).act("stream of the sandbox cannot be read"),
            }
        }
        Ok(true)
    }
}

/// The host's half. Dropping it says nothing; [`end`](Self::end) says that input is over.
#[derive(Debug)]
pub struct OperationWriter {
    stream: UnixStream,
    frame: Box<[u8]>,
}

impl OperationWriter {
    fn new(stream: UnixStream) -> Self {
        OperationWriter {
            stream,
            frame: vec![0; Header::SIZE + MAX_DATA].into_boxed_slice(),
        }
    }

    /// Sends what `read` puts into the frame it is given, until it puts nothing; then the input is over.
    pub fn send_all(&mut self, mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<()> {
        loop {
            let len = match read(&mut self.frame[Header::SIZE..]) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            // An empty frame is the end of input, so this sends that too.
            self.frame[..Header::SIZE].copy_from_slice(&Header::data(Channel::Stdin, len));
            self.stream.write_all(&self.frame[..Header::SIZE + len])?;
            if len == 0 {
                return Ok(());
            }
        }
    }

    pub fn end(&mut self) -> io::Result<()> {
        self.send_all(|_| Ok(0))
    }

    /// Breaks the operation off: the guest kills the command when its stream closes.
    pub fn abort(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Another handle that can only [`abort`](Self::abort).
    pub fn aborter(&self) -> Result<Aborter> {
        Ok(Aborter(
            self.stream
                .try_clone()
                .act("stream of the sandbox cannot be used")?,
        ))
    }
}

#[derive(Debug)]
pub struct Aborter(UnixStream);

impl Aborter {
    pub fn abort(&self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use agent_protocol::{Exit, Status, Usage, encode, encode_frame};

    use super::*;

    fn pair() -> (OperationReader, OperationWriter, UnixStream) {
        let (ours, guest) = UnixStream::pair().unwrap();
        let (reader, writer) = Operation::new(StreamId(1), ours).split().unwrap();
        (reader, writer, guest)
    }

    #[test]
    fn frames_come_out_whole_however_they_are_cut_on_the_way() {
        let (mut reader, _writer, mut guest) = pair();
        let exit = Reply::Exited(Exit {
            status: Status::Code(3),
            timed_out: false,
            out_of_memory: false,
            usage: Usage::default(),
        });
        let mut bytes = Vec::new();
        for i in 0..40u8 {
            bytes.extend(encode_frame(Channel::Stdout, &vec![i; 60_000]));
            bytes.extend(encode_frame(Channel::Stderr, b"e"));
        }
        bytes.extend(encode(&exit, Limit::ToHost).unwrap());
        let sender = std::thread::spawn(move || {
            for piece in bytes.chunks(7919) {
                guest.write_all(piece).unwrap();
            }
        });
        for i in 0..40u8 {
            assert!(matches!(reader.receive().unwrap(), Some(Incoming::Stdout(d)) if d == vec![i; 60_000]));
            assert_eq!(reader.receive().unwrap(), Some(Incoming::Stderr(b"e")));
        }
        assert_eq!(reader.receive().unwrap(), Some(Incoming::Reply(exit)));
        assert_eq!(reader.receive().unwrap(), None);
        sender.join().unwrap();
    }

    #[test]
    fn a_hostile_stream_is_an_error_and_not_a_panic() {
        for bytes in [
            &b"\xff\xff\xff\xff\x00"[..],
            b"\x01\x00\x00\x00\x09x",
            b"\x01\x00\x00\x00\x01x",
            b"\x00\x00\x01\x00\x02half",
            b"\x00\x00",
            b"\x02\x00\x00\x00\x00\xff\xff",
            b"\x00\x00\x00\x00\x00",
        ] {
            let (mut reader, _writer, mut guest) = pair();
            guest.write_all(bytes).unwrap();
            drop(guest);
            assert!(reader.receive().is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn input_ends_with_an_empty_frame() {
        let (_reader, mut writer, mut guest) = pair();
        let mut pieces = [&b"ab"[..], b"c", b""].into_iter();
        writer
            .send_all(|room| {
                let piece = pieces.next().unwrap_or_default();
                room[..piece.len()].copy_from_slice(piece);
                Ok(piece.len())
            })
            .unwrap();
        drop((_reader, writer));
        let mut got = Vec::new();
        guest.read_to_end(&mut got).unwrap();
        let want: Vec<u8> = [&b"ab"[..], b"c", b""]
            .iter()
            .flat_map(|p| encode_frame(Channel::Stdin, p))
            .collect();
        assert_eq!(got, want);
    }
}
