use std::{
    fs,
    io::pipe,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
};

use rustix::fs::inotify;

use super::*;
use crate::folders::mountinfo::Device;

/// Something that looks like `/proc`.
struct FakeProc {
    root: tempfile::TempDir,
    scanner: Scanner,
}

/// Its turn is in the scans 8, 16 and so on, and that of its successors one before each.
const PROCESS: u32 = 8 * 40;

impl FakeProc {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let scanner = Scanner::new(root.path().into());
        fs::create_dir(root.path().join("sys")).unwrap();
        FakeProc { root, scanner }
    }

    fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.path().join(path)
    }

    /// A process with a program and these open files.
    fn start(&self, process: u32, files: &[(u32, &str)]) {
        let place = self.path(process.to_string());
        fs::create_dir_all(place.join("fd")).unwrap();
        fs::create_dir(place.join("fdinfo")).unwrap();
        symlink("/bin/true", place.join("exe")).unwrap();
        for (descriptor, target) in files {
            self.open(process, *descriptor, target);
        }
    }

    fn open(&self, process: u32, descriptor: u32, target: &str) {
        let place = self.path(process.to_string());
        symlink(target, place.join("fd").join(descriptor.to_string())).unwrap();
        fs::write(place.join("fdinfo").join(descriptor.to_string()), "pos:\t0\n").unwrap();
    }

    /// As many are open as before, which the size of the directory says too on every file system.
    fn replace(&self, process: u32, descriptor: u32, target: &str) {
        let place = self.path(process.to_string());
        fs::remove_file(place.join("fd").join(descriptor.to_string())).unwrap();
        self.open(process, descriptor, target);
    }

    fn watch(&self, process: u32, descriptor: u32, inodes: &[u64]) {
        let lines: String = inodes
            .iter()
            .map(|inode| format!("inotify wd:1 ino:{inode:x} sdev:1\n"))
            .collect();
        fs::write(self.path(format!("{process}/fdinfo/{descriptor}")), lines).unwrap();
    }

    fn scan(&mut self) -> String {
        String::from_utf8(self.scanner.scan(&[docs(Device::new(0, 1))]).encode()).unwrap()
    }
}

fn docs(device: Device) -> Folder {
    let name = b"docs".to_vec();
    Folder { name, device }
}

const INSTANCE: &str = "anon_inode:inotify";

#[test]
fn instances_are_found_by_either_name_and_nothing_else_is() {
    let mut proc = FakeProc::new();
    let long = format!("{INSTANCE}{}", "x".repeat(40));
    let targets = [
        INSTANCE,
        "anon_inode:[inotify]",
        "anon_inode:[eventfd]",
        &long,
        "/x",
    ];
    let files: Vec<_> = (0..).zip(targets).collect();
    proc.start(PROCESS, &files);
    for descriptor in 0..5 {
        proc.watch(PROCESS, descriptor, &[u64::from(descriptor) + 1]);
    }
    assert_eq!(proc.scan(), "1 docs\n2 docs\n");
}

#[test]
fn a_known_instance_is_read_again_in_every_scan() {
    let mut proc = FakeProc::new();
    proc.start(PROCESS, &[(3, INSTANCE)]);
    for inodes in 0..20 {
        let inodes: Vec<u64> = (1..=inodes).collect();
        proc.watch(PROCESS, 3, &inodes);
        let found = proc.scan();
        assert_eq!(found.matches("docs").count(), inodes.len());
    }
}

#[test]
fn a_process_with_as_many_files_as_before_is_left_alone_until_its_turn() {
    let mut proc = FakeProc::new();
    proc.start(PROCESS, &[(3, "/x")]);
    proc.scan();
    proc.replace(PROCESS, 3, INSTANCE);
    proc.watch(PROCESS, 3, &[7]);
    for scan in 2..TURNS {
        assert_eq!(proc.scan(), "\n", "scan {scan}");
    }
    assert_eq!(proc.scan(), "7 docs\n");
}

#[test]
fn every_process_has_its_turn_once_in_as_many_scans_as_there_are_turns() {
    for process in [1, 2, 7, 8, 4_194_304, u32::MAX] {
        for start in [0, 5, u32::MAX - 3] {
            let turns = (0..TURNS).filter(|scan| is_turn(start.wrapping_add(*scan), process));
            assert_eq!(turns.count(), 1);
        }
    }
}

#[test]
fn only_a_known_number_of_files_that_is_the_same_means_no_change() {
    let found = |open| Found::Program {
        open,
        instances: vec![3],
    };
    assert_eq!(found(5).unchanged(5), Some(vec![3]));
    assert_eq!(found(5).unchanged(6), None);
    assert_eq!(found(5).unchanged(0), None);
    assert_eq!(found(0).unchanged(0), None);
    assert_eq!(Found::NoProgram.unchanged(5), None);
}

#[test]
fn another_process_of_the_same_number_is_looked_at() {
    let mut proc = FakeProc::new();
    proc.start(PROCESS, &[(3, "/x")]);
    proc.scan();
    // Beside the first, so that it has another inode.
    proc.start(PROCESS + 1, &[(3, INSTANCE)]);
    proc.watch(PROCESS + 1, 3, &[7]);
    fs::remove_dir_all(proc.path(PROCESS.to_string())).unwrap();
    fs::rename(
        proc.path((PROCESS + 1).to_string()),
        proc.path(PROCESS.to_string()),
    )
    .unwrap();
    assert_eq!(proc.scan(), "7 docs\n");
}

#[test]
fn what_is_gone_is_forgotten() {
    let mut proc = FakeProc::new();
    proc.start(PROCESS, &[(3, INSTANCE)]);
    proc.watch(PROCESS, 3, &[7]);
    assert_eq!(proc.scan(), "7 docs\n");
    fs::remove_dir_all(proc.path(PROCESS.to_string())).unwrap();
    assert_eq!(proc.scan(), "\n");
    assert!(proc.scanner.known.is_empty());
}

#[test]
fn names_that_are_no_number_are_neither_processes_nor_descriptors() {
    for name in [c"", c"self", c"+1", c"-1", c"1a", c"4294967296", c"\xff"] {
        assert_eq!(parse_number(name), None, "{name:?}");
    }
    assert_eq!(parse_number(c"4194304"), Some(4_194_304));
}

#[test]
fn a_broken_proc_is_one_where_nothing_is_watched() {
    let mut proc = FakeProc::new();
    proc.start(PROCESS, &[(3, INSTANCE)]);
    proc.watch(PROCESS, 3, &[7]);
    proc.start(5, &[(3, INSTANCE)]);
    fs::remove_dir_all(proc.path("5/fdinfo")).unwrap();
    fs::create_dir(proc.path("6")).unwrap();
    fs::write(proc.path("7"), "").unwrap();
    fs::create_dir(proc.path("8")).unwrap();
    fs::write(proc.path("8/fd"), "").unwrap();
    fs::create_dir_all(proc.path("9/fd/3")).unwrap();
    assert_eq!(proc.scan(), "7 docs\n");
    let mut none = Scanner::new(proc.path("nowhere"));
    assert!(none.scan(&[docs(Device::new(0, 1))]).is_empty());
}

#[test]
fn a_scan_ends_at_its_limit() {
    let proc = FakeProc::new();
    proc.start(PROCESS, &[(3, INSTANCE), (4, INSTANCE), (5, INSTANCE)]);
    for descriptor in 3..6 {
        proc.watch(PROCESS, descriptor, &[u64::from(descriptor)]);
    }
    // One for the process, one for each file, one for each instance.
    for (left, found) in [(1, 0), (3, 0), (4, 0), (5, 1), (7, 3), (8, 3)] {
        let mut scan = Scan {
            proc: &directory(CWD, proc.root.path()).unwrap(),
            folders: &[docs(Device::new(0, 1))],
            left,
            watches: Watches::default(),
        };
        scan.look(PROCESS, None);
        let set = String::from_utf8(scan.watches.encode()).unwrap();
        assert_eq!(set.matches("docs").count(), found, "{left}");
        assert_eq!(scan.left, left.saturating_sub(7));
    }
}

/// A directory to watch, and whether the machine's `/proc` says that it is watched.
struct Native {
    directory: tempfile::TempDir,
    scanner: Scanner,
}

impl Native {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let scanner = Scanner::new("/proc".into());
        Native { directory, scanner }
    }

    fn watch(&self) -> OwnedFd {
        let instance = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
        inotify::add_watch(&instance, self.directory.path(), inotify::WatchFlags::CREATE).unwrap();
        instance
    }

    fn finds(&mut self) -> bool {
        let metadata = self.directory.path().metadata().unwrap();
        let (major, minor) = (
            rustix::fs::major(metadata.dev()),
            rustix::fs::minor(metadata.dev()),
        );
        let found = self.scanner.scan(&[docs(Device::new(major, minor))]).encode();
        let line = format!("{} docs", metadata.ino());
        String::from_utf8(found)
            .unwrap()
            .lines()
            .any(|found| found == line)
    }
}

#[test]
fn a_watcher_started_between_two_scans_is_found_by_the_second_and_its_end_too() {
    let mut native = Native::new();
    assert!(!native.finds());
    let instance = native.watch();
    assert!(native.finds());
    assert!(native.finds());
    let elsewhere = [docs(Device::new(4095, 1))];
    assert!(native.scanner.scan(&elsewhere).is_empty());
    assert!(native.finds());
    drop(instance);
    assert!(!native.finds());
}

#[test]
fn a_watch_added_to_a_known_instance_is_found_by_the_next_scan() {
    let mut native = Native::new();
    let instance = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
    assert!(!native.finds());
    let watch = inotify::add_watch(&instance, native.directory.path(), inotify::WatchFlags::CREATE).unwrap();
    assert!(native.finds());
    inotify::remove_watch(&instance, watch).unwrap();
    assert!(!native.finds());
}

#[test]
fn a_watcher_in_the_place_of_a_closed_file_is_found_by_the_eighth_scan() {
    let mut native = Native::new();
    let (reader, writer) = pipe().unwrap();
    assert!(!native.finds());
    drop(reader);
    let _instance = native.watch();
    assert!((0..TURNS).any(|_| native.finds()));
    drop(writer);
}

/// Only where the kernel counts open files: there a thread of the kernel has none.
#[test]
fn threads_of_the_kernel_are_known_as_such() {
    if !Path::new("/proc/2/stat").exists() || fs::read_link("/proc/2/exe").is_ok() {
        skipped::because("no threads of the kernel in this namespace");
        return;
    }
    let mut native = Native::new();
    native.finds();
    let known = &native.scanner.known;
    assert_eq!(known[&2].found, Found::NoProgram);
    assert_ne!(known[&std::process::id()].found, Found::NoProgram);
}
