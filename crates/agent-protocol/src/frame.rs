//! The five bytes before every payload, and postcard around messages.

use serde::{Serialize, de::DeserializeOwned};

use crate::{MAX_DATA, MAX_MESSAGE_TO_GUEST, MAX_MESSAGE_TO_HOST};

/// What a frame's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// A postcard message; which type is told by the connection's role and direction.
    Message,
    /// Bytes for a command's standard input or a file being put. Empty: end of file.
    Stdin,
    /// Bytes of a command's standard output, a terminal, or a file being read.
    Stdout,
    Stderr,
}

impl Channel {
    fn code(self) -> u8 {
        match self {
            Channel::Message => 0,
            Channel::Stdin => 1,
            Channel::Stdout => 2,
            Channel::Stderr => 3,
        }
    }

    fn from_code(code: u8) -> Result<Self, FrameError> {
        match code {
            0 => Ok(Channel::Message),
            1 => Ok(Channel::Stdin),
            2 => Ok(Channel::Stdout),
            3 => Ok(Channel::Stderr),
            code => Err(FrameError::UnknownChannel { code }),
        }
    }
}

/// Who reads, and so how long a message may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    ToGuest,
    ToHost,
}

impl Limit {
    fn max(self, channel: Channel) -> usize {
        match (channel, self) {
            (Channel::Message, Limit::ToGuest) => MAX_MESSAGE_TO_GUEST,
            (Channel::Message, Limit::ToHost) => MAX_MESSAGE_TO_HOST,
            _ => MAX_DATA,
        }
    }
}

/// Length and channel of the payload that follows. On the wire: `u32` little-endian length, `u8` channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    channel: Channel,
    len: usize,
}

impl Header {
    pub const SIZE: usize = 5;

    /// A header is refused before a byte of its payload is read or room for it is made.
    pub fn parse(bytes: [u8; Self::SIZE], limit: Limit) -> Result<Self, FrameError> {
        let [a, b, c, d, code] = bytes;
        let channel = Channel::from_code(code)?;
        let len = u32::from_le_bytes([a, b, c, d]) as usize;
        let max = limit.max(channel);
        if len > max {
            return Err(FrameError::TooLong { channel, len, max });
        }
        Ok(Header { channel, len })
    }

    /// The header of a data frame. `len` is at most [`MAX_DATA`]; a caller with more cuts it up.
    pub fn data(channel: Channel, len: usize) -> [u8; Self::SIZE] {
        debug_assert!(len <= MAX_DATA);
        header_bytes(channel, len)
    }

    pub fn channel(self) -> Channel {
        self.channel
    }

    pub fn len(self) -> usize {
        self.len
    }

    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// A whole message frame, header included.
pub fn encode<M: Serialize>(message: &M, limit: Limit) -> Result<Vec<u8>, FrameError> {
    let mut frame = postcard::to_extend(message, vec![0; Header::SIZE]).map_err(FrameError::Encode)?;
    let len = frame.len() - Header::SIZE;
    let max = limit.max(Channel::Message);
    if len > max {
        return Err(FrameError::TooLong {
            channel: Channel::Message,
            len,
            max,
        });
    }
    if let Some(head) = frame.first_chunk_mut() {
        *head = header_bytes(Channel::Message, len);
    }
    Ok(frame)
}

/// A whole data frame, header included, for data that is small or must go out in one write.
pub fn encode_frame(channel: Channel, data: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(Header::SIZE + data.len());
    frame.extend_from_slice(&Header::data(channel, data.len()));
    frame.extend_from_slice(data);
    frame
}

/// The message in a payload; bytes left over are an error, so that two readers cannot disagree.
pub fn decode<M: DeserializeOwned>(payload: &[u8]) -> Result<M, FrameError> {
    let (message, rest) = postcard::take_from_bytes(payload).map_err(FrameError::Decode)?;
    if !rest.is_empty() {
        return Err(FrameError::Trailing { len: rest.len() });
    }
    Ok(message)
}

fn header_bytes(channel: Channel, len: usize) -> [u8; Header::SIZE] {
    let [a, b, c, d] = u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
    [a, b, c, d, channel.code()]
}

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("unknown channel {code} in a frame header")]
    UnknownChannel { code: u8 },
    #[error("{channel:?} frame of {len} bytes, more than the {max} allowed")]
    TooLong {
        channel: Channel,
        len: usize,
        max: usize,
    },
    #[error("message does not encode")]
    Encode(#[source] postcard::Error),
    #[error("message does not decode")]
    Decode(#[source] postcard::Error),
    #[error("{len} bytes after the end of a message")]
    Trailing { len: usize },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Exec, Failure, FailureKind, Folder, HostMessage, Reply, Request, Setup, StreamId};

    #[test]
    fn a_message_survives_the_trip() {
        let exec = Exec::new([b"printf".to_vec(), b"\xff\x00".to_vec()]);
        let message = HostMessage::Start {
            id: StreamId(7),
            request: Request::Exec(exec),
        };
        let frame = encode(&message, Limit::ToGuest).unwrap();
        let (head, payload) = frame.split_first_chunk().unwrap();
        let header = Header::parse(*head, Limit::ToGuest).unwrap();
        assert_eq!(
            (header.channel(), header.len()),
            (Channel::Message, payload.len())
        );
        assert_eq!(decode::<HostMessage>(payload).unwrap(), message);
    }

    #[test]
    fn the_requests_about_folders_survive_the_trip() {
        let folder = Folder {
            name: b"my \xff docs".to_vec(),
            read_only: true,
        };
        let detach = Request::DetachFolder {
            name: folder.name.clone(),
            wait_ms: u64::MAX,
            cut: false,
        };
        let start = |request| HostMessage::Start {
            id: StreamId(7),
            request,
        };
        let welcome = HostMessage::Welcome(Setup {
            session: "calm-otter".into(),
            unix_ns: 1,
            env: Vec::new(),
            folders: vec![folder.clone()],
            network: None,
            certificates: Some(b"PEM".to_vec()),
        });
        for message in [welcome, start(Request::AttachFolder(folder)), start(detach)] {
            let frame = encode(&message, Limit::ToGuest).unwrap();
            assert_eq!(decode::<HostMessage>(&frame[Header::SIZE..]).unwrap(), message);
        }
        let busy = Reply::Failed(Failure {
            kind: FailureKind::Busy,
            message: "'docs' is in use by sh (pid 1)".into(),
        });
        let frame = encode(&busy, Limit::ToHost).unwrap();
        assert_eq!(decode::<Reply>(&frame[Header::SIZE..]).unwrap(), busy);
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_payload() {
        let head = header_bytes(Channel::Message, MAX_MESSAGE_TO_HOST + 1);
        assert!(matches!(
            Header::parse(head, Limit::ToHost),
            Err(FrameError::TooLong { .. })
        ));
        assert!(Header::parse(head, Limit::ToGuest).is_ok());
        let head = header_bytes(Channel::Stdout, MAX_DATA + 1);
        assert!(matches!(
            Header::parse(head, Limit::ToGuest),
            Err(FrameError::TooLong { .. })
        ));
    }

    #[test]
    fn bytes_after_a_message_are_refused() {
        let mut payload = postcard::to_stdvec(&Reply::Done).unwrap();
        payload.push(0);
        assert!(matches!(
            decode::<Reply>(&payload),
            Err(FrameError::Trailing { len: 1 })
        ));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = decode::<Reply>(&bytes);
            let _ = decode::<HostMessage>(&bytes);
            let _ = decode::<crate::Hello>(&bytes);
            let _ = decode::<crate::GuestMessage>(&bytes);
            if let Some(head) = bytes.first_chunk() {
                let _ = Header::parse(*head, Limit::ToHost);
            }
        }
    }
}
