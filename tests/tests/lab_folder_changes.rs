//! Folders that come, go, vanish and fill up while a session runs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;
use tests::{Ended, Host, Running, Session, Terminal, cases, noise, wait_until};

#[test]
fn folders_come_and_go() {
    let host = Host::new();
    let session = host.up("live", &["--share", host.folder("stays").to_str().unwrap()]);
    cases!(session;
        one_that_is_added_is_there_for_a_shell_that_runs,
        one_that_is_looked_for_before_it_is_there_is_found,
        one_in_use_stays_and_who_uses_it_is_told,
        who_waits_gets_it_when_it_is_free,
        one_that_is_cut_off_fails_for_its_user_only,
        one_that_is_cut_off_under_a_build,
        nothing_is_left_of_twenty_that_came_and_went,
    );
}

fn share(session: &Session, words: &[&str]) -> Ended {
    let words = [&["share", words[0], session.name()], &words[1..]].concat();
    session.host().coffer(words).end()
}

/// A folder of that name with a note in it, in the session.
fn added(session: &Session, name: &str) -> PathBuf {
    let folder = session.host().folder(name);
    fs::write(folder.join("note"), name).unwrap();
    share(session, &["add", folder.to_str().unwrap()]).says(&format!("/sessions/live/mnt/{name}"));
    folder
}

/// A command that stands in the folder.
fn standing(session: &Session, folder: &str, line: &str) -> Running {
    let directory = format!("mnt/{folder}");
    let running = session.exec(&["-w", &directory], ["sh", "-c", line]).start();
    running.wait_for("ready");
    running
}

fn one_that_is_added_is_there_for_a_shell_that_runs(session: &Session) {
    let shell = session.exec(&["-i", "-w", "mnt"], ["sh"]);
    let mut shell = shell.deadline(60).open_input().start();
    shell.send("ls; echo first\n");
    shell.wait_for("outputs\nstays\nuploads\nfirst");
    let folder = added(session, "late");
    shell.send("ls; cat late/note; echo written > late/file; echo second\n");
    shell.wait_for("late\noutputs\nstays\nuploads\nlatesecond");
    assert_eq!(fs::read_to_string(folder.join("file")).unwrap(), "written\n");
    share(session, &["rm", "late"]).says("");
    shell.send("ls; cat late/note 2>&1; echo third\n");
    shell.wait_for("outputs\nstays\nuploads\ncat: late/note: No such file or directory\nthird");
    shell.close_input();
    shell.end().code(0);
    assert!(folder.join("file").exists());
}

/// The guest's kernel remembers that there was nothing of that name.
fn one_that_is_looked_for_before_it_is_there_is_found(session: &Session) {
    let looks = "echo ready; until cat ../soon/note 2>/dev/null; do :; done";
    let looking = standing(session, "stays", looks);
    added(session, "soon");
    looking.end().says("ready\nsoon");
    share(session, &["rm", "soon"]).says("");
}

fn one_in_use_stays_and_who_uses_it_is_told(session: &Session) {
    added(session, "used");
    let by_directory = standing(session, "used", "echo ready; exec sleep 1000");
    share(session, &["rm", "used"]).complains(125, "in use by sleep (pid ", "--wait");
    by_directory.signal(Signal::TERM);
    by_directory.end().code(128 + 15);
    let line = "exec 3<mnt/used/note; cd /; echo ready; exec sleep 1000";
    let by_file = standing(session, ".", &line.replace("mnt/", "/sessions/live/mnt/"));
    share(session, &["rm", "used", "--wait=500ms"]).complains(125, "in use by sleep (pid ", "--cut");
    session.sh("cat /sessions/live/mnt/used/note").end().says("used");
    by_file.signal(Signal::TERM);
    by_file.end().code(128 + 15);
    share(session, &["rm", "used"]).says("");
}

fn who_waits_gets_it_when_it_is_free(session: &Session) {
    added(session, "waited");
    let user = standing(session, "waited", "echo ready; exec sleep 1000");
    let words = ["share", "rm", "live", "waited", "--wait"];
    let mut waiting = Terminal::start(session.host().coffer(words), 24, 80);
    waiting.expect("waiting for the sandbox");
    share(session, &["rm", "waited"]).complains(125, "just being shared or taken away: waited", "");
    session.sh("cat ../waited/note").end().says("waited");
    user.signal(Signal::TERM);
    user.end().code(128 + 15);
    assert_eq!(waiting.end(), (0, false));
    assert!(!share(session, &["ls"]).text().contains("waited"));
}

fn one_that_is_cut_off_fails_for_its_user_only(session: &Session) {
    added(session, "cut");
    let reader = "
import errno, os, time
file = open('note', 'rb', buffering=0)
print('ready', flush=True)
try:
    while True:
        os.stat('note'), os.pread(file.fileno(), 10, 0), time.sleep(0.01)
except OSError as error:
    print(errno.errorcode[error.errno], flush=True)
";
    let user = session
        .exec(&["-w", "mnt/cut"], ["python3", "-c", reader])
        .start();
    user.wait_for("ready");
    let removed = share(session, &["rm", "cut", "--cut"]);
    assert!(removed.took < Duration::from_secs(15), "{removed}");
    removed.says("");
    let ended = user.end().code(0);
    assert!(
        ["ready\nESTALE", "ready\nEIO"].contains(&&*ended.text()),
        "{ended}"
    );
    session
        .sh("echo on > after && cat after && ls ..")
        .end()
        .says("on\noutputs\nstays\nuploads");
}

/// What was written is there, what is shared next under the name has nothing to do with it.
fn one_that_is_cut_off_under_a_build(session: &Session) {
    let folder = added(session, "build");
    // Each in a directory of its own; the last it says is what stopped it.
    let build = "echo ready; i=0
        while mkdir -p out/$$/$i && head -c 100000 /dev/zero > out/$$/$i/object && cat out/$$/$i/object > program-$$
        do i=$((i + 1)); done 2>/tmp/why-$$
        echo stopped; tail -n 1 /tmp/why-$$";
    let builds = [(); 2].map(|()| standing(session, "build", build));
    let made = || directories(&folder.join("out"));
    let far = |directory: &PathBuf| directory.join("9/object").exists();
    wait_until("both have built much", 60, || {
        made().len() == 2 && made().iter().all(far)
    });
    share(session, &["rm", "build", "--cut"]).says("");
    for build in builds {
        let ended = build.end().code(0);
        assert!(
            ended.text().starts_with("ready\nstopped\n") && is_gone(&ended.text()),
            "{ended}"
        );
    }
    for directory in made() {
        // The one it was at may be there in part.
        for n in 0..directories(&directory).len() - 1 {
            let object = fs::read(directory.join(n.to_string()).join("object")).unwrap();
            assert!(object == vec![0; 100_000], "{n}: {} bytes", object.len());
        }
    }
    let count = || made().iter().map(|made| directories(made).len()).sum::<usize>();
    let left = count();
    let other = session.host().folder("other/build");
    share(session, &["add", other.to_str().unwrap()]).says("/sessions/live/mnt/build");
    session
        .sh("ls -A ../build; echo new > ../build/file")
        .end()
        .says("");
    assert_eq!(fs::read_to_string(other.join("file")).unwrap(), "new\n");
    share(session, &["rm", "build"]).says("");
    assert_eq!(count(), left);
}

fn directories(of: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(of).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Whether it tells, as programs do, that a folder was taken away under them.
fn is_gone(said: &str) -> bool {
    ["Stale file handle", "Input/output error"]
        .iter()
        .any(|word| said.contains(word))
}

fn nothing_is_left_of_twenty_that_came_and_went(session: &Session) {
    let processes = ["machine_pid", "pid"].map(|field| session.number(field));
    let open = || processes.map(|id| fs::read_dir(format!("/proc/{id}/fd")).unwrap().count());
    let once = || {
        let folder = added(session, "comes");
        session
            .sh("cat ../comes/note; echo x > ../comes/file")
            .end()
            .says("comes");
        share(session, &["rm", "comes"]).says("");
        fs::remove_dir_all(folder).unwrap();
    };
    once();
    let before = open();
    (0..20).for_each(|_| once());
    wait_until("as many descriptors as before", 10, || open() <= before);
}

#[test]
fn the_host_changes_what_is_below_a_folder() {
    let host = Host::new();
    let paths =
        ["stays", "deleted", "renamed", "mounted/in", "small/in", "lazy/in"].map(|name| host.folder(name));
    let mounts = ["mounted", "small", "lazy"].map(|name| Tmpfs::on(&host.folder(name)));
    for path in &paths {
        fs::create_dir_all(path).unwrap();
        fs::write(path.join("note"), "note\n").unwrap();
    }
    let shares = [
        "stays",
        "deleted",
        "renamed",
        "mounted",
        "small",
        "lazy:cache=exclusive",
    ];
    let shares = shares.map(|name| format!("{}/{name}", host.root().join("folders").display()));
    let options: Vec<&str> = shares.iter().flat_map(|share| ["--share", share]).collect();
    let session = host.up("shaken", &options);
    cases!(session;
        one_that_is_deleted_fails_alone,
        one_that_is_renamed_is_not_looked_for_by_its_name,
        one_that_becomes_read_only_says_so,
        one_that_is_full_keeps_what_it_has,
    );
    drop((session, mounts));
}

/// Some memory with an end.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn on(folder: &Path) -> Self {
        run(
            "mount",
            &["-t", "tmpfs", "-o", "size=4m", "none", folder.to_str().unwrap()],
        );
        Tmpfs(folder.to_owned())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        run("umount", &[self.0.to_str().unwrap()]);
    }
}

#[track_caller]
fn run(program: &str, words: &[&str]) {
    let done = Command::new(program).args(words).output().unwrap();
    assert!(done.status.success(), "{program} {words:?}: {done:?}");
}

fn state(session: &Session, folder: &str) -> Value {
    let rows: Value = serde_json::from_slice(&share(session, &["ls", "--json"]).code(0).stdout).unwrap();
    let mut rows = rows.as_array().unwrap().iter();
    rows.find(|row| row["name"] == folder).unwrap()["state"].clone()
}

/// What the guest's kernel still believes of a folder that was removed on the host it asks about again by then.
const SOON_LOST: Duration = Duration::from_secs(2);

/// The code and the words of what failed for want of the folder.
fn is_lost(line: &str) -> bool {
    !line.starts_with("0 ") && (line.ends_with("Stale file handle") || line.ends_with("Input/output error"))
}

fn one_that_is_deleted_fails_alone(session: &Session) {
    let folder = session.host().root().join("folders/deleted");
    let user = standing(
        session,
        "deleted",
        "exec 3<note; echo ready; while cat /proc/self/cwd/note; do sleep 0.1; done >/dev/null; echo over",
    );
    fs::remove_dir_all(&folder).unwrap();
    user.end().says("ready\nover");
    let line = "cd /sessions/shaken/mnt; for line in 'ls deleted/.' 'cat deleted/note' 'echo x > deleted/new' 'mkdir deleted/d'; do
        said=$(timeout 10 sh -c \"$line\" 2>&1); echo $? $said; done";
    let end = Instant::now() + SOON_LOST;
    let said = loop {
        let said = session.sh(line).end().code(0).text().to_owned();
        if said.lines().all(is_lost) || Instant::now() > end {
            break said;
        }
    };
    println!("       {}", said.replace('\n', "\n       "));
    assert!(said.lines().count() == 4 && said.lines().all(is_lost), "{said}");
    assert_eq!(state(session, "deleted"), "lost");
    // One that comes back under the name is another one.
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("note"), "another").unwrap();
    let ended = session.sh("cat ../deleted/note").end().code(1);
    assert!(
        ended.stdout.is_empty() && is_lost(ended.stderr.trim_end()),
        "{ended}"
    );
    assert!(
        session
            .sh("cat note; ls ..")
            .end()
            .code(0)
            .text()
            .starts_with("note\n")
    );
    share(session, &["rm", "deleted"]).says("");
}

/// It is the folder that was shared, not whatever has its name.
fn one_that_is_renamed_is_not_looked_for_by_its_name(session: &Session) {
    let folders = session.host().root().join("folders");
    fs::rename(folders.join("renamed"), folders.join("elsewhere")).unwrap();
    fs::create_dir(folders.join("renamed")).unwrap();
    fs::write(folders.join("renamed/note"), "another\n").unwrap();
    session
        .sh("cat ../renamed/note; echo x > ../renamed/new")
        .end()
        .says("note");
    assert!(!folders.join("renamed/new").exists());
    assert_eq!(fs::read_to_string(folders.join("elsewhere/new")).unwrap(), "x\n");
    assert_eq!(state(session, "renamed"), "shared");
    share(session, &["rm", "renamed"]).says("");
}

fn one_that_becomes_read_only_says_so(session: &Session) {
    let folder = session.host().root().join("folders/mounted");
    session.sh("echo x > ../mounted/before").end().code(0);
    let words = ["-o", "remount,ro", folder.to_str().unwrap()];
    let start = Instant::now();
    wait_until("nothing is open for writing", 60, || {
        Command::new("mount")
            .args(words)
            .output()
            .unwrap()
            .status
            .success()
    });
    println!("       read-only after {:.1?}", start.elapsed());
    for line in [
        "echo x > new",
        "echo y | tee -a before",
        "rm before",
        "mkdir d",
        "chmod 600 before",
        "touch before",
    ] {
        let ended = session.sh(&format!("cd ../mounted && {line}")).end();
        assert!(
            ended.code != 0 && ended.stderr.contains("Read-only file system"),
            "{ended}"
        );
    }
    session.sh("cat ../mounted/before").end().says("x");
    session.sh("echo on > of-stays && cat of-stays").end().says("on");
    run("mount", &["-o", "remount,rw", folder.to_str().unwrap()]);
    session.sh("echo again > ../mounted/after").end().says("");
    assert_eq!(fs::read_to_string(folder.join("after")).unwrap(), "again\n");
}

fn one_that_is_full_keeps_what_it_has(session: &Session) {
    for name in ["small", "lazy"] {
        let folder = session.host().root().join("folders").join(name);
        let kept = noise(1_000_000);
        let fill = "
import os, sys
data = sys.stdin.buffer.read()
open('kept', 'wb').write(data)
written, file = 0, os.open('big', os.O_WRONLY | os.O_CREAT)
try:
    while True:
        part = data[:65536]
        at = 0
        while at < len(part):
            at += os.write(file, part[at:])
        os.fsync(file)
        written += len(part)
except OSError as error:
    print(os.strerror(error.errno), written)
";
        let directory = format!("mnt/{name}");
        let fills = session.exec(&["-i", "-w", &directory], ["python3", "-c", fill]);
        let ended = fills.input(kept.clone()).end().code(0);
        let text = ended.text();
        let written: usize = text
            .strip_prefix("No space left on device ")
            .unwrap()
            .parse()
            .unwrap();
        assert!(written > 2_000_000, "{ended}");
        assert!(fs::read(folder.join("kept")).unwrap() == kept);
        let big = fs::read(folder.join("big")).unwrap();
        assert!(big.len() >= written, "{} of {written}", big.len());
        assert!(big[..written].chunks(65536).all(|part| part == &kept[..65536]));
        session
            .sh(&format!(
                "cd ../{name} && mkdir -p d/e; echo x > new; rm big && echo fits > new && cat new"
            ))
            .end()
            .says("fits");
    }
}
