//! Messages no kernel sends: none of them may reach the file system.

use super::*;
use crate::{Answered, buffer::ReplyRoom, testing::Once, wire::SetAttrValid};

/// Asks, and holds that the file system was not.
fn refused(server: &Server<Recorder>, message: &Message, what: &str) -> Option<Errno> {
    let answer = ask(server, message);
    assert_eq!(server.file_system().calls(), "", "{what}");
    let error = answer.as_ref().map(Answer::error);
    assert_ne!(error, Some(None), "{what} was answered {answer:?}");
    error.flatten()
}

#[test]
fn no_beginning_of_a_message_is_a_message() {
    let server = recorder();
    let init = (Message::init(), "init");
    for (message, call) in MESSAGES.iter().chain([&init]) {
        for len in 0..message.as_bytes().len() {
            let what = format!("{call}, {len} bytes");
            if len >= 40 {
                refused(&server, &message.clone().cut(len), &what);
            }
            // The header still tells the whole length.
            let mut room = [0; 4096];
            let answered = server.answer(
                &mut Once::new(&message.as_bytes()[..len]),
                &mut ReplyRoom(&mut room),
            );
            match len {
                0..40 => assert_eq!(answered, Answered::Broken, "{what}"),
                _ => assert!(
                    matches!(answered, Answered::Reply(16) | Answered::Silence),
                    "{what}"
                ),
            }
            assert_eq!(server.file_system().calls(), "", "{what}");
        }
    }
}

#[test]
fn nothing_may_stand_behind_a_message() {
    let server = recorder();
    for (message, call) in MESSAGES.iter() {
        for tail in [&b"\0"[..], b"x", b"more\0", &[0; 8]] {
            refused(&server, &message.clone().and(tail), call);
        }
    }
}

#[test]
fn a_header_that_does_not_tell_the_length_is_refused() {
    let server = recorder();
    for (message, call) in MESSAGES.iter() {
        let len = message.as_bytes().len() as u32;
        for told in [0, 1, 39, 40, len - 1, len + 1, u32::MAX] {
            if told != len {
                refused(&server, &message.clone().replace(0..4, &told.to_ne_bytes()), call);
            }
        }
    }
}

#[test]
fn extensions_nobody_agreed_on_are_refused() {
    let server = recorder();
    for (message, call) in MESSAGES.iter() {
        refused(
            &server,
            &message.clone().replace(36..38, &1_u16.to_ne_bytes()),
            call,
        );
    }
}

#[test]
fn a_name_is_one_component_in_every_operation_that_has_one() {
    let server = recorder();
    let long = vec![b'x'; 256];
    let longer = vec![b'x'; 1024];
    for (name, errno) in [
        (&b""[..], Errno::INVAL),
        (b".", Errno::INVAL),
        (b"..", Errno::INVAL),
        (b"/", Errno::INVAL),
        (b"/etc/passwd", Errno::INVAL),
        (b"a/b", Errno::INVAL),
        (b"a/", Errno::INVAL),
        (b"../a", Errno::INVAL),
        (&long, Errno::NAMETOOLONG),
        (&longer, Errno::NAMETOOLONG),
    ] {
        for message in messages_with_name(name) {
            let shown = String::from_utf8_lossy(name);
            assert_eq!(
                refused(&server, &message, &shown),
                Some(errno),
                "{message:?} {shown}"
            );
        }
    }
}

#[test]
fn a_nul_inside_a_name_hides_nothing() {
    let server = recorder();
    for name in [&b"a\0b"[..], b"\0", b"a\0", b"\0a", b"a\0/", b"good\0../x"] {
        for message in messages_with_name(name) {
            refused(&server, &message, &format!("{message:?}"));
        }
    }
}

#[test]
fn the_longest_name_and_the_strangest_are_names() {
    let server = recorder();
    let longest = vec![0xff; 255];
    for name in [&longest[..], b"...", b"..a", b" ", b"\n", b"-rf", b"\\"] {
        for message in messages_with_name(name) {
            let errno = error(&server, &message);
            assert_eq!(errno, None, "{message:?}");
        }
    }
}

#[test]
fn a_link_says_something_and_not_too_much() {
    let server = recorder();
    let text = |len| Message::symlink(1, b"name", &vec![b'x'; len]);
    assert_eq!(refused(&server, &text(0), "empty"), Some(Errno::INVAL));
    assert_eq!(refused(&server, &text(4096), "long"), Some(Errno::NAMETOOLONG));
    assert_eq!(error(&server, &text(1)), None);
    assert_eq!(error(&server, &text(4095)), None);
}

#[test]
fn nodes_are_neither_directories_nor_links_nor_nothing() {
    let server = recorder();
    for mode in [0, 0o644, 0o040_755, 0o120_777, 0o170_000, 0o150_000] {
        let message = Message::mknod(1, b"name", mode);
        assert_eq!(
            refused(&server, &message, "mknod"),
            Some(Errno::INVAL),
            "{mode:o}"
        );
    }
}

#[test]
fn flags_nobody_knows_are_refused() {
    let server = recorder();
    for flags in [3, 4, 8, u32::MAX] {
        let message = Message::rename2((1, b"a"), (1, b"b"), flags);
        assert_eq!(
            refused(&server, &message, "rename"),
            Some(Errno::INVAL),
            "{flags}"
        );
    }
    for flags in [4, u32::MAX] {
        let message = Message::setxattr(5, b"user.a", b"", flags);
        assert_eq!(refused(&server, &message, "setxattr"), Some(Errno::INVAL));
    }
    for whence in [0, 1, 2, 5, u32::MAX] {
        assert_eq!(
            refused(&server, &Message::lseek(5, 0, whence), "lseek"),
            Some(Errno::INVAL)
        );
    }
    let copy = Message::copy_file_range((5, 0), (6, 0), 1).replace(88..96, &1_u64.to_ne_bytes());
    assert_eq!(refused(&server, &copy, "copy"), Some(Errno::INVAL));
    let unknown = SetAttrValid::all().bits() + 1;
    let setattr = Message::setattr(5, &Changes::default()).replace(40..44, &unknown.to_ne_bytes());
    assert_eq!(refused(&server, &setattr, "setattr"), Some(Errno::INVAL));
}

#[test]
fn a_second_has_a_billion_nanoseconds() {
    let server = recorder();
    for nanoseconds in [1_000_000_000, u32::MAX] {
        let time = Some(TimeChange::To(Timestamp {
            seconds: 0,
            nanoseconds,
        }));
        for changes in [
            Changes {
                accessed: time,
                ..Changes::default()
            },
            Changes {
                modified: time,
                ..Changes::default()
            },
        ] {
            let message = Message::setattr(5, &changes);
            assert_eq!(refused(&server, &message, "setattr"), Some(Errno::INVAL));
        }
    }
}

#[test]
fn a_count_that_is_not_that_of_the_message_forgets_nothing() {
    let server = recorder();
    for count in [0, 1, 3, 0x1000_0000, u32::MAX] {
        let message = Message::batch_forget(&[(5, 1), (6, 1)]).replace(40..44, &u32::to_ne_bytes(count));
        assert_eq!(ask(&server, &message), None);
        assert_eq!(server.file_system().calls(), "", "{count}");
    }
}

#[test]
fn many_are_forgotten_however_many_there_are() {
    let server = recorder();
    for count in [0, 1, 63, 64, 65, 1000] {
        let forgets: Vec<_> = (0..count).map(|node| (node, node + 1)).collect();
        ask(&server, &Message::batch_forget(&forgets));
        let expected: Vec<_> = forgets
            .iter()
            .map(|(node, lookups)| format!("forget {node} {lookups}"))
            .collect();
        assert_eq!(server.file_system().calls(), expected.join(", "));
    }
}
