//! Sizes, offsets, and room.

use super::*;
use crate::{MAX_READ, MAX_WRITE, testing::ask_raw};

fn refusal(message: &Message) -> Option<Errno> {
    let server = recorder();
    let errno = error(&server, message);
    assert_eq!(server.file_system().calls(), "", "{errno:?}");
    errno
}

#[test]
fn nobody_reads_more_than_the_limit() {
    let more = MAX_READ as u32 + 1;
    for size in [more, u32::MAX] {
        assert_eq!(refusal(&Message::read(5, 0, size)), Some(Errno::INVAL));
        assert_eq!(refusal(&Message::readdir(5, 0, size)), Some(Errno::INVAL));
        assert_eq!(refusal(&Message::readdirplus(5, 0, size)), Some(Errno::INVAL));
    }
}

#[test]
fn nobody_writes_more_than_the_limit_or_than_was_sent() {
    let message = Message::write(5, 0, &vec![0; MAX_WRITE + 1]);
    assert_eq!(refusal(&message), Some(Errno::INVAL));
    for size in [0, 3, 5, u32::MAX] {
        let message = Message::write(5, 0, b"four").replace(56..60, &u32::to_ne_bytes(size));
        assert_eq!(refusal(&message), Some(Errno::INVAL), "{size}");
    }
}

#[test]
fn offsets_stay_below_what_linux_counts() {
    const END: u64 = i64::MAX as u64;
    for (message, errno) in [
        (Message::read(5, END - 3, 4), Errno::INVAL),
        (Message::read(5, u64::MAX, 1), Errno::INVAL),
        (Message::write(5, END - 3, b"four"), Errno::FBIG),
        (Message::write(5, u64::MAX, b"four"), Errno::FBIG),
        (Message::fallocate(5, (0, 0), 0), Errno::INVAL),
        (Message::fallocate(5, (END, 1), 0), Errno::FBIG),
        (Message::fallocate(5, (u64::MAX, u64::MAX), 0), Errno::FBIG),
        (Message::lseek(5, END + 1, 3), Errno::NXIO),
        (Message::copy_file_range((5, END), (6, 0), 1), Errno::INVAL),
        (Message::copy_file_range((5, 0), (6, END), 1), Errno::FBIG),
        (
            Message::setattr(
                5,
                &Changes {
                    size: Some(END + 1),
                    ..Changes::default()
                },
            ),
            Errno::FBIG,
        ),
    ] {
        assert_eq!(refusal(&message), Some(errno), "{message:?}");
    }
    for message in [
        Message::read(5, END - 4, 4),
        Message::write(5, END - 4, b"four"),
        Message::fallocate(5, (END - 1, 1), 0),
        Message::lseek(5, END, 3),
        // A copy is cut to what one request may copy, and must fit then.
        Message::copy_file_range((5, 0), (6, 0), u64::MAX),
    ] {
        assert_eq!(error(&recorder(), &message), None, "{message:?}");
    }
}

#[test]
fn the_longest_value_of_an_attribute_is_taken_and_a_longer_one_is_not() {
    let value = vec![b'v'; 1 << 16];
    assert_eq!(
        error(&recorder(), &Message::setxattr(5, b"user.a", &value, 0)),
        None
    );
    let longer = vec![b'v'; (1 << 16) + 1];
    assert_eq!(
        refusal(&Message::setxattr(5, b"user.a", &longer, 0)),
        Some(Errno::TOOBIG)
    );
    let message = Message::setxattr(5, b"user.a", b"value", 0).replace(40..44, &4_u32.to_ne_bytes());
    assert_eq!(refusal(&message), Some(Errno::INVAL));
}

#[test]
fn a_message_longer_than_any_is_refused_unread() {
    for len in [70_000, 1 << 20, 4 << 20] {
        let message = Message::of(Opcode::Lookup as u32, 1).and(&vec![b'x'; len]);
        assert_eq!(refusal(&message), Some(Errno::INVAL));
    }
}

/// What makes the kernel know a node, or makes something, is refused before it is done.
#[test]
fn where_the_reply_has_no_room_nothing_is_made() {
    for (message, call) in MESSAGES.iter() {
        let server = recorder();
        let Some(whole) = ask(&server, message) else {
            continue;
        };
        let len = 16 + whole.result().unwrap().len();
        server.file_system().calls();
        for room in 0..len {
            let server = recorder();
            let answer = ask_raw(&server, message.as_bytes(), room);
            match (room, answer) {
                (0..16, answer) => assert_eq!(answer, None, "{call}, {room}"),
                (_, answer) => assert!(
                    matches!(
                        answer.and_then(|answer| answer.error()),
                        Some(Errno::IO | Errno::RANGE)
                    ),
                    "{call}, {room}"
                ),
            }
            let asked = server.file_system().calls();
            let harmless = ["xattr", "list_xattrs", "read_link"];
            let has_body = len > 16;
            assert!(
                asked.is_empty() || !has_body || harmless.iter().any(|name| asked.starts_with(name)),
                "{asked} with room for {room} bytes"
            );
        }
    }
}
