//! The handshake.

use super::*;
use crate::{
    Entry, Weight,
    server::Peek,
    testing::Started,
    wire::{InitFlags, OpenFlags},
};

fn init(server: &Server<Recorder>, message: &Message) -> Started {
    answered(server, message).started().unwrap()
}

#[test]
fn nothing_is_answered_before_init() {
    for (message, call) in MESSAGES.iter() {
        let server = Server::new(Recorder::default());
        let errno = ask(&server, message).map(|answer| answer.error());
        assert!(matches!(errno, None | Some(Some(Errno::IO))), "{call}: {errno:?}");
        assert_eq!(server.file_system().calls(), "");
    }
}

#[test]
fn a_kernel_that_offers_everything_gets_what_we_want_and_no_more() {
    let server = Server::new(Recorder::default());
    let started = init(&server, &Message::init());
    assert_eq!(started.major, 7);
    assert_eq!(started.max_readahead, 128 << 10);
    assert_eq!((started.max_write, started.max_pages), (1 << 20, 256));
    assert_eq!(
        started.flags,
        InitFlags::all().difference(InitFlags::ASYNC_DIO).bits()
    );
    // WRITEBACK_CACHE, POSIX_ACL, CACHE_SYMLINKS, ATOMIC_O_TRUNC, ASYNC_DIO, SETXATTR_EXT, SECURITY_CTX, HAS_INODE_DAX.
    for unwanted in [16, 20, 23, 3, 15, 29, 32, 33] {
        assert_eq!(started.flags & (1 << unwanted), 0, "bit {unwanted}");
    }
}

#[test]
fn only_what_the_kernel_offered_is_agreed_on() {
    for bit in 0..64 {
        let server = Server::new(Recorder::default());
        let offered = 1 << bit | InitFlags::INIT_EXT.bits();
        let started = init(&server, &Message::init_with(7, 38, offered));
        assert_eq!(started.flags & !offered, 0, "bit {bit}");
    }
    let server = Server::new(Recorder::default());
    assert_eq!(init(&server, &Message::init_with(7, 31, 0)).flags, 0);
}

#[test]
fn the_older_version_of_the_two_is_spoken() {
    for (theirs, spoken) in [(31, 31), (36, 36), (41, 41), (42, 41), (u32::MAX, 41)] {
        let server = Server::new(Recorder::default());
        assert_eq!(init(&server, &Message::init_with(7, theirs, !0)).minor, spoken);
    }
}

#[test]
fn versions_too_old_to_speak_are_refused() {
    for (major, minor) in [(7, 0), (7, 26), (7, 30), (6, 99), (0, 0)] {
        let server = Server::new(Recorder::default());
        let message = Message::init_with(major, minor, 0);
        assert_eq!(error(&server, &message), Some(Errno::PROTO), "{major}.{minor}");
        assert_eq!(error(&server, &Message::lookup(1, b"name")), Some(Errno::IO));
    }
}

#[test]
fn a_newer_major_version_is_told_ours_and_asks_again() {
    let server = Server::new(Recorder::default());
    let told = init(&server, &Message::init_with(8, 0, 0));
    assert_eq!((told.major, told.flags), (7, 0));
    assert_eq!(error(&server, &Message::lookup(1, b"name")), Some(Errno::IO));
    init(&server, &Message::init());
    assert_eq!(error(&server, &Message::lookup(1, b"name")), None);
}

#[test]
fn an_init_of_a_newer_kernel_may_be_longer() {
    let server = Server::new(Recorder::default());
    init(&server, &Message::init().and(&[1; 64]));
}

#[test]
fn a_second_init_forgets_what_was_before_and_starts_afresh() {
    let server = recorder();
    assert_eq!(server.file_system().calls(), "");
    init(&server, &Message::init());
    assert_eq!(server.file_system().calls(), "forget_all");
    assert_eq!(error(&server, &Message::lookup(1, b"name")), None);
}

#[test]
fn destroy_forgets_and_ends_the_session_and_init_starts_it_again() {
    let server = recorder();
    assert_eq!(error(&server, &Message::destroy()), None);
    assert_eq!(server.file_system().calls(), "forget_all");
    assert_eq!(error(&server, &Message::lookup(1, b"name")), Some(Errno::IO));
    assert_eq!(error(&server, &Message::destroy()), Some(Errno::IO));
    init(&server, &Message::init());
    assert_eq!(error(&server, &Message::lookup(1, b"name")), None);
}

#[test]
fn a_kernel_that_cannot_do_without_open_is_answered() {
    for (flags, opens, opens_directories) in [
        (InitFlags::empty(), true, true),
        (InitFlags::NO_OPEN_SUPPORT, false, true),
        (InitFlags::NO_OPENDIR_SUPPORT, true, false),
    ] {
        let server = Server::new(Recorder::default());
        init(&server, &Message::init_with(7, 31, flags.bits()));
        let open = answered(&server, &Message::open(5, 0)).opened();
        let opendir = answered(&server, &Message::opendir(5)).opened();
        let keep = OpenFlags::KEEP_CACHE.bits();
        let expected = |opens, flags| if opens { Ok((0, flags)) } else { Err(Errno::NOSYS) };
        assert_eq!(open, expected(opens, keep));
        assert_eq!(
            opendir,
            expected(opens_directories, keep | OpenFlags::CACHE_DIR.bits())
        );
        assert_eq!(error(&server, &Message::release(5, 0)), None);
        assert_eq!(error(&server, &Message::releasedir(5)), None);
    }
}

#[test]
fn a_kernel_that_mounts_no_submounts_is_shown_none() {
    for (flags, shown) in [(InitFlags::empty(), false), (InitFlags::SUBMOUNTS, true)] {
        let server = Server::new(Recorder::default());
        init(&server, &Message::init_with(7, 31, flags.bits()));
        let found = answered(&server, &Message::lookup(1, b"name")).entry().unwrap();
        let listed = answered(&server, &Message::readdirplus(1, 0, 4096))
            .listing(true)
            .unwrap();
        let entries = listed
            .into_iter()
            .filter_map(|listed| listed.entry)
            .chain([found]);
        let marks: Vec<_> = entries
            .filter_map(|entry| match entry {
                Entry::Found { attributes, .. } => Some(attributes.submount),
                Entry::Absent { .. } => None,
            })
            .collect();
        assert!(
            marks.len() > 1 && marks.iter().all(|mark| *mark == shown),
            "{flags:?}: {marks:?}"
        );
    }
}

#[test]
fn what_waits_for_a_disk_is_slow_and_everything_else_is_quick() {
    let slow: Vec<_> = Opcode::ALL
        .iter()
        .filter(|opcode| Weight::of(**opcode as u32, 100) == Weight::Slow)
        .collect();
    assert_eq!(
        slow,
        [
            &Opcode::FSync,
            &Opcode::FSyncDir,
            &Opcode::Destroy,
            &Opcode::FAllocate,
            &Opcode::LSeek,
            &Opcode::CopyFileRange,
            &Opcode::SyncFs
        ]
    );
    assert_eq!(Weight::of(Opcode::Write as u32, 1 << 20), Weight::Quick);
    assert_eq!(Weight::of(Opcode::BatchForget as u32, 1 << 20), Weight::Slow);
    assert_eq!(Weight::of(u32::MAX, 40), Weight::Quick);
}

#[test]
fn a_look_at_a_request_tells_what_it_is() {
    let message = Message::fsync(5, false);
    let peek = Peek::at(message.as_bytes()).unwrap();
    assert_eq!((peek.opcode, peek.len), (20, 56));
    assert_eq!(peek.unique.to_ne_bytes(), message.as_bytes()[8..16]);
    assert_eq!(peek.weight(), Weight::Slow);
    assert_eq!(Peek::at(&message.as_bytes()[..39]), None);
}
