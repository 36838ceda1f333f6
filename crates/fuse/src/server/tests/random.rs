//! Messages made of chance. What holds for each: no panic, no byte copied twice, no reply that contradicts itself.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{null::NullFileSystem, testing::ask_raw};

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..300), room in 0_usize..5000) {
        ask_raw(&started(NullFileSystem), &bytes, room);
    }

    /// The header is right, so that what stands behind it is looked at.
    #[test]
    fn any_body_is_survived(
        opcode in 0_u32..60,
        node in 0_u64..8,
        body in vec(prop_oneof![Just(0_u8), Just(b'/'), any::<u8>()], 0..300),
        room in 0_usize..5000,
    ) {
        let message = Message::of(opcode, node).and(&body);
        ask_raw(&started(NullFileSystem), message.as_bytes(), room);
    }

    #[test]
    fn a_good_message_with_some_bytes_changed_is_survived(
        which in 0..MESSAGES.len(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        room in 0_usize..5000,
    ) {
        let mut bytes = MESSAGES[which].0.as_bytes().to_vec();
        for (at, byte) in changes {
            *at.get_mut(&mut bytes) = byte;
        }
        ask_raw(&recorder(), &bytes, room);
    }

    /// Names are the one thing a message says that could lead out of a folder.
    #[test]
    fn whatever_name_arrives_is_one_component(name in vec(prop_oneof![Just(b'.'), Just(b'/'), any::<u8>()], 0..5)) {
        let server = recorder();
        for message in messages_with_name(&name) {
            ask(&server, &message);
        }
        let good = !name.contains(&0) && !name.contains(&b'/') && ![&b""[..], b".", b".."].contains(&name.as_slice());
        prop_assert_eq!(!server.file_system().calls().is_empty(), good);
    }
}
