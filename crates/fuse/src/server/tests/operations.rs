//! Every operation, well formed.

use super::*;
use crate::{
    Attributes, Caller, Entry, FileKind, NodeId,
    server::tests::recorder::{ATTRIBUTES, BORN, STATUS, found},
    testing::ask_raw,
    wire::{O_APPEND, O_DSYNC, O_SYNC, WRITE_CACHE, WRITE_KILL_SUIDGID},
};

#[test]
fn every_message_becomes_the_call_it_means() {
    for (message, call) in MESSAGES.iter() {
        let server = recorder();
        let errno = ask(&server, message).and_then(|answer| answer.error());
        assert_eq!(errno, None, "{call}");
        assert_eq!(server.file_system().calls(), *call);
    }
}

#[test]
fn every_opcode_is_in_one_of_the_tables() {
    let known: Vec<u32> = MESSAGES
        .iter()
        .map(|(message, _)| message)
        .chain(OURS.iter())
        .map(|message| u32::from_ne_bytes(message.as_bytes()[4..8].try_into().unwrap()))
        .collect();
    for opcode in Opcode::ALL {
        assert!(
            known.contains(&(*opcode as u32)) || *opcode == Opcode::Init,
            "{opcode:?} is not tested"
        );
    }
}

#[test]
fn what_nobody_waits_for_is_not_answered() {
    let server = recorder();
    for message in [
        Message::forget(5, 3),
        Message::batch_forget(&[(5, 3)]),
        Message::interrupt(99),
        Message::of(Opcode::NotifyReply as u32, 5),
        // Nor when it is wrong.
        Message::forget(5, 3).cut(41),
        Message::batch_forget(&[(5, 3)]).cut(50),
    ] {
        assert_eq!(ask(&server, &message), None);
    }
}

#[test]
fn what_the_kernel_does_itself_is_not_implemented() {
    let server = recorder();
    for message in OURS.iter() {
        let opcode = u32::from_ne_bytes(message.as_bytes()[4..8].try_into().unwrap());
        let answer = ask(&server, message);
        let expected = match Opcode::parse(opcode).unwrap() {
            Opcode::Interrupt | Opcode::NotifyReply => None,
            Opcode::Release | Opcode::ReleaseDir => Some(None),
            _ => Some(Some(Errno::NOSYS)),
        };
        assert_eq!(answer.map(|answer| answer.error()), expected, "opcode {opcode}");
    }
    assert_eq!(server.file_system().calls(), "");
}

#[test]
fn an_unknown_opcode_is_not_implemented() {
    let server = recorder();
    for opcode in [0, 7, 19, 53, 99, 4096, u32::MAX] {
        assert_eq!(
            error(&server, &Message::of(opcode, 1)),
            Some(Errno::NOSYS),
            "{opcode}"
        );
    }
}

#[test]
fn an_entry_tells_all_there_is_to_know() {
    let server = recorder();
    let entry = answered(&server, &Message::lookup(1, b"name")).entry().unwrap();
    assert_eq!(format!("{entry:?}"), format!("{:?}", found()));
}

#[test]
fn an_absent_name_is_no_error_and_has_no_node() {
    let server = recorder();
    let answer = answered(&server, &Message::lookup(1, b"absent"));
    assert!(matches!(answer.entry().unwrap(), Entry::Absent { valid } if valid.as_secs() == 9));
    assert_eq!(answer.node(), Err(Errno::NOENT));
}

#[test]
fn attributes_arrive_as_they_were_given() {
    let server = recorder();
    let attributes = answered(&server, &Message::getattr(5)).attributes().unwrap();
    assert_eq!(attributes, ATTRIBUTES);
    let born = answered(&server, &Message::statx(5)).born().unwrap();
    assert_eq!(born, Some(BORN));
    let status = answered(&server, &Message::statfs(5)).status().unwrap();
    assert_eq!(status, STATUS);
}

#[test]
fn statx_of_a_file_whose_birth_nobody_knows_does_not_claim_one() {
    let out = crate::server::convert::statx_out(&Attributes {
        device: 0x0012_3456,
        ..ATTRIBUTES
    });
    assert_eq!(out.statx.mask, 0x7ff);
    assert_eq!((out.statx.device_major, out.statx.device_minor), (0x234, 0x156));
}

#[test]
fn the_caller_is_who_the_header_says() {
    let server = recorder();
    let caller = Caller {
        uid: 1,
        gid: 2,
        pid: 3,
    };
    answered(&server, &Message::lookup(1, b"name").by(caller));
    assert_eq!(server.file_system().last_caller(), Some(caller));
}

#[test]
fn what_create_makes_is_released_by_its_handle_and_what_open_opens_is_not() {
    let server = recorder();
    let (entry, fh) = answered(&server, &Message::create(1, b"name", 0, 0o644))
        .created()
        .unwrap();
    assert!(matches!(entry, Entry::Found { node: NodeId(50), .. }));
    let (_, temporary) = answered(&server, &Message::tmpfile(1, 0o644)).created().unwrap();
    assert_eq!(temporary, fh);
    server.file_system().calls();
    for (fh, error, calls) in [
        (0, None, ""),
        (fh, None, "release 50"),
        (2, Some(Errno::BADF), ""),
    ] {
        assert_eq!(super::error(&server, &Message::release(50, fh)), error);
        assert_eq!(server.file_system().calls(), calls);
    }
}

#[test]
fn what_is_cached_of_a_file_goes_when_creating_it_empties_it() {
    let server = recorder();
    for (flags, keeps) in [(0, 2_u32), (O_TRUNC, 0)] {
        let answer = answered(&server, &Message::create(1, b"name", flags, 0o644));
        let body = answer.result().unwrap();
        assert_eq!(body[136..140], keeps.to_ne_bytes());
    }
}

#[test]
fn a_write_carries_the_flags_that_matter() {
    let server = recorder();
    for (flags, write_flags, expected) in [
        (0, 0, ""),
        (O_APPEND, 0, "APPEND"),
        (O_SYNC, 0, "SYNC"),
        (O_DSYNC, 0, "DATA_SYNC"),
        (0, WRITE_CACHE, "FROM_CACHE"),
        (0, WRITE_KILL_SUIDGID, "KILL_PRIVILEGES"),
        (0o2, 2, ""),
    ] {
        let message = Message::write_with(5, 0, b"x", (flags, write_flags));
        assert_eq!(answered(&server, &message).written(), Ok(1));
        assert_eq!(
            server.file_system().calls(),
            format!("write 5 0 \"x\" {expected}")
        );
    }
}

#[test]
fn a_read_that_ends_early_is_as_long_as_its_data() {
    let server = recorder();
    let answer = answered(&server, &Message::read(5, 0, 100));
    assert_eq!(answer.result(), Ok(&b"content"[..]));
    assert_eq!(answered(&server, &Message::read(5, 0, 0)).result(), Ok(&b""[..]));
}

#[test]
fn the_largest_write_arrives_whole() {
    let server = recorder();
    let data = vec![b'x'; crate::MAX_WRITE];
    assert_eq!(
        answered(&server, &Message::write(5, 0, &data)).written(),
        Ok(1 << 20)
    );
}

#[test]
fn no_more_is_said_to_be_copied_than_was_asked_for() {
    let server = recorder();
    let message = Message::copy_file_range((5, 0), (6, 0), 30);
    assert_eq!(answered(&server, &message).written(), Ok(30));
}

#[test]
fn a_size_of_zero_asks_for_the_size_and_one_that_is_too_small_is_told_so() {
    let server = recorder();
    let name = b"user.a";
    assert_eq!(answered(&server, &Message::getxattr(5, name, 0)).size(), Ok(7));
    assert_eq!(answered(&server, &Message::listxattr(5, 0)).size(), Ok(14));
    assert_eq!(error(&server, &Message::getxattr(5, name, 6)), Some(Errno::RANGE));
    assert_eq!(error(&server, &Message::listxattr(5, 13)), Some(Errno::RANGE));
    let whole = answered(&server, &Message::getxattr(5, name, 7));
    assert_eq!(whole.result(), Ok(&b"a value"[..]));
}

#[test]
fn a_directory_is_listed_as_far_as_the_kernel_has_room() {
    let server = recorder();
    let listing = answered(&server, &Message::readdir(1, 0, 100))
        .listing(false)
        .unwrap();
    let names: Vec<_> = listing.iter().map(|listed| listed.name.as_slice()).collect();
    // 32 bytes each: the header of 24, and the name up to the next multiple of 8.
    assert_eq!(names, [&b"."[..], b"..", b"n"]);
    assert_eq!(listing[2].inode, 102);
    assert_eq!(listing[2].next, 3);
    assert_eq!(listing[2].kind, Some(FileKind::Directory));
    for size in 0..32 {
        let answer = answered(&server, &Message::readdir(1, 0, size));
        assert_eq!(answer.result(), Ok(&b""[..]), "{size}");
    }
}

#[test]
fn readdirplus_counts_what_it_lists_and_never_the_dots() {
    let server = recorder();
    let listing = answered(&server, &Message::readdirplus(1, 0, 4096))
        .listing(true)
        .unwrap();
    assert!(listing.len() > 20, "{}", listing.len());
    for listed in &listing {
        let dots = matches!(listed.name.as_slice(), b"." | b"..");
        assert_eq!(listed.entry.is_none(), dots, "{:?}", listed.name);
        assert_eq!(listed.inode, 77);
    }
}

#[test]
fn a_listing_fills_its_room_and_never_overfills_it() {
    let server = recorder();
    for size in (0..2000).step_by(7) {
        let message = Message::readdirplus(1, 250, size);
        let answer = ask_raw(&server, message.as_bytes(), 16 + size as usize).unwrap();
        let body = answer.result().unwrap();
        assert!(body.len() <= size as usize);
        assert!(body.len() + 408 > size as usize, "{} of {size}", body.len());
        answer.listing(true).unwrap();
    }
}
