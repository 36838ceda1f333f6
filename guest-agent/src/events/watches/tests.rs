use std::os::unix::fs::MetadataExt;

use rustix::fs::inotify;

use super::*;

const LINE: &str = "inotify wd:3 ino:9e7e sdev:800013 mask:800afce ignored_mask:0 \
    fhandle-bytes:8 fhandle-type:1 f_handle:7e9e0000640d1b6d\n";

#[test]
fn a_line_is_numbers_in_hex_and_a_handle() {
    let watch = parse_line(LINE.as_bytes()).unwrap();
    assert_eq!(watch.inode, 0x9e7e);
    assert_eq!(watch.device, Device::new(8, 0x13));
    let handle = watch.handle.unwrap();
    assert_eq!((handle.kind, &handle.bytes[..3]), (1, &[0x7e, 0x9e, 0x00][..]));
    assert_eq!(handle.bytes.len(), 8);
}

#[test]
fn a_line_without_a_handle_or_with_a_broken_one_is_still_a_watch() {
    for line in [
        "inotify wd:1 ino:1 sdev:1",
        "inotify wd:1 ino:1 sdev:1 fhandle-bytes:8 fhandle-type:1 f_handle:7e",
        "inotify wd:1 ino:1 sdev:1 fhandle-bytes:1 fhandle-type:1 f_handle:é",
        "inotify wd:1 ino:1 sdev:1 fhandle-bytes:ffffffffffffffff fhandle-type:1 f_handle:7e",
    ] {
        let watch = parse_line(line.as_bytes()).unwrap();
        assert_eq!((watch.inode, watch.handle), (1, None), "{line}");
    }
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
    let watch = |inode| Watch {
        inode,
        device: Device::new(0, 1),
        handle: None,
    };
    let (mut one, mut other) = (Watches::default(), Watches::default());
    for inode in [3, 1, 3, 2] {
        one.insert(b"docs", watch(inode));
    }
    for inode in [1, 2, 3] {
        other.insert(b"docs", watch(inode));
    }
    assert_eq!(one.encode(), other.encode());
    for inode in 0..2 * MAX_KEPT as u64 {
        one.insert(b"docs", watch(inode));
    }
    assert_eq!(one.0.len(), MAX_KEPT);
}

#[test]
fn a_watch_of_this_process_is_found_and_its_end_is_seen() {
    let directory = tempfile::tempdir().unwrap();
    let metadata = directory.path().metadata().unwrap();
    let device = Device::new(
        rustix::fs::major(metadata.dev()),
        rustix::fs::minor(metadata.dev()),
    );
    let folders = [Folder {
        name: b"docs".to_vec(),
        device,
    }];
    let line = format!("{} docs", metadata.ino());
    let is_found = || {
        let set = scan(&folders).encode();
        String::from_utf8(set).unwrap().lines().any(|found| found == line)
    };
    assert!(!is_found());
    let instance = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&instance, directory.path(), inotify::WatchFlags::CREATE).unwrap();
    assert!(is_found());
    let elsewhere = [Folder {
        name: b"docs".to_vec(),
        device: Device::new(4095, 1),
    }];
    assert!(scan(&elsewhere).is_empty());
    drop(instance);
    assert!(!is_found());
}

proptest::proptest! {
    #[test]
    fn no_line_makes_the_parser_panic(rest in "[ -~]{0,80}", digits in "[0-9a-fé]{0,20}") {
        let _ = parse_line(format!("inotify {rest}").as_bytes());
        let _ = parse_line(format!("inotify ino:1 sdev:1 fhandle-bytes:2 fhandle-type:{digits} f_handle:{digits}").as_bytes());
    }
}
