use proptest::prelude::*;

use super::*;

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

#[test]
fn a_path_that_could_lead_elsewhere_is_refused() {
    let long_name = vec![b'x'; MAX_COMPONENT + 1];
    let long_path = vec![b"x".as_slice(); MAX_PATH / 2 + 1].join(&b'/');
    for (text, error) in [
        (b"/".as_slice(), PathError::Absolute),
        (b"/a", PathError::Absolute),
        (b"//a", PathError::Absolute),
        (b"a//b", PathError::Empty),
        (b"a/", PathError::Empty),
        (b".", PathError::Dots),
        (b"..", PathError::Dots),
        (b"a/./b", PathError::Dots),
        (b"a/../b", PathError::Dots),
        (b"a/..", PathError::Dots),
        (b"a\0", PathError::Nul),
        (&long_name, PathError::ComponentTooLong),
        (&long_path, PathError::PathTooLong),
    ] {
        assert_eq!(RelPath::parse(text), Err(error), "{}", text.escape_ascii());
    }
}

#[test]
fn a_name_that_is_not_one_component_cannot_be_joined() {
    let mut deep = RelPath::root();
    while deep.push(&[b'x'; MAX_COMPONENT]).is_ok() {}
    assert!(deep.as_bytes().len() <= MAX_PATH);
    assert_eq!(deep.join(&[b'x'; MAX_COMPONENT]), Err(PathError::PathTooLong));

    let mut start = path("a");
    for (name, error) in [
        (b"".as_slice(), PathError::Empty),
        (b"b/c", PathError::Slash),
        (b"/", PathError::Slash),
        (b"..", PathError::Dots),
        (b"\0", PathError::Nul),
    ] {
        assert_eq!(start.push(name), Err(error));
        assert_eq!(start, path("a"), "left as it was");
    }
}

#[test]
fn parent_and_file_name_take_a_path_apart() {
    assert_eq!(path("a/b/c").parent(), Some(path("a/b")));
    assert_eq!(path("a").parent(), Some(RelPath::root()));
    assert_eq!(RelPath::root().parent(), None);
    assert_eq!(path("a/b").file_name(), Some(b"b".as_slice()));
    assert_eq!(RelPath::root().file_name(), None);
    assert!(RelPath::parse(b"").unwrap().is_root());
}

#[test]
fn starting_with_a_path_goes_by_components() {
    assert!(path("a/b").starts_with(&path("a")));
    assert!(path("a/b").starts_with(&path("a/b")));
    assert!(path("a").starts_with(&RelPath::root()));
    assert!(!path("ab").starts_with(&path("a")));
    assert!(!path("a").starts_with(&path("a/b")));
}

#[test]
fn debug_escapes_what_a_guest_chose() {
    assert_eq!(
        format!("{:?}", RelPath::parse(b"a\n\x1b[\xff").unwrap()),
        r#""a\n\x1b[\xff""#
    );
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 1..20).prop_filter("a name", |name| {
        !name.contains(&b'/') && !name.contains(&0) && name != b"." && name != b".."
    })
}

proptest! {
    #[test]
    fn what_is_joined_parses_back(names in prop::collection::vec(name(), 0..10)) {
        let mut built = RelPath::root();
        for name in &names {
            let longer = built.join(name).unwrap();
            prop_assert_eq!(longer.parent(), Some(built));
            built = longer;
        }
        prop_assert_eq!(&RelPath::parse(built.as_bytes()).unwrap(), &built);
        let components: Vec<&[u8]> = built.components().collect();
        prop_assert_eq!(components, names.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }

    #[test]
    fn what_parses_has_only_components_that_can_be_joined(text in prop::collection::vec(
        prop_oneof![Just(b'/'), Just(b'.'), Just(0), any::<u8>()], 0..60,
    )) {
        if let Ok(path) = RelPath::parse(&text) {
            let mut again = RelPath::root();
            for component in path.components() {
                again.push(component).unwrap();
            }
            prop_assert_eq!(again, path);
        }
    }
}
