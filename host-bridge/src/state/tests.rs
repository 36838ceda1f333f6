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
        folders: vec![SharedFolder {
            name: "src".to_owned().try_into().unwrap(),
            path: "/work/src".into(),
            rules: FolderRules {
                hide: vec!["*.key".into(), "!.ssh".into()],
                limits: vmm_api::ShareLimits {
                    bytes: Some(1),
                    files: None,
                },
                ..FolderRules::new(ShareMode::ReadOnly)
            },
            i_know: false,
        }],
        net: EgressPolicy::default(),
        net_spent: Spent::default(),
        publish: Vec::new(),
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
        version: RECORD_VERSION + 1,
        ..record("a")
    }
    .write(root.path())
    .unwrap();
    assert!(matches!(
        Record::read(root.path()),
        Err(Error::RecordVersion { found: 4, .. })
    ));
    fs::write(root.path().join(RECORD_FILE), "{").unwrap();
    assert!(matches!(Record::read(root.path()), Err(Error::Record { .. })));
}

#[test]
fn a_record_from_before_there_were_folders_is_read_as_one_without_any() {
    let root = tempfile::tempdir().unwrap();
    let mut old = serde_json::to_value(record("a")).unwrap();
    old["version"] = 1.into();
    old.as_object_mut().unwrap().remove("folders");
    fs::write(root.path().join(RECORD_FILE), old.to_string()).unwrap();
    let read = Record::read(root.path()).unwrap();
    assert_eq!((read.version, read.folders), (RECORD_VERSION, Vec::new()));
}

#[test]
fn a_record_from_before_there_was_a_network_is_read_as_one_that_may_reach_nothing() {
    let root = tempfile::tempdir().unwrap();
    let mut old = serde_json::to_value(record("a")).unwrap();
    old["version"] = 2.into();
    for field in ["net", "net_spent"] {
        assert!(old.as_object_mut().unwrap().remove(field).is_some());
    }
    fs::write(root.path().join(RECORD_FILE), old.to_string()).unwrap();
    let read = Record::read(root.path()).unwrap();
    assert_eq!(
        (read.version, read.net),
        (RECORD_VERSION, EgressPolicy::default())
    );
}

#[test]
fn outputs_with_something_in_them_outlive_their_session_and_others_do_not() {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::below(root.path());
    let name: SessionName = "one".parse().unwrap();
    for (round, left) in [(1, true), (2, false), (3, true)] {
        let mut owner = Table::open(&paths).unwrap().create(Some(name.clone())).unwrap();
        owner.own_folders().unwrap();
        owner.discard_at_end(true);
        let outputs = outputs_of(owner.path());
        if left {
            fs::write(outputs.join("result"), format!("{round}")).unwrap();
        }
        // As a guest may leave it, and a user who is not root cannot move such a folder.
        fs::set_permissions(&outputs, fs::Permissions::from_mode(0o500)).unwrap();
    }
    assert!(!paths.session(&name).exists());
    let kept = |at: &str| fs::read_to_string(paths.outputs().join(at)).unwrap();
    assert_eq!(
        (kept("one/result"), kept("one-2/result")),
        ("1".into(), "3".into())
    );
    assert_eq!(fs::read_dir(paths.outputs()).unwrap().count(), 2);
}

#[test]
fn a_folder_the_guest_has_closed_to_us_is_open_again_at_the_next_start() {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::below(root.path());
    let owner = Table::open(&paths)
        .unwrap()
        .create(Some("one".parse().unwrap()))
        .unwrap();
    owner.own_folders().unwrap();
    let outputs = outputs_of(owner.path());
    let mode = || fs::metadata(&outputs).unwrap().permissions().mode() & 0o7777;
    for left in [0, 0o1777] {
        fs::set_permissions(&outputs, fs::Permissions::from_mode(left)).unwrap();
        owner.own_folders().unwrap();
        assert_eq!(mode(), 0o700);
    }
}

#[test]
fn removing_a_session_says_where_its_outputs_are() {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::below(root.path());
    let name: SessionName = "one".parse().unwrap();
    let owner = Table::open(&paths).unwrap().create(Some(name.clone())).unwrap();
    record("one").write(owner.path()).unwrap();
    owner.own_folders().unwrap();
    fs::write(outputs_of(owner.path()).join("result"), "").unwrap();
    drop(owner);
    let kept = Table::open(&paths).unwrap().remove(&name).unwrap();
    assert_eq!(kept, Some(paths.outputs().join("one")));
    assert!(!paths.session(&name).exists());
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
