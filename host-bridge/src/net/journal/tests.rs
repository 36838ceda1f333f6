use std::{fs, net::IpAddr, os::unix::fs::PermissionsExt};

use egress_policy::{
    control::What,
    link::{Id, Protocol},
};

use super::{
    file::{BoundedFile, prune_to},
    *,
};

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
    });
    for line in [start, policy(), note, entry(1)] {
        assert_eq!(parse(&serde_json::to_vec(&line).unwrap()), Some(line));
    }
    assert_eq!(
        parse(b"{\"version\":2,\"session\":\"box\",\"started_unix_ms\":3}"),
        None
    );
    assert_eq!(parse(b"{\"unix_ms\":1,\"no"), None);
}

#[test]
fn a_file_that_is_full_takes_the_place_of_the_full_one_before_and_the_next_says_the_policy_again() {
    let root = tempfile::tempdir().unwrap();
    let mut file = BoundedFile::create(root.path(), &session("box"), 2000).unwrap();
    file.append(&policy()).unwrap();
    for flow in 0..100 {
        file.append(&entry(flow)).unwrap();
    }
    let run = run_of(root.path(), None).unwrap().unwrap();
    for path in [run.place.current(), run.place.full()] {
        let found = fs::metadata(path).unwrap();
        assert!(found.len() <= 2000);
        assert_eq!(found.permissions().mode() & 0o777, 0o600);
    }
    let lines = lines(&run);
    assert_eq!(lines.last(), Some(&entry(99)));
    let heads = lines.iter().filter(|line| matches!(line, Line::Start(_))).count();
    let policies = lines.iter().filter(|line| **line == policy()).count();
    assert_eq!((heads, policies), (2, 2));
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
}

#[test]
fn one_that_follows_misses_nothing_when_the_file_is_full() {
    let root = tempfile::tempdir().unwrap();
    let mut file = BoundedFile::create(root.path(), &session("box"), 2000).unwrap();
    let run = run_of(root.path(), None).unwrap().unwrap();
    let mut follower = follow(&run).unwrap();
    let mut seen = Vec::new();
    for flow in 0..100 {
        file.append(&entry(flow)).unwrap();
        seen.extend(follower.more().unwrap().iter().filter_map(|line| parse(line)));
    }
    seen.retain(|line| matches!(line, Line::Entry(_)));
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
    let live = BoundedFile::create(root.path(), &session("live"), 2000).unwrap();
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
    let (recorder, journal) = Journal::begin(&directory, &session("box")).unwrap();
    recorder.note("one".to_owned()).await;
    recorder.policy(EgressPolicy::default()).await;
    recorder.end().await;
    journal.written().await;
    assert_eq!(fs::read_to_string(directory).unwrap(), "no directory");
}
