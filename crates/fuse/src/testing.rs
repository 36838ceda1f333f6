//! The kernel's side, for tests: builds requests, also wrong ones, and takes replies apart.
//!
//! Not behind `cfg(test)`, since the tests of other crates and the fuzz targets speak through it too.
#![allow(
    clippy::expect_used,
    reason = "a test that goes on with a broken reply shows nothing"
)]

mod decode;
mod message;
mod once;

use rustix::io::Errno;
use zerocopy::FromBytes;

use crate::{Answered, FileSystem, Reply, Server, buffer::ReplyRoom, wire::OutHeader};

pub use decode::{Listed, Started};
pub use message::Message;
pub use once::Once;

/// Enough for the largest READ with its header.
pub const ROOM: usize = crate::MAX_READ + 16;

/// A server that has answered INIT as a recent kernel sends it.
///
/// # Panics
/// When it refuses.
pub fn started<F: FileSystem>(fs: F) -> Server<F> {
    let server = Server::new(fs);
    let answer = ask(&server, &Message::init()).expect("INIT is answered");
    assert_eq!(answer.error(), None, "INIT is refused");
    server
}

/// `None`: the server sends nothing.
///
/// # Panics
/// When the server copies a byte twice, or when what it sends contradicts itself.
pub fn ask<F: FileSystem>(server: &Server<F>, message: &Message) -> Option<Answer> {
    ask_raw(server, message.as_bytes(), ROOM)
}

/// [`ask`] with any bytes, and so much room for the reply.
///
/// # Panics
/// As [`ask`].
pub fn ask_raw<F: FileSystem>(server: &Server<F>, request: &[u8], room: usize) -> Option<Answer> {
    let mut reply = vec![0; room];
    match server.answer(&mut Once::new(request), &mut ReplyRoom(&mut reply)) {
        Answered::Reply(len) => {
            let reply = reply.get(..len).expect("the reply fits its room");
            Some(Answer::new(request, reply))
        }
        Answered::Silence | Answered::Broken => None,
    }
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    errno: Option<Errno>,
    body: Vec<u8>,
}

impl Answer {
    fn new(request: &[u8], reply: &[u8]) -> Self {
        let (header, body) = OutHeader::read_from_prefix(reply).expect("a reply has a header");
        assert_eq!(
            header.len as usize,
            reply.len(),
            "the header tells the length of the reply"
        );
        assert_eq!(
            Some(header.unique.to_ne_bytes().as_slice()),
            request.get(8..16),
            "the reply is that of this request"
        );
        if header.error == 0 {
            return Answer {
                errno: None,
                body: body.to_vec(),
            };
        }
        assert!((-4095..0).contains(&header.error), "{} is no errno", header.error);
        assert!(body.is_empty(), "an error has nothing behind its header");
        Answer {
            errno: Some(Errno::from_raw_os_error(-header.error)),
            body: Vec::new(),
        }
    }

    /// What stands behind the header.
    pub fn result(&self) -> Reply<&[u8]> {
        match self.errno {
            Some(errno) => Err(errno),
            None => Ok(&self.body),
        }
    }

    pub fn error(&self) -> Option<Errno> {
        self.errno
    }
}
