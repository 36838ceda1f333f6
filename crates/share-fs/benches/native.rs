//! What single operations on a shared folder cost, through `/dev/fuse` on this machine, beside the same on the folder
//! itself.
//!
//! A kernel that knows the answer would not ask, and then these were figures of its caches. So each operation is one it
//! cannot answer: a name nobody asked for before, attributes that are to be fresh, data past the page cache, a directory
//! that has changed.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on says where")]

use std::{
    fs::{self, File, OpenOptions},
    hint::black_box,
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use fuse::{
    Server,
    device::{Mount, Running},
};
use rustix::fs::{AtFlags, Mode as FileMode, OFlags, StatxFlags};
use share_fs::{Cache, Exports, Limits, ShareConfig};
use share_policy::{DEFAULT_HIDDEN, DEFAULT_PROTECTED, Mode, PatternSet, SharePolicy};
use tempfile::TempDir;

const ENTRIES: u64 = 1000;
const BLOCK: usize = 4096;
/// Of the machine, for all folders together; as a machine has it.
const DESCRIPTORS: usize = 512;
const THREADS: usize = 2;

/// As direct reads want it on any file system.
#[repr(align(4096))]
struct Block([u8; BLOCK]);

/// One folder, by two ways.
struct Ways {
    bare: PathBuf,
    shared: PathBuf,
    // In this order: the mount goes before the folder does.
    _running: Running,
    _base: TempDir,
}

impl Ways {
    fn new() -> io::Result<Self> {
        let base = tempfile::tempdir()?;
        let (bare, point) = (base.path().join("folder"), base.path().join("mount"));
        fs::create_dir(&bare)?;
        fs::create_dir(&point)?;
        let mount = Mount::new(&point, Server::new(exports(&bare)))?;
        let shared = point.join("share");
        let running = mount.start(THREADS);
        // The folder is mounted at the first step into it.
        fs::metadata(shared.join("."))?;
        Ok(Ways {
            bare,
            shared,
            _running: running,
            _base: base,
        })
    }

    /// The same on the folder itself and on the share. `act` is given the place and the folder itself.
    fn each(&self, criterion: &mut Criterion, operation: &str, act: fn(&mut Group<'_>, &str, Places<'_>)) {
        let mut group = criterion.benchmark_group(operation);
        for (way, path) in [("bare", &self.bare), ("share", &self.shared)] {
            let places = Places {
                path,
                bare: &self.bare,
            };
            act(&mut group, way, places);
        }
        group.finish();
    }
}

type Group<'a> = BenchmarkGroup<'a, WallTime>;

#[derive(Clone, Copy)]
struct Places<'a> {
    /// What is measured.
    path: &'a Path,
    /// Where files are made that the kernel is to hear of only then.
    bare: &'a Path,
}

/// With everything a folder has by default.
fn exports(folder: &Path) -> Exports {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(folder, flags, FileMode::empty()).unwrap();
    let policy = SharePolicy::new(
        Mode::ReadWrite,
        PatternSet::parse(DEFAULT_HIDDEN).unwrap(),
        PatternSet::parse(DEFAULT_PROTECTED).unwrap(),
    );
    let config = ShareConfig {
        policy: policy.unwrap(),
        cache: Cache::Shared,
        limits: Limits::default(),
    };
    let exports = Exports::new(DESCRIPTORS).unwrap();
    exports.add("share", root, config).unwrap();
    exports
}

fn native(criterion: &mut Criterion) {
    let ways = match Ways::new() {
        Ok(ways) => ways,
        Err(error) => {
            println!("skipped: cannot mount through /dev/fuse: {error}");
            return;
        }
    };
    ways.each(criterion, "lookup", lookup);
    ways.each(criterion, "getattr", getattr);
    ways.each(criterion, "open-read-4k", open_and_read);
    ways.each(criterion, "write-4k", write);
    ways.each(criterion, "create-unlink", create_and_unlink);
    ways.each(criterion, "rename", rename);
    ways.each(criterion, "readdir-1000", list);
    ways.each(criterion, "readdir-stat-1000", list_and_stat);
}

/// LOOKUP: files that were made beside the mount, each looked at once.
fn lookup(group: &mut Group<'_>, way: &str, places: Places<'_>) {
    group.bench_function(way, |bencher| {
        bencher.iter_custom(|count| in_new_directories(places, count, lstat));
    });
}

/// Calls `act` with `count` files of the place, [`ENTRIES`] in a directory, none of which it has heard of. How long
/// that took.
fn in_new_directories(places: Places<'_>, count: u64, act: impl Fn(&Path)) -> Duration {
    let mut taken = Duration::ZERO;
    for first in (0..count).step_by(ENTRIES as usize) {
        let entries = ENTRIES.min(count - first);
        let directory = NewDirectory::new(places, entries);
        let files: Vec<PathBuf> = (0..entries).map(|index| directory.file(index)).collect();
        let begin = Instant::now();
        files.iter().for_each(|file| act(file));
        taken += begin.elapsed();
    }
    taken
}

/// Of empty files, made beside the mount.
struct NewDirectory {
    path: PathBuf,
    made: TempDir,
}

impl NewDirectory {
    fn new(places: Places<'_>, entries: u64) -> Self {
        let made = tempfile::tempdir_in(places.bare).unwrap();
        let path = places.path.join(made.path().file_name().unwrap());
        for index in 0..entries {
            File::create(made.path().join(name(index))).unwrap();
        }
        // So that the way there is known.
        lstat(&path);
        NewDirectory { path, made }
    }

    fn file(&self, index: u64) -> PathBuf {
        self.path.join(name(index))
    }
}

impl Drop for NewDirectory {
    fn drop(&mut self) {
        fs::remove_dir_all(self.made.path()).unwrap();
    }
}

fn name(index: u64) -> String {
    format!("some-file-{index:06}.txt")
}

fn lstat(path: &Path) {
    black_box(rustix::fs::lstat(path).unwrap());
}

/// GETATTR.
fn getattr(group: &mut Group<'_>, way: &str, places: Places<'_>) {
    let file = File::create(places.path.join("getattr")).unwrap();
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
    group.bench_function(way, |bencher| {
        bencher.iter(|| rustix::fs::statx(&file, c"", flags, StatxFlags::BASIC_STATS).unwrap());
    });
}

/// READ; opening and closing ask nothing. Past the page cache, where the file system has one.
fn open_and_read(group: &mut Group<'_>, way: &str, places: Places<'_>) {
    let path = places.path.join("read");
    fs::write(&path, [1; BLOCK]).unwrap();
    let mut block = Block([0; BLOCK]);
    group.bench_function(way, |bencher| {
        bencher.iter(|| {
            let file = rustix::fs::open(&path, OFlags::DIRECT | OFlags::CLOEXEC, FileMode::empty()).unwrap();
            assert_eq!(rustix::io::read(&file, &mut block.0).unwrap(), BLOCK);
        });
    });
}

/// WRITE.
fn write(group: &mut Group<'_>, way: &str, places: Places<'_>) {
    let file = File::create(places.path.join("written")).unwrap();
    let block = [1; BLOCK];
    group.bench_function(way, |bencher| {
        bencher.iter(|| file.write_all_at(&block, 0).unwrap());
    });
}

/// LOOKUP, CREATE, UNLINK.
fn create_and_unlink(group: &mut Group<'_>, way: &str, places: Places<'_>) {
    let path = places.path.join("new");
    group.bench_function(way, |bencher| {
        bencher.iter(|| {
            let mut options = OpenOptions::new();
            options
                .write(true)
                .create_new(true)
                .mode(0o644)
                .open(&path)
                .unwrap();
            fs::remove_file(&path).unwrap();
        });
    });
}

/// RENAME and what the kernel asks before: there, and back the next time.
fn rename(group: &mut Group<'_>, way: &str, places: Places<'_>) {
    let (mut from, mut to) = (places.path.join("here"), places.path.join("there"));
    let _ = fs::remove_file(&to);
    File::create(&from).unwrap();
    group.bench_function(way, |bencher| {
        bencher.iter(|| {
            fs::rename(&from, &to).unwrap();
            std::mem::swap(&mut from, &mut to);
        });
    });
}

/// READDIRPLUS once, then READDIR: nobody looks at the entries.
fn list(group: &mut Group<'_>, way: &str, places: Places<'_>) {
    group.bench_function(way, |bencher| {
        bencher.iter_custom(|count| listed(places, count, |_| ()));
    });
}

/// READDIRPLUS, for most of the entries: whoever looks at one is told of the next ones beforehand.
fn list_and_stat(group: &mut Group<'_>, way: &str, places: Places<'_>) {
    group.bench_function(way, |bencher| {
        bencher.iter_custom(|count| listed(places, count, |entry| lstat(&entry.path())));
    });
}

fn listed(places: Places<'_>, count: u64, act: impl Fn(&fs::DirEntry)) -> Duration {
    let mut taken = Duration::ZERO;
    for _ in 0..count {
        let directory = NewDirectory::new(places, ENTRIES);
        let begin = Instant::now();
        for entry in fs::read_dir(&directory.path).unwrap() {
            act(&entry.unwrap());
        }
        taken += begin.elapsed();
    }
    taken
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(50).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = native
}
criterion_main!(benches);
