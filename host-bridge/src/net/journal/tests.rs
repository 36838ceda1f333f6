use std::{fs, net::IpAddr, os::unix::fs::PermissionsExt};

use egress_policy::{
    control::{End, What},
    link::{DropReason, Id, Protocol},
};

use super::{
    file::{BoundedFile, prune_to},
    total::{Open, Others, Reached, Refused, Subject, Why},
    *,
};
use crate::net::account::{Account, spent_by_record};

fn entry(flow: u64) -> Line {
    Line::Entry(Box::new(Entry {
        record: Record {
            unix_ms: 5,
            source: Some(40_000),
            protocol: Protocol::Tcp,
            target: Some(egress_policy::Target::Name(
                "example.com".to_owned().try_into().unwrap(),
            )),
            port: Some(443),
            what: What::Opened {
                flow: Id(flow),
                address: IpAddr::from([192, 0, 2, 1]),
                rule: "example.com".to_owned(),
            },
        },
        link: 1,
        by: None,
    }))
}

fn closed(flow: u64, sent: u64) -> Line {
    let Line::Entry(mut entry) = entry(flow) else {
        unreachable!("it is one");
    };
    entry.record.what = What::Closed {
        flow: Id(flow),
        sent,
        received: 1,
        end: End::Done,
    };
    Line::Entry(entry)
}

/// One of each kind.
fn totals() -> Vec<Line> {
    let subject = Subject {
        protocol: Protocol::Ip(47),
        target: Some(egress_policy::Target::Address(IpAddr::from([192, 0, 2, 1]))),
        port: None,
    };
    let address = Some(IpAddr::from([192, 0, 2, 1]));
    let by = Some(By {
        pid: None,
        command: "curl".to_owned(),
    });
    let (connections, sent, received, unix_ms) = (1, 2, 3, 4);
    let totals = [
        Total::Reached(Reached {
            subject: subject.clone(),
            address,
            connections,
            sent,
            received,
            unix_ms,
            by: by.clone(),
        }),
        Total::Open(Open {
            subject: subject.clone(),
            address,
            link: 1,
            flow: Id(7),
            sent,
            received,
        }),
        Total::Refused(Refused {
            subject,
            why: Why::Dropped(DropReason::Multicast),
            rule: None,
            address,
            count: 1,
            unix_ms,
            by,
        }),
        Total::Others(Others {
            connections,
            sent,
            received,
            refused: 5,
            unix_ms,
        }),
    ];
    totals
        .into_iter()
        .map(|total| Line::Total(Box::new(total)))
        .collect()
}

/// All that a run's files say, summed up.
fn account(run: &Run) -> Account {
    let mut account = Account::default();
    lines(run).iter().for_each(|line| account.add(line));
    account
}

fn new_file(directory: &std::path::Path, name: &str, max: u64) -> BoundedFile {
    BoundedFile::create(directory, &session(name), Spent::default(), max).unwrap()
}

fn policy() -> Line {
    Line::Policy(Policy {
        unix_ms: 4,
        policy: EgressPolicy::default(),
    })
}

fn session(name: &str) -> SessionName {
    name.parse().unwrap()
}

fn lines(run: &Run) -> Vec<Line> {
    let lines = run.lines().unwrap();
    lines.iter().map(|line| parse(line).unwrap()).collect()
}

#[test]
fn every_kind_of_line_reads_back_as_it_was_written() {
    let note = Line::Note(Note {
        unix_ms: 1,
        note: "x".to_owned(),
    });
    let start = Line::Start(Start {
        version: VERSION,
        session: session("box"),
        started_unix_ms: 3,
        spent: Spent {
            bytes: 4,
            connections: 1,
        },
        file: 1,
        repeats: 2,
    });
    let mut lines = vec![start, policy(), note, entry(1)];
    lines.extend(totals());
    for line in lines {
        assert_eq!(parse(&serde_json::to_vec(&line).unwrap()), Some(line));
    }
    assert_eq!(
        parse(b"{\"version\":3,\"session\":\"box\",\"started_unix_ms\":3}"),
        None
    );
    assert_eq!(parse(b"{\"unix_ms\":1,\"no"), None);
}

#[test]
fn a_file_that_is_full_takes_the_place_of_the_full_one_before_and_the_next_says_the_policy_again() {
    let root = tempfile::tempdir().unwrap();
    let mut file = new_file(root.path(), "box", 2000);
    file.append(&policy()).unwrap();
    for flow in 0..100 {
        file.append(&entry(flow)).unwrap();
        file.append(&closed(flow, 1)).unwrap();
    }
    let run = run_of(root.path(), None).unwrap().unwrap();
    for path in [run.place.current(), run.place.full()] {
        let found = fs::metadata(&path).unwrap();
        assert_eq!(found.permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(path).unwrap();
        let said: Vec<Line> = text.lines().map(|line| parse(line.as_bytes()).unwrap()).collect();
        let Line::Start(start) = &said[0] else {
            panic!("{said:?}");
        };
        assert_eq!(said[1], policy());
        let lines: usize = text
            .lines()
            .skip(start.repeats + 1)
            .map(|line| line.len() + 1)
            .sum();
        assert!(lines <= 2000, "{lines}");
    }
    let lines = lines(&run);
    assert_eq!(lines.last(), Some(&closed(99, 1)));
    let heads = lines.iter().filter(|line| matches!(line, Line::Start(_))).count();
    let policies = lines.iter().filter(|line| **line == policy()).count();
    assert_eq!((heads, policies), (1, 1));
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
}

#[test]
fn what_was_reached_first_is_known_however_much_comes_after_it() {
    let root = tempfile::tempdir().unwrap();
    let mut file = new_file(root.path(), "box", 2000);
    let other = |line: Line| {
        let Line::Entry(mut entry) = line else {
            unreachable!("it is one");
        };
        entry.record.port = Some(80);
        Line::Entry(entry)
    };
    // Longer than several files: what it carries later is no second connection.
    file.append(&entry(0)).unwrap();
    file.append(&entry(1)).unwrap();
    file.append(&closed(1, 5 << 30)).unwrap();
    for flow in 2..200 {
        file.append(&other(entry(flow))).unwrap();
        file.append(&other(closed(flow, 10))).unwrap();
    }
    let run = run_of(root.path(), None).unwrap().unwrap();
    file.append(&closed(0, 1000)).unwrap();
    let account = account(&run);
    let rows: Vec<_> = account
        .reached()
        .iter()
        .map(|row| (row.subject.port, row.connections, row.sent))
        .collect();
    assert_eq!(rows, [(Some(443), 2, (5 << 30) + 1000), (Some(80), 198, 1980)]);
    // The file alone that is written now says the same.
    fs::remove_file(run.place.full()).unwrap();
    assert_eq!(self::account(&run).reached(), account.reached());
}

#[test]
fn files_that_do_not_follow_each_other_are_not_added_up() {
    let root = tempfile::tempdir().unwrap();
    let mut file = new_file(root.path(), "box", 300);
    let run = run_of(root.path(), None).unwrap().unwrap();
    for flow in 0..3 {
        file.append(&entry(flow)).unwrap();
    }
    // As a reader sees it when files change their places between two looks.
    let before = fs::read(run.place.full()).unwrap();
    for flow in 3..6 {
        file.append(&entry(flow)).unwrap();
    }
    fs::write(run.place.full(), before).unwrap();
    assert_eq!(account(&run).spent().connections, 6);
}

#[test]
fn a_file_of_a_later_version_is_refused_and_one_of_an_earlier_is_read() {
    let root = tempfile::tempdir().unwrap();
    let place = Place::new(root.path(), &session("box"), 1);
    let write = |version: u32| {
        let start = format!("{{\"version\":{version},\"session\":\"box\",\"started_unix_ms\":1}}\n");
        let line = serde_json::to_string(&entry(1)).unwrap();
        fs::write(place.current(), format!("{start}{line}\n")).unwrap();
        fs::write(place.full(), format!("{start}{line}\n")).unwrap();
    };
    let run = || run_of(root.path(), None).unwrap().unwrap();
    write(1);
    assert_eq!(account(&run()).spent().connections, 2);
    write(3);
    for error in [run().lines().unwrap_err(), follow(&run()).unwrap_err()] {
        assert_eq!(
            error.to_string(),
            "they are of version 3, and this coffer knows 1 to 2"
        );
    }
}

#[test]
fn what_was_spent_is_known_by_the_records_of_the_same_session_only() {
    let root = tempfile::tempdir().unwrap();
    let before = Spent {
        bytes: 100,
        connections: 3,
    };
    let mut file = BoundedFile::create(root.path(), &session("box"), before, 300).unwrap();
    for flow in 0..3 {
        file.append(&entry(flow)).unwrap();
        file.append(&closed(flow, 9)).unwrap();
    }
    let made = run_of(root.path(), None).unwrap().unwrap().started_unix_ms;
    let spent = |made| spent_by_record(root.path(), &session("box"), made);
    let all = Spent {
        bytes: 130,
        connections: 6,
    };
    assert_eq!((spent(made), spent(made + 1)), (Some(all), None));
}

#[test]
fn one_that_follows_misses_nothing_when_the_file_is_full() {
    let root = tempfile::tempdir().unwrap();
    let mut file = new_file(root.path(), "box", 2000);
    let run = run_of(root.path(), None).unwrap().unwrap();
    let mut follower = follow(&run).unwrap();
    let mut seen = Vec::new();
    for flow in 0..100 {
        file.append(&entry(flow)).unwrap();
        seen.extend(follower.more().unwrap().iter().filter_map(|line| parse(line)));
    }
    // Nor is anything told twice.
    assert!(matches!(seen.remove(0), Line::Start(_)));
    assert_eq!(seen, (0..100).map(entry).collect::<Vec<_>>());
}

#[test]
fn a_line_that_is_not_all_there_is_told_when_it_is() {
    let root = tempfile::tempdir().unwrap();
    let place = Place::new(root.path(), &session("box"), 1);
    fs::write(place.current(), "one\ntw").unwrap();
    let run = run_of(root.path(), None).unwrap().unwrap();
    let mut follower = follow(&run).unwrap();
    assert_eq!(follower.more().unwrap(), [b"one"]);
    fs::write(place.current(), "one\ntwo\n").unwrap();
    assert_eq!(follower.more().unwrap(), [b"two"]);
}

#[test]
fn the_latest_run_is_found_by_its_start_and_a_session_whose_name_has_dashes_by_its_name() {
    let root = tempfile::tempdir().unwrap();
    for file in [
        "box-5.jsonl",
        "a-b-7.jsonl",
        "box-10.jsonl",
        "box-99.jsonl.full",
        "-3.jsonl",
        "x",
    ] {
        fs::write(root.path().join(file), "").unwrap();
    }
    let found = |name: Option<&str>| {
        let name = name.map(session);
        run_of(root.path(), name.as_ref())
            .unwrap()
            .map(|run| (run.session.to_string(), run.started_unix_ms))
    };
    assert_eq!(found(None), Some(("box".to_owned(), 10)));
    assert_eq!(found(Some("a-b")), Some(("a-b".to_owned(), 7)));
    assert_eq!(found(Some("a")), None);
    assert_eq!(runs(&root.path().join("none")).unwrap(), []);
}

#[test]
fn the_oldest_runs_are_removed_but_none_that_is_still_written() {
    let root = tempfile::tempdir().unwrap();
    for started in 1..=5 {
        let place = Place::new(root.path(), &session("old"), started);
        fs::write(place.current(), "").unwrap();
        fs::write(place.full(), "").unwrap();
    }
    let live = new_file(root.path(), "live", 2000);
    prune_to(root.path(), 3, 5).unwrap();
    let mut left: Vec<u64> = runs(root.path())
        .unwrap()
        .iter()
        .map(|run| run.started_unix_ms)
        .collect();
    left.sort_unstable();
    assert_eq!((left.len(), left[0]), (2, 5));
    prune_to(root.path(), 0, u64::MAX).unwrap();
    let left = runs(root.path()).unwrap();
    assert!(
        left.iter()
            .all(|run| run.session == session("live") && run.is_live())
    );
    assert_eq!(left.len(), 1);
    drop(live);
    assert!(!left[0].is_live());
    prune_to(root.path(), 0, u64::MAX).unwrap();
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn what_a_guest_says_of_its_processes_cannot_move_the_cursor() {
    let by = By::from(PortOwner {
        pid: 1,
        argv: vec![b"curl".to_vec(), b"\x1b]52;c;x\x07".to_vec()],
        operation: None,
    });
    assert_eq!(by.command, "curl \\u{1b}]52;c;x\\u{7}");
}

#[tokio::test]
async fn records_that_cannot_be_written_are_lost_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("net");
    fs::write(&directory, "no directory").unwrap();
    let (recorder, journal) = Journal::begin(&directory, &session("box"), Spent::default()).unwrap();
    recorder.note("one".to_owned()).await;
    recorder.policy(EgressPolicy::default()).await;
    recorder.end().await;
    journal.written().await;
    assert_eq!(fs::read_to_string(directory).unwrap(), "no directory");
}
