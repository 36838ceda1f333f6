use std::io::Write;

use proptest::prelude::*;

use super::*;
use crate::tree::{Kind, Mtime};

fn apply_bytes(bytes: &[u8], whiteouts: Whiteouts) -> (tempfile::TempDir, Result<Tree>) {
    let scratch = tempfile::tempdir().unwrap();
    let mut tree = Tree::new(scratch.path()).unwrap();
    let result = apply(&mut tree, "test", bytes, whiteouts);
    (scratch, result.map(|()| tree))
}

/// A tar header by hand: the builder of the crate refuses to write what we must be able to read.
fn header(name: &[u8], kind: u8, size: u64) -> [u8; 512] {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(EntryType::new(kind));
    header.set_size(size);
    header.set_mode(0o4755);
    header.set_uid(1000);
    header.set_gid(100);
    header.set_mtime(1_700_000_000);
    header.set_cksum();
    *header.as_bytes()
}

fn entry(name: &[u8], kind: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = header(name, kind, data.len() as u64).to_vec();
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn linked(name: &[u8], kind: u8, target: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.as_old_mut().linkname[..target.len()].copy_from_slice(target);
    header.set_entry_type(EntryType::new(kind));
    header.set_size(0);
    header.set_mode(0o777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut data = Vec::new();
    for (key, value) in records {
        let body = key.len() + value.len() + 3;
        let length = (body + 1..).find(|n| n.to_string().len() + body == *n).unwrap();
        write!(data, "{length} {key}=").unwrap();
        data.extend(*value);
        data.push(b'\n');
    }
    entry(b"pax", b'x', &data)
}

fn text(tree: &mut Tree, path: &str) -> Option<Vec<u8>> {
    let id = tree.find(path)?;
    tree.read(id, 1000).unwrap()
}

#[test]
fn names_longer_than_a_header_arrive_from_gnu_and_pax_headers() {
    let long = format!("{}/{}", "d".repeat(150), "f".repeat(200));
    let gnu = [
        entry(b"././@LongLink", b'L', format!("{long}\0").as_bytes()),
        entry(b"cut", b'0', b"gnu"),
    ]
    .concat();
    let pax = [pax(&[("path", long.as_bytes())]), entry(b"cut", b'0', b"pax")].concat();
    for (bytes, expected) in [(gnu, b"gnu"), (pax, b"pax")] {
        let (_scratch, tree) = apply_bytes(&bytes, Whiteouts::Literal);
        let mut tree = tree.unwrap();
        assert_eq!(text(&mut tree, &long).unwrap(), expected);
        assert!(tree.find("cut").is_none());
    }
}

#[test]
fn owner_mode_time_and_attributes_are_kept() {
    let records: [(&str, &[u8]); 4] = [
        ("uid", b"3000000000"),
        ("mtime", b"1700000000.25"),
        ("SCHILY.xattr.user.note", b"a\nb=c"),
        ("SCHILY.xattr.security.selinux", b"label"),
    ];
    let bytes = [
        pax(&records),
        entry(b"file", b'0', b"x"),
        entry(b"next", b'0', b"y"),
    ]
    .concat();
    let (_scratch, tree) = apply_bytes(&bytes, Whiteouts::Literal);
    let mut tree = tree.unwrap();
    let file = tree.find("file").unwrap();
    let meta = &tree.node(file).meta;
    assert_eq!((meta.mode, meta.uid, meta.gid), (0o4755, 3_000_000_000, 100));
    assert_eq!(
        meta.mtime,
        Mtime {
            seconds: 1_700_000_000,
            nanoseconds: 250_000_000
        }
    );
    assert_eq!(
        meta.xattrs.iter().collect::<Vec<_>>(),
        [(&b"user.note"[..], &b"a\nb=c"[..])]
    );
    let next = tree.find("next").unwrap();
    assert_eq!(
        tree.node(next).meta.uid,
        1000,
        "a pax header is for one entry only"
    );
}

#[test]
fn every_kind_of_node_arrives() {
    let bytes = [
        entry(b"dir", b'5', b""),
        entry(b"old-style-dir/", 0, b""),
        linked(b"dir/link", b'2', b"../target"),
        entry(b"file", b'0', b"x"),
        linked(b"hard", b'1', b"file"),
        entry(b"pipe", b'6', b""),
    ]
    .concat();
    let (_scratch, tree) = apply_bytes(&bytes, Whiteouts::Literal);
    let mut tree = tree.unwrap();
    assert_eq!(tree.find("file"), tree.find("hard"));
    let old = tree.find("old-style-dir").unwrap();
    assert!(matches!(tree.node(old).kind, Kind::Directory(_)));
    let pipe = tree.find("pipe").unwrap();
    assert!(matches!(tree.node(pipe).kind, Kind::Fifo));
}

#[test]
fn whiteouts_apply_in_layers_and_are_plain_files_elsewhere() {
    let bytes = [
        entry(b"a", b'0', b"1"),
        entry(b"d/.wh.x", b'0', b""),
        entry(b".wh..wh.plnk", b'0', b""),
    ]
    .concat();
    let (_scratch, tree) = apply_bytes(&bytes, Whiteouts::Literal);
    let mut tree = tree.unwrap();
    assert!(tree.find("d/.wh.x").is_some());
    let lower = entry(b"d/x", b'0', b"");
    apply(&mut tree, "lower", &lower[..], Whiteouts::Apply).unwrap();
    apply(&mut tree, "upper", &bytes[..], Whiteouts::Apply).unwrap();
    assert!(tree.find("d/x").is_none());
}

#[test]
fn entries_that_would_leave_the_root_are_refused() {
    for name in [&b"../x"[..], b"a/../../x", b".wh...", b"d/.wh..", b"d/.wh."] {
        let (_scratch, result) = apply_bytes(&entry(name, b'0', b""), Whiteouts::Apply);
        assert!(
            matches!(result, Err(Error::BadEntry { .. })),
            "{}",
            name.escape_ascii()
        );
    }
    let hard = linked(b"x", b'1', b"../../etc/shadow");
    assert!(apply_bytes(&hard, Whiteouts::Apply).1.is_err());
}

#[test]
fn sparse_files_and_wrong_sizes_are_refused_rather_than_read_wrong() {
    let sparse = [pax(&[("GNU.sparse.major", b"1")]), entry(b"s", b'0', b"")].concat();
    let other_size = [pax(&[("size", b"9999999999")]), entry(b"s", b'0', b"abc")].concat();
    for bytes in [sparse, other_size, entry(b"s", b'S', b""), entry(b"v", b'V', b"")] {
        assert!(matches!(
            apply_bytes(&bytes, Whiteouts::Literal).1,
            Err(Error::BadEntry { .. })
        ));
    }
}

#[test]
fn an_archive_cut_short_is_an_error() {
    let bytes = entry(b"file", b'0', &[7; 2000]);
    for length in [100, 512 + 100] {
        assert!(
            apply_bytes(&bytes[..length], Whiteouts::Literal).1.is_err(),
            "{length}"
        );
    }
}

#[test]
fn a_header_that_announces_a_gigantic_name_is_refused_before_it_is_read() {
    let bytes = header(b"././@LongLink", b'L', 8 << 30);
    assert!(matches!(
        apply_bytes(&bytes, Whiteouts::Literal).1,
        Err(Error::OverLimit { .. })
    ));
}

proptest! {
    #[test]
    fn damaged_archives_never_panic(
        at in prop::collection::vec((0_usize..6000, any::<u8>()), 0..4),
        cut in 0_usize..6000,
    ) {
        let mut bytes = [
            pax(&[("path", b"p/q"), ("mtime", b"1.5"), ("SCHILY.xattr.user.a", b"b")]),
            entry(b"a", b'0', b"data"),
            entry(b"././@LongLink", b'L', &[b'n'; 300]),
            linked(b"l", b'2', b"a"),
            entry(b"dev", b'3', b""),
            linked(b"h", b'1', b"p/q"),
        ].concat();
        for (at, value) in at {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(cut);
        let _ = apply_bytes(&bytes, Whiteouts::Apply);
    }
}
