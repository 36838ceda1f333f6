//! The server over a file system that keeps nothing.

use fuse::{Server, null::NullFileSystem, testing};

use crate::{Input, Kind, known::Known};

/// What that has in it.
const NODES: [u64; 5] = [1, 2, 3, 4, 5];

/// # Panics
/// When the server panics, or when [`testing`] sees that a reply contradicts itself or is larger than its room.
pub fn run(input: &Input) {
    let server = match input.steps.first().map(crate::Step::kind) {
        // The handshake itself is to be seen from before it.
        Some(Kind::Init | Kind::Raw) => Server::new(NullFileSystem),
        _ => testing::started(NullFileSystem),
    };
    let mut known = Known::with(&NODES);
    for step in &input.steps {
        let (request, room) = step.request(&known);
        let answer = testing::ask_raw(&server, &request, room);
        if let Some(Ok(body)) = answer.as_ref().map(testing::Answer::result) {
            assert!(
                body.len() + 16 <= room,
                "a reply of {} in a room of {room}",
                body.len()
            );
        }
        known.note(&request, answer.as_ref());
    }
}
