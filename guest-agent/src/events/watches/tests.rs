use super::*;

const LINE: &str = "inotify wd:3 ino:9e7e sdev:800013 mask:800afce ignored_mask:0 \
    fhandle-bytes:8 fhandle-type:1 f_handle:7e9e0000640d1b6d\n";

#[test]
fn a_line_is_numbers_in_hex_whatever_else_it_says() {
    let watch = parse_line(LINE.as_bytes()).unwrap();
    assert_eq!((watch.inode, watch.device), (0x9e7e, Device::new(8, 0x13)));
    let watch = parse_line(b"inotify wd:1 ino:1 sdev:1").unwrap();
    assert_eq!((watch.inode, watch.device), (1, Device::new(0, 1)));
}

#[test]
fn other_lines_and_numbers_that_are_none_are_no_watch() {
    for line in [
        "",
        "pos:\t0",
        "flags:\t02004000",
        "inotify ",
        "inotify wd:1 ino:1",
        "inotify wd:1 sdev:1",
        "inotify wd:1 ino:+1 sdev:1",
        "inotify wd:1 ino:xyz sdev:1",
        "inotify wd:1 ino:11111111111111111 sdev:1",
        "inotify wd:1 ino:1 sdev:1ffffffff",
        "xinotify wd:1 ino:1 sdev:1",
    ] {
        assert_eq!(parse_line(line.as_bytes()), None, "{line}");
    }
    assert_eq!(parse_line(b"inotify ino:1 sdev:1 \xff"), None);
}

#[test]
fn the_order_of_finding_does_not_change_the_set() {
    let (mut one, mut other) = (Watches::default(), Watches::default());
    for inode in [3, 1, 3, 2] {
        one.insert(b"docs", inode);
    }
    for inode in [1, 2, 3] {
        other.insert(b"docs", inode);
    }
    assert_eq!(one.encode(), other.encode());
    for inode in 0..2 * MAX_KEPT as u64 {
        one.insert(b"docs", inode);
    }
    assert_eq!(one.0.len(), MAX_KEPT);
}

#[test]
fn of_an_instance_the_watches_in_the_folders_are_kept() {
    let folder = |name: &[u8], minor| Folder {
        name: name.to_vec(),
        device: Device::new(8, minor),
    };
    let folders = [folder(b"docs", 0x13), folder(b"code", 0x14)];
    let fdinfo = format!(
        "pos:\t0\n{LINE}inotify wd:1 ino:7 sdev:800014\ninotify wd:2 ino:8 sdev:800015\ninotify wd:4 ino:9 sdev:800014"
    );
    let mut watches = Watches::default();
    watches.read(fdinfo.as_bytes(), &folders);
    assert_eq!(watches.encode(), b"7 code\n9 code\n40574 docs\n");
    watches = Watches::default();
    watches.read(fdinfo.as_bytes(), &[]);
    assert!(watches.is_empty());
}

proptest::proptest! {
    #[test]
    fn no_line_makes_the_parser_panic(rest in "[ -~]{0,80}", digits in "[0-9a-fé]{0,20}") {
        let _ = parse_line(format!("inotify {rest}").as_bytes());
        let _ = parse_line(format!("inotify ino:{digits} sdev:{digits}").as_bytes());
    }
}
