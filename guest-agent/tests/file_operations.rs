//! Files put, fetched, listed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

mod support;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    thread,
};

use agent_protocol::{EntryKind, FailureKind, LIST_BATCH, Metadata, Reply, Request};
use support::{Host, Outcome, wait_until};

fn put(host: &Host, path: &str, mode: u32, data: &[u8]) -> Outcome {
    let stream = host.begin(Request::Put {
        path: path.into(),
        mode,
    });
    let mut writer = stream.writer();
    let data = data.to_vec();
    // A refused file is not read: writing it fails then, as it may.
    let writing = thread::spawn(move || writer.stdin(&data).and_then(|()| writer.end()));
    let outcome = stream.outcome();
    let _ = writing.join().unwrap();
    outcome
}

fn ask(host: &Host, request: Request) -> Outcome {
    host.begin(request).outcome()
}

#[track_caller]
fn metadata(outcome: &Outcome) -> &Metadata {
    match &outcome.replies[..] {
        [Reply::Metadata(metadata), Reply::Done] => metadata,
        other => panic!("{other:?}, {:?}", outcome.failure),
    }
}

#[track_caller]
fn refused(outcome: Outcome) -> FailureKind {
    outcome.failure.expect("refused").kind
}

#[test]
fn a_file_put_and_fetched_is_the_same_with_its_mode_and_its_owner() {
    let host = Host::start();
    let data: Vec<u8> = (0..3_000_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    assert_eq!(put(&host, "a file", 0o751, &data).replies, [Reply::Done]);
    let there = fs::metadata(host.home().join("a file")).unwrap();
    assert_eq!(there.mode() & 0o7777, 0o751);
    if rustix::process::geteuid().is_root() {
        assert_eq!((there.uid(), there.gid()), (1000, 1000));
    }
    let fetched = ask(
        &host,
        Request::Get {
            path: b"a file".into(),
        },
    );
    let described = metadata(&fetched);
    assert_eq!(
        (described.kind, described.mode, described.size),
        (EntryKind::File, 0o751, 3_000_000)
    );
    assert!(fetched.stdout == data);
    assert_eq!(names(&host.home()), ["a file", "mnt"]);
}

#[test]
fn an_empty_file_and_a_file_in_place_of_another_work() {
    let host = Host::start();
    assert_eq!(put(&host, "x", 0o600, b"").replies, [Reply::Done]);
    assert_eq!(put(&host, "x", 0o644, b"new").replies, [Reply::Done]);
    assert_eq!(fs::read(host.home().join("x")).unwrap(), b"new");
}

#[test]
fn what_is_made_belongs_to_the_owner_of_its_directory() {
    if !rustix::process::geteuid().is_root() {
        return skipped::because("giving files away takes root");
    }
    let host = Host::start();
    let root = host.root.path();
    fs::create_dir(root.join("rooted")).unwrap();
    fs::create_dir(root.join("shared")).unwrap();
    fs::set_permissions(root.join("shared"), fs::Permissions::from_mode(0o1777)).unwrap();
    for (directory, owner) in [("rooted", 0), ("shared", 1000)] {
        let path = root.join(directory).join("new/f").display().to_string();
        let parent = root.join(directory).join("new").display().to_string();
        ask(
            &host,
            Request::MakeDirectory {
                path: parent.clone().into(),
                mode: 0o700,
            },
        );
        put(&host, &path, 0o600, b"x");
        ask(
            &host,
            Request::MakeSymlink {
                path: format!("{parent}/l").into(),
                target: b"f".into(),
            },
        );
        for made in [&parent, &path, &format!("{parent}/l")] {
            assert_eq!(fs::symlink_metadata(made).unwrap().uid(), owner, "{made}");
        }
    }
}

#[test]
fn a_file_not_sent_to_its_end_leaves_nothing() {
    let host = Host::start();
    let stream = host.begin(Request::Put {
        path: b"half".into(),
        mode: 0o644,
    });
    stream.writer().stdin(&[b'x'; 100_000]).unwrap();
    wait_until("it is being written", || names(&host.home()).len() == 2);
    drop(stream);
    wait_until("the part is gone", || names(&host.home()) == ["mnt"]);
}

#[test]
fn what_is_no_regular_file_is_neither_read_nor_replaced() {
    let host = Host::start();
    let fifo = host.home().join("fifo");
    let mode = rustix::fs::Mode::RWXU;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    for path in ["fifo", "mnt", "/dev/zero"] {
        assert_eq!(
            refused(ask(&host, Request::Get { path: path.into() })),
            FailureKind::Invalid,
            "{path}"
        );
        assert_eq!(
            refused(put(&host, path, 0o644, b"x")),
            FailureKind::Invalid,
            "{path}"
        );
    }
    assert_eq!(
        refused(ask(&host, Request::Get { path: b"none".into() })),
        FailureKind::NotFound
    );
    for path in ["none/x", ".."] {
        let kind = refused(put(&host, path, 0o644, b"x"));
        assert!(
            matches!(kind, FailureKind::NotFound | FailureKind::Invalid),
            "{path}"
        );
    }
    for path in [&b""[..], b"a\0b"] {
        assert_eq!(
            refused(ask(&host, Request::Stat { path: path.into() })),
            FailureKind::Invalid
        );
    }
}

#[test]
fn a_file_of_the_kernel_that_says_it_is_empty_is_read_all_the_same() {
    let host = Host::start();
    let fetched = ask(
        &host,
        Request::Get {
            path: b"/proc/cpuinfo".into(),
        },
    );
    assert_eq!(metadata(&fetched).size, 0);
    assert!(fetched.stdout.starts_with(b"processor"));
}

#[test]
fn a_large_directory_is_listed_in_batches_with_every_name() {
    let host = Host::start();
    fs::create_dir(host.home().join("d")).unwrap();
    let count = 2 * LIST_BATCH + 7;
    for i in 0..count {
        fs::write(host.home().join(format!("d/{i:0>200}")), "").unwrap();
    }
    symlink("nowhere", host.home().join("d/link")).unwrap();
    let listed = ask(&host, Request::List { path: b"d".into() });
    let mut entries = Vec::new();
    for reply in &listed.replies {
        match reply {
            Reply::Entries(batch) => entries.extend(batch.clone()),
            reply => assert_eq!(reply, &Reply::Done),
        }
    }
    assert_eq!(entries.len(), count + 1);
    assert!(
        entries
            .iter()
            .all(|entry| (entry.kind == EntryKind::Symlink) == (entry.name == b"link"))
    );
    assert_eq!(listed.replies.len(), 4);
}

#[test]
fn a_symbolic_link_is_described_not_followed_and_replaced_by_another() {
    let host = Host::start();
    for target in ["/first", "../second"] {
        let request = Request::MakeSymlink {
            path: b"link".into(),
            target: target.into(),
        };
        assert_eq!(ask(&host, request).replies, [Reply::Done]);
        let described = ask(&host, Request::Stat { path: b"link".into() });
        assert_eq!(metadata(&described).kind, EntryKind::Symlink);
        assert_eq!(metadata(&described).target, target.as_bytes());
    }
    let on_directory = Request::MakeSymlink {
        path: b"mnt".into(),
        target: b"x".into(),
    };
    assert_eq!(refused(ask(&host, on_directory)), FailureKind::Invalid);
}

#[test]
fn a_directory_is_made_with_its_parents_and_being_there_is_success() {
    let host = Host::start();
    for mode in [0o700, 0o755] {
        let request = Request::MakeDirectory {
            path: b"a/b/c".into(),
            mode,
        };
        assert_eq!(ask(&host, request).replies, [Reply::Done]);
    }
    assert_eq!(
        fs::metadata(host.home().join("a/b/c")).unwrap().mode() & 0o7777,
        0o700
    );
    fs::write(host.home().join("f"), "").unwrap();
    let over_file = Request::MakeDirectory {
        path: b"f".into(),
        mode: 0o755,
    };
    assert_eq!(refused(ask(&host, over_file)), FailureKind::Invalid);
}

fn names(directory: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
