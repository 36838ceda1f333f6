//! What the host does to a folder is seen in the guest: by who reads, although much is cached, and by who watches.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

use std::{
    cell::Cell,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tests::{Host, Running, Session, cases, wait_until};

/// The image with the watchdog package beside the default ones.
const TESTING: &str = "testing";

#[test]
fn edits_of_the_host() {
    let host = Host::new();
    let folders = ["shared", "alone", "watched", "fixed", "tree"];
    let [shared, alone, watched, fixed, tree] = folders.map(|name| host.folder(name).display().to_string());
    let (alone, fixed) = (format!("{alone}:cache=exclusive"), format!("{fixed}:ro"));
    let options = [&shared, &alone, &watched, &fixed, &tree]
        .map(|share| ["--share", share])
        .concat();
    let options = [&["--image", TESTING][..], &options].concat();
    let session = host.up("edits", &options);
    cases!(session;
        who_reads_sees_them_after_a_second,
        one_that_keeps_size_and_time_is_seen_too,
        who_has_it_open_keeps_what_the_host_removes,
        a_folder_of_its_own_is_not_read_twice,
        who_watches_hears_of_them,
        who_watches_what_cannot_be_written_hears_of_them,
        who_follows_a_log_gets_its_lines,
        who_watches_a_whole_tree_reads_what_is_saved_in_it,
        what_the_sandbox_does_itself_is_heard_once,
    );
}

fn on_host(session: &Session, path: &str) -> PathBuf {
    session.host().root().join("folders").join(path)
}

/// For so long the guest may believe what it knows.
const BELIEVED: Duration = Duration::from_millis(1000);

/// Says what it finds whenever it gets a line, and keeps all that can be kept open.
const READER: &str = "
import errno, json, os, sys
names = ['edited', 'longer', 'shorter', 'replaced', 'deleted', 'same']
kept = {name: os.open(name, os.O_RDONLY) for name in names}
def found(work):
    try:
        return work()
    except OSError as error:
        return errno.errorcode[error.errno]
def look():
    return {
        'path': {name: found(lambda: open(name).read()) for name in names},
        'open': {name: found(lambda: os.pread(kept[name], 100, 0).decode()) for name in names},
        'size': {name: found(lambda: os.stat(name).st_size) for name in names},
        'list': sorted(os.listdir()),
        'new': found(lambda: open('new').read()),
    }
for line in sys.stdin:
    print(json.dumps(look()), flush=True)
";

fn look(reader: &mut Running) -> Value {
    let before = reader.said().len();
    reader.send("look\n");
    wait_until("it has looked", 60, || reader.said()[before..].ends_with('\n'));
    serde_json::from_str(&reader.said()[before..]).unwrap()
}

fn reader(session: &Session) -> Running {
    let _ = fs::remove_file(on_host(session, "shared/new"));
    for name in ["edited", "longer", "shorter", "replaced", "deleted", "same"] {
        fs::write(on_host(session, "shared").join(name), "first").unwrap();
    }
    // What the case before left is believed for a while.
    thread::sleep(BELIEVED);
    let mut reader = session
        .exec(&["-i"], ["python3", "-c", READER])
        .open_input()
        .start();
    let all = json!({ "edited": "first", "longer": "first", "shorter": "first",
        "replaced": "first", "deleted": "first", "same": "first" });
    // The second look finds all in the cache.
    for _ in 0..2 {
        let found = look(&mut reader);
        assert_eq!(
            (&found["path"], &found["open"], &found["new"]),
            (&all, &all, &json!("ENOENT"))
        );
    }
    reader
}

fn who_reads_sees_them_after_a_second(session: &Session) {
    let mut reader = reader(session);
    let path = |name| on_host(session, "shared").join(name);
    fs::write(path("edited"), "other").unwrap();
    append(&path("longer"), "-second").unwrap();
    File::options()
        .write(true)
        .open(path("shorter"))
        .unwrap()
        .set_len(2)
        .unwrap();
    fs::write(path("new"), "fresh").unwrap();
    fs::write(path("part"), "whole").unwrap();
    fs::rename(path("part"), path("replaced")).unwrap();
    fs::remove_file(path("deleted")).unwrap();
    thread::sleep(BELIEVED);
    let found = look(&mut reader);
    let by_path = json!({ "edited": "other", "longer": "first-second", "shorter": "fi",
        "replaced": "whole", "deleted": "ENOENT", "same": "first" });
    assert_eq!(found["path"], by_path);
    for (name, text) in [
        ("edited", "other"),
        ("longer", "first-second"),
        ("shorter", "fi"),
        ("same", "first"),
    ] {
        assert_eq!(found["open"][name], text, "{name}");
    }
    assert_eq!(found["new"], "fresh");
    assert_eq!(
        found["list"],
        json!(["edited", "longer", "new", "replaced", "same", "shorter"])
    );
    assert_eq!(found["size"]["longer"], 12);
    reader.close_input();
    reader.end().code(0);
}

/// As on a disk of the sandbox's own: what was opened is there until it is closed.
fn who_has_it_open_keeps_what_the_host_removes(session: &Session) {
    let mut reader = reader(session);
    let path = |name| on_host(session, "shared").join(name);
    fs::write(path("part"), "whole").unwrap();
    fs::rename(path("part"), path("replaced")).unwrap();
    fs::remove_file(path("deleted")).unwrap();
    thread::sleep(BELIEVED);
    let found = look(&mut reader);
    let open = ["replaced", "deleted"].map(|name| &found["open"][name]);
    assert_eq!(open, ["first", "first"]);
    reader.close_input();
    reader.end().code(0);
}

/// As a tool does that puts the time back, or two edits within one tick of the host's clock.
fn one_that_keeps_size_and_time_is_seen_too(session: &Session) {
    let mut reader = reader(session);
    let path = on_host(session, "shared/same");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "other").unwrap();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(time)
        .unwrap();
    thread::sleep(BELIEVED);
    let found = look(&mut reader);
    assert_eq!(
        (&found["path"]["same"], &found["open"]["same"]),
        (&json!("other"), &json!("other"))
    );
    reader.close_input();
    reader.end().code(0);
}

fn append(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::options().append(true).create(true).open(path)?;
    file.write_all(text.as_bytes())
}

fn a_folder_of_its_own_is_not_read_twice(session: &Session) {
    fs::write(on_host(session, "alone/file"), "x".repeat(100_000)).unwrap();
    let read = || {
        session
            .sh("cd ../alone && ls && stat -c %s file && cat file | wc -c")
            .end()
            .says("file\n100000\n100000")
    };
    let counts = || {
        let rows: Value = serde_json::from_slice(
            &session
                .host()
                .coffer(["share", "ls", "edits", "--json"])
                .end()
                .code(0)
                .stdout,
        )
        .unwrap();
        let mut rows = rows.as_array().unwrap().iter();
        rows.find(|row| row["name"] == "alone").unwrap()["counts"].clone()
    };
    read();
    let before = counts();
    thread::sleep(BELIEVED);
    (0..3).for_each(|_| drop(read()));
    let after = counts();
    println!("       {before}\n       {after}");
    assert_eq!(before["read_bytes"], after["read_bytes"]);
    let asked = after["requests"].as_u64().unwrap() - before["requests"].as_u64().unwrap();
    assert!(asked < 10, "{asked} requests");
}

/// Says each event in the directory it is given, and what the file holds then.
const WATCHER: &str = "
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
fd = libc.inotify_init1(0)
kinds = {0x2: 'modify', 0x4: 'attributes', 0x8: 'closed', 0x40: 'from', 0x80: 'to', 0x100: 'create', 0x200: 'delete'}
assert libc.inotify_add_watch(fd, sys.argv[1].encode(), sum(kinds)) >= 0
def content(name):
    try:
        return open(os.path.join(sys.argv[1], name)).read().replace(chr(10), '|')
    except OSError:
        return '-'
print('ready', flush=True)
while True:
    data = os.read(fd, 65536)
    while data:
        _, mask, _, length = struct.unpack_from('iIII', data)
        name, data = data[16:16 + length].rstrip(b'\\0').decode(), data[16 + length:]
        for bit, kind in kinds.items():
            if mask & bit:
                print(f'{kind} {name} [{content(name)}]', flush=True)
";

fn watcher(session: &Session, name: &str) -> Running {
    watcher_of(session, WATCHER, name)
}

/// A watcher that has been there for long enough.
fn watcher_of(session: &Session, program: &str, name: &str) -> Running {
    let path = format!("/sessions/edits/mnt/{name}");
    let watcher = session.exec(&[], ["python3", "-c", program, &path]).start();
    watcher.wait_for("ready");
    hears_from_now_on(&watcher, &on_host(session, name), " probe ");
    watcher
}

/// What happens in a directory before its watch has been found is not repeated.
fn hears_from_now_on(watcher: &Running, directory: &Path, probe: &str) {
    let (start, tries) = (Instant::now(), Cell::new(0));
    wait_until("it hears", 60, || {
        tries.set(tries.get() + 1);
        if tries.get() % 10 == 1 {
            fs::write(directory.join("probe"), tries.get().to_string()).unwrap();
        }
        watcher.said().contains(probe)
    });
    println!("       hears after {:.1?}", start.elapsed());
}

const WITHIN: Duration = Duration::from_secs(2);

#[track_caller]
fn hears(watcher: &Running, what: &str, act: impl FnOnce() -> io::Result<()>) {
    let start = Instant::now();
    act().unwrap();
    watcher.wait_for(what);
    let took = start.elapsed();
    println!("       {took:5.1?} {what}");
    assert!(took < WITHIN, "{what} after {took:?}");
}

fn who_watches_hears_of_them(session: &Session) {
    hears_of_edits(session, "watched");
}

fn who_watches_what_cannot_be_written_hears_of_them(session: &Session) {
    hears_of_edits(session, "fixed");
}

fn hears_of_edits(session: &Session, folder: &str) {
    let watcher = watcher(session, folder);
    let path = |name| on_host(session, folder).join(name);
    let (file, directory, link) = (path("file"), path("directory"), path("link"));
    hears(&watcher, "create file [one]", || fs::write(&file, "one"));
    hears(&watcher, "modify file [one-two]", || append(&file, "-two"));
    let part = session.host().root().join("part");
    fs::write(&part, "three").unwrap();
    hears(&watcher, " file [three]", || fs::rename(&part, &file));
    hears(&watcher, "delete file [-]", || fs::remove_file(&file));
    hears(&watcher, "create directory [-]", || fs::create_dir(&directory));
    hears(&watcher, "delete directory [-]", || fs::remove_dir(&directory));
    hears(&watcher, "create link [", || symlink("probe", &link));
    hears(&watcher, "attributes probe [", || {
        fs::set_permissions(path("probe"), fs::Permissions::from_mode(0o600))
    });
    fs::remove_file(&link).unwrap();
    stop(session, watcher, "[i]notify_add_watch");
}

fn stop(session: &Session, watcher: Running, program: &str) {
    session.sh(&format!("pkill -f '{program}'")).end().code(0);
    watcher.end().code(128 + 15);
}

fn who_follows_a_log_gets_its_lines(session: &Session) {
    let (log, old) = (on_host(session, "watched/log"), on_host(session, "watched/log.1"));
    append(&log, "before\n").unwrap();
    let follow = [
        "sh",
        "-c",
        "echo ready; exec timeout 100 tail -n 1 -F ../watched/log",
    ];
    let following = session.exec(&[], follow).start();
    following.wait_for("ready\nbefore\n");
    for line in ["one\n", "two\n"] {
        hears(&following, line, || append(&log, line));
    }
    fs::rename(&log, old).unwrap();
    append(&log, "rotated\n").unwrap();
    following.wait_for("rotated\n");
    hears(&following, "after\n", || append(&log, "after\n"));
    assert_eq!(following.said(), "ready\nbefore\none\ntwo\nrotated\nafter\n");
    session.sh("pkill tail").end().code(0);
    let _ = following.end();
}

/// Watches all below the directory, as development servers do, and reads each file it hears of, when it hears of it.
const OBSERVER: &str = "
import errno, os, sys, time
from watchdog.events import FileSystemEventHandler
from watchdog.observers import Observer
class Reader(FileSystemEventHandler):
    def on_any_event(self, event):
        # To read makes events as well, of files that are opened and closed.
        if event.event_type not in ('created', 'modified', 'deleted', 'moved'):
            return
        try:
            text = open(event.src_path).read() if not event.is_directory else 'directory'
        except OSError as error:
            text = errno.errorcode[error.errno]
        print(event.event_type, os.path.relpath(event.src_path, sys.argv[1]), f'[{text}]', flush=True)
observer = Observer()
observer.schedule(Reader(), sys.argv[1], recursive=True)
observer.start()
print('ready', flush=True)
while True:
    time.sleep(1)
";

fn who_watches_a_whole_tree_reads_what_is_saved_in_it(session: &Session) {
    let observer = watcher_of(session, OBSERVER, "tree");
    let path = |name: &str| on_host(session, "tree").join(name);
    hears(&observer, "created a/b/c.txt [one]", || {
        fs::create_dir_all(path("a/b"))?;
        fs::write(path("a/b/c.txt"), "one")
    });
    hears_from_now_on(&observer, &path("a/b"), "modified a/b/probe ");
    hears(&observer, "modified a/b/c.txt [one-two]", || {
        append(&path("a/b/c.txt"), "-two")
    });
    hears(&observer, " app.js [old]", || fs::write(path("app.js"), "old"));
    // An editor's way to save. It takes its time, so that the guest knows the temporary name when it is gone.
    hears(&observer, " app.js.tmp [new]", || {
        fs::write(path("app.js.tmp"), "new")
    });
    thread::sleep(BELIEVED + BELIEVED / 2);
    hears(&observer, " app.js [new]", || {
        fs::rename(path("app.js.tmp"), path("app.js"))
    });
    observer.wait_for("deleted app.js.tmp [");
    session.sh("cat ../tree/app.js").end().says("new");
    let said = observer.said();
    assert!(!said.contains("[ESTALE]") && !said.contains("[EIO]"), "{said}");
    stop(session, observer, "[w]atchdog.observers");
}

/// As on a disk of the sandbox's own.
fn what_the_sandbox_does_itself_is_heard_once(session: &Session) {
    let line = "echo one > mine; echo two >> mine; chmod 600 mine; mkdir d; ln -s mine link; mv mine other; rm other link; rmdir d";
    let own = session
        .exec(
            &[],
            [
                "sh",
                "-c",
                "mkdir /tmp/own; exec python3 -c \"$1\" /tmp/own",
                "sh",
                WATCHER,
            ],
        )
        .start();
    own.wait_for("ready");
    let watcher = watcher(session, "watched");
    session.sh(&format!("cd ../watched && {line}")).end().code(0);
    session
        .sh(&format!("cd /tmp/own && {line}; touch last"))
        .end()
        .code(0);
    // What comes after has pushed all before it through.
    for name in ["last", "very-last"] {
        fs::write(on_host(session, "watched").join(name), "").unwrap();
        watcher.wait_for(&format!("create {name} "));
    }
    own.wait_for("create last ");
    let heard = |watcher: &Running| {
        let said = watcher.said();
        let events = said
            .lines()
            .filter(|line| !["ready", "last", "probe"].iter().any(|word| line.contains(word)));
        events
            .map(|line| line.split(" [").next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(heard(&watcher), heard(&own));
    session.sh("pkill -f '[i]notify_add_watch'").end().code(0);
    let _ = (own.end(), watcher.end());
}
