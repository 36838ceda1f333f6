//! Host edits reach a watcher behind a mounted share, through echoes as the guest's agent makes them.
//!
//! Natively, through `/dev/fuse`: this machine's kernel plays the guest's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

use std::{
    ffi::OsString,
    fs,
    io::Write,
    mem::MaybeUninit,
    os::unix::{ffi::OsStringExt, fs::MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use fuse::{
    Server,
    device::{Mount, Running},
};
use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags,
        inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    },
    io::Errno,
};
use share_fs::{Cache, Exports, Limits, ShareConfig};
use share_policy::{DEFAULT_HIDDEN, DEFAULT_PROTECTED, PatternSet, SharePolicy};

/// A folder, where a guest sees it, and a watcher there.
struct Rig {
    host: PathBuf,
    guest: PathBuf,
    inotify: std::os::fd::OwnedFd,
    agent: Agent,
    _running: Running,
    _folders: [tempfile::TempDir; 2],
}

/// What the agent does, from the test's own thread.
struct Agent {
    mount: PathBuf,
    channel: std::os::fd::OwnedFd,
}

fn rig() -> Option<Rig> {
    if !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
        skipped::because("mounting needs root and /dev/fuse");
        return None;
    }
    let (folder, mount) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let root = rustix::fs::open(folder.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let exports = Exports::new(64).unwrap();
    let lists = [DEFAULT_HIDDEN, DEFAULT_PROTECTED].map(|list| PatternSet::parse(list).unwrap());
    let [hidden, protected] = lists;
    let config = ShareConfig {
        policy: SharePolicy::new(share_policy::Mode::ReadWrite, hidden, protected).unwrap(),
        cache: Cache::Shared,
        limits: Limits::default(),
    };
    exports.add("share", root, config).unwrap();
    let running = Mount::new(mount.path(), Server::new(exports)).unwrap().start(2);
    let guest = mount.path().join("share");
    let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
    let channel = rustix::fs::open(mount.path().join(".coffer-events"), flags, Mode::empty()).unwrap();
    let rig = Rig {
        host: folder.path().into(),
        inotify: inotify::init(CreateFlags::NONBLOCK).unwrap(),
        agent: Agent {
            mount: mount.path().into(),
            channel,
        },
        guest,
        _running: running,
        _folders: [folder, mount],
    };
    Some(rig)
}

impl Rig {
    fn watch(&self, place: &Path) {
        inotify::add_watch(&self.inotify, place, WatchFlags::ALL_EVENTS).unwrap();
        self.agent
            .say(&format!("{} share\n", fs::metadata(place).unwrap().ino()));
    }

    /// What the watcher hears until it has heard `wanted` of `name`; the agent works meanwhile.
    fn hears(&self, wanted: ReadFlags, name: &str) {
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut heard = Vec::new();
        while Instant::now() < deadline {
            self.agent.round();
            heard.extend(self.heard());
            if heard
                .iter()
                .any(|(flags, found)| flags.contains(wanted) && found == name)
            {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("no {wanted:?} of {name:?} within two seconds, but {heard:?}");
    }

    fn heard(&self) -> Vec<(ReadFlags, String)> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut heard = Vec::new();
        while let Ok(event) = reader.next() {
            let name = event.file_name().map(|name| name.to_string_lossy().into_owned());
            heard.push((event.events(), name.unwrap_or_default()));
        }
        heard
    }
}

impl Agent {
    fn say(&self, set: &str) {
        assert_eq!(
            rustix::io::pwrite(&self.channel, set.as_bytes(), 0).unwrap(),
            set.len()
        );
    }

    fn round(&self) {
        let mut buffer = vec![0; 64 * 1024];
        let n = rustix::io::pread(&self.channel, &mut buffer[..], 0).unwrap();
        for news in buffer[..n]
            .split(|byte| *byte == 0)
            .filter(|news| !news.is_empty())
        {
            self.echo(news[0], &self.mount.join(OsString::from_vec(news[2..].to_vec())));
        }
    }

    fn echo(&self, letter: u8, path: &Path) {
        let mode = Mode::from_raw_mode(0o600);
        let done = match letter {
            b'C' => rustix::fs::mknodat(rustix::fs::CWD, path, FileType::RegularFile, mode, 0),
            b'D' => rustix::fs::mkdir(path, mode),
            b'L' => rustix::fs::symlink("x", path),
            b'U' => rustix::fs::unlink(path),
            b'R' => rustix::fs::rmdir(path),
            b'M' => {
                rustix::fs::open(path, OFlags::WRONLY | OFlags::NOFOLLOW, Mode::empty()).and_then(|file| {
                    let size = rustix::fs::fstat(&file)?.st_size as u64;
                    rustix::fs::ftruncate(&file, size)
                })
            }
            b'A' => {
                let mode = Mode::from_raw_mode(fs::metadata(path).unwrap().mode() & 0o777);
                rustix::fs::chmodat(rustix::fs::CWD, path, mode, AtFlags::empty())
            }
            other => panic!("news of kind {other:?}"),
        };
        done.unwrap_or_else(|error| panic!("echo {} of {}: {error}", letter as char, path.display()));
    }
}

#[test]
fn a_watcher_hears_of_what_the_host_does() {
    let Some(rig) = rig() else { return };
    fs::write(rig.host.join("old"), "1").unwrap();
    rig.watch(&rig.guest);

    fs::write(rig.host.join("new"), "1").unwrap();
    rig.hears(ReadFlags::CREATE, "new");
    assert_eq!(fs::read_to_string(rig.guest.join("new")).unwrap(), "1");

    fs::write(rig.host.join("new"), "changed").unwrap();
    rig.hears(ReadFlags::MODIFY, "new");
    assert_eq!(fs::read_to_string(rig.guest.join("new")).unwrap(), "changed");

    fs::create_dir(rig.host.join("dir")).unwrap();
    rig.hears(ReadFlags::CREATE | ReadFlags::ISDIR, "dir");
    std::os::unix::fs::symlink("/etc/passwd", rig.host.join("link")).unwrap();
    rig.hears(ReadFlags::CREATE, "link");
    assert_eq!(
        fs::read_link(rig.guest.join("link")).unwrap(),
        Path::new("/etc/passwd")
    );

    fs::remove_dir(rig.host.join("dir")).unwrap();
    rig.hears(ReadFlags::DELETE | ReadFlags::ISDIR, "dir");
    fs::remove_file(rig.host.join("old")).unwrap();
    rig.hears(ReadFlags::DELETE, "old");
    assert!(!rig.guest.join("old").exists());
}

#[test]
fn a_file_that_an_editor_replaces_is_news_and_reads_as_the_new_one() {
    let Some(rig) = rig() else { return };
    fs::write(rig.host.join("file"), "old").unwrap();
    assert_eq!(fs::read_to_string(rig.guest.join("file")).unwrap(), "old");
    rig.watch(&rig.guest);
    fs::write(rig.host.join(".file.swp"), "newer").unwrap();
    fs::rename(rig.host.join(".file.swp"), rig.host.join("file")).unwrap();
    rig.hears(ReadFlags::CREATE, "file");
    assert_eq!(fs::read_to_string(rig.guest.join("file")).unwrap(), "newer");
}

#[test]
fn what_the_guest_does_itself_is_no_news() {
    let Some(rig) = rig() else { return };
    rig.watch(&rig.guest);
    // Not from this thread, which is the agent's.
    let (mine, yours) = (rig.guest.join("mine"), rig.guest.join("yours"));
    let guest = std::thread::spawn(move || {
        fs::write(&mine, "1").unwrap();
        let mut file = fs::OpenOptions::new().append(true).open(&mine).unwrap();
        file.write_all(b"2").unwrap();
        fs::rename(&mine, &yours).unwrap();
    });
    guest.join().unwrap();
    let _ = rig.heard();
    for _ in 0..5 {
        rig.agent.round();
        std::thread::sleep(Duration::from_millis(20));
    }
    let echoed = rig.heard();
    let made =
        |flags: &ReadFlags| flags.intersects(ReadFlags::CREATE | ReadFlags::DELETE | ReadFlags::MODIFY);
    assert!(!echoed.iter().any(|(flags, _)| made(flags)), "{echoed:?}");
    fs::write(rig.host.join("yours"), "host").unwrap();
    rig.hears(ReadFlags::MODIFY, "yours");
}

#[test]
fn a_watched_file_is_told_of_without_the_rest_of_its_directory() {
    let Some(rig) = rig() else { return };
    fs::write(rig.host.join("log"), "1").unwrap();
    rig.watch(&rig.guest.join("log"));
    fs::write(rig.host.join("other"), "1").unwrap();
    fs::write(rig.host.join("log"), "12").unwrap();
    rig.hears(ReadFlags::MODIFY, "");
}

#[test]
fn hidden_names_are_no_news() {
    let Some(rig) = rig() else { return };
    rig.watch(&rig.guest);
    fs::write(rig.host.join(".netrc"), "secret").unwrap();
    fs::write(rig.host.join("seen"), "1").unwrap();
    rig.hears(ReadFlags::CREATE, "seen");
    assert!(rig.heard().iter().all(|(_, name)| name != ".netrc"));
}

#[test]
fn the_thread_that_echoes_changes_nothing_on_the_host() {
    let Some(rig) = rig() else { return };
    fs::write(rig.host.join("file"), "content").unwrap();
    fs::create_dir(rig.host.join("dir")).unwrap();
    rig.watch(&rig.guest);
    let at = |name: &str| rig.guest.join(name);
    let refused = [
        rustix::fs::unlink(at("file")),
        rustix::fs::rmdir(at("dir")),
        rustix::fs::rename(at("file"), at("moved")),
        rustix::fs::mkdir(at("made"), Mode::RWXU),
        rustix::fs::symlink("x", at("link")),
        rustix::fs::link(at("file"), at("hard")),
        rustix::fs::open(at("made"), OFlags::CREATE | OFlags::RDWR, Mode::RWXU).map(drop),
    ];
    assert_eq!(refused, [Err(Errno::PERM); 7]);
    let file = rustix::fs::open(at("file"), OFlags::RDWR, Mode::empty()).unwrap();
    let _ = rustix::fs::ftruncate(&file, 0);
    assert!(rustix::io::pwrite(&file, b"evil", 0).is_err());
    assert_eq!(fs::read_to_string(rig.host.join("file")).unwrap(), "content");
    assert_eq!(fs::read_dir(&rig.host).unwrap().count(), 2);
}

#[test]
fn a_host_edit_that_puts_time_and_size_back_is_read_within_a_second_or_so() {
    let Some(rig) = rig() else { return };
    let file = rig.host.join("file");
    fs::write(&file, "before").unwrap();
    let time = fs::metadata(&file).unwrap().modified().unwrap();
    // The kernel's clock for files is a few milliseconds coarse: within a tick no time moves.
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(fs::read_to_string(rig.guest.join("file")).unwrap(), "before");
    fs::write(&file, "after!").unwrap();
    fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_modified(time)
        .unwrap();
    let deadline = Instant::now() + Duration::from_millis(1200);
    while fs::read_to_string(rig.guest.join("file")).unwrap() != "after!" {
        assert!(Instant::now() < deadline, "stale");
        std::thread::sleep(Duration::from_millis(50));
    }
}
