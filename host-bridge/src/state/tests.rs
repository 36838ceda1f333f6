use super::*;

pub(crate) fn record(name: &str) -> Record {
    Record {
        version: RECORD_VERSION,
        name: name.parse().unwrap(),
        state: State::Running,
        ephemeral: false,
        image: "default".into(),
        image_id: None,
        shape: Shape::new(None, None, None).unwrap(),
        env: vec![("A".into(), "b".into())],
        created_unix_ms: 1,
        started_unix_ms: Some(2),
        ended_unix_ms: None,
        ended: None,
        owner: None,
        machine: None,
    }
}

#[test]
fn a_record_reads_back_as_it_was_written() {
    let root = tempfile::tempdir().unwrap();
    record("a").write(root.path()).unwrap();
    assert_eq!(Record::read(root.path()).unwrap(), record("a"));
}

#[test]
fn a_record_of_another_version_is_refused() {
    let root = tempfile::tempdir().unwrap();
    Record {
        version: 2,
        ..record("a")
    }
    .write(root.path())
    .unwrap();
    assert!(matches!(
        Record::read(root.path()),
        Err(Error::RecordVersion { found: 2, .. })
    ));
    fs::write(root.path().join(RECORD_FILE), "{").unwrap();
    assert!(matches!(Record::read(root.path()), Err(Error::Record { .. })));
}

#[test]
fn a_name_is_in_use_while_its_owner_lives_and_free_afterwards() {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::below(root.path());
    let name: SessionName = "one".parse().unwrap();
    let owner = Table::open(&paths).unwrap().create(Some(name.clone())).unwrap();
    record("one").write(owner.path()).unwrap();
    {
        let table = Table::open(&paths).unwrap();
        assert!(table.find(&name).unwrap().alive);
        assert!(matches!(
            table.create(Some(name.clone())),
            Err(Error::NameInUse { .. })
        ));
        assert!(matches!(table.take(&name), Err(Error::NameInUse { .. })));
    }
    drop(owner);
    let table = Table::open(&paths).unwrap();
    assert!(!table.find(&name).unwrap().alive);
    assert!(table.take(&name).is_ok());
    table.remove(&name).unwrap();
    assert!(matches!(table.find(&name), Err(Error::UnknownSession { .. })));
}

#[test]
fn an_ephemeral_session_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::below(root.path());
    let mut owner = Table::open(&paths).unwrap().create(None).unwrap();
    owner.discard_at_end(true);
    let (session, sockets) = (owner.path().to_owned(), paths.sockets(owner.name()));
    assert!(session.is_dir() && sockets.is_dir());
    drop(owner);
    assert!(!session.exists() && !sockets.exists());
}
