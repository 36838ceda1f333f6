//! Sessions that stay: their life, their files, and what is said when one of their parts dies.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::Path,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tests::{Host, Run, Session, cases, noise, wait_until};

#[test]
fn from_up_to_rm() {
    let session = Host::new().up("life", &["--memory", "256M", "--env", "SECRET=value"]);
    cases!(session;
        it_is_listed_and_described,
        its_console_is_kept,
        a_name_in_use_is_refused,
        an_unknown_name_is_told_with_the_one_that_was_meant,
        one_that_runs_is_not_removed_unless_forced,
        it_stops_and_starts_with_its_disk,
    );
}

fn it_is_listed_and_described(session: &Session) {
    let host = session.host();
    assert_eq!(host.coffer(["ls", "-q"]).end().code(0).text(), "life");
    let rows: Value = serde_json::from_slice(&host.coffer(["ls", "--json"]).end().code(0).stdout).unwrap();
    assert_eq!(
        (&rows[0]["name"], &rows[0]["state"], &rows[0]["memory_mib"]),
        (&"life".into(), &"running".into(), &256.into())
    );
    let ended = host.coffer(["inspect", "--json", "life"]).end().code(0);
    assert!(
        !ended.text().contains("value"),
        "a variable's value is told: {ended}"
    );
    let told: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(told["machine"]["state"], "running");
    assert_eq!(
        told["guest"]["kernel"].as_str().unwrap(),
        session.exec(&[], ["uname", "-r"]).end().text()
    );
}

fn its_console_is_kept(session: &Session) {
    session
        .root("echo '<1>a word for the log' > /dev/kmsg")
        .end()
        .code(0);
    let logged = || {
        session
            .host()
            .coffer(["logs", "life"])
            .end()
            .code(0)
            .text()
            .contains("a word for the log")
    };
    wait_until("the word is in the log", 10, logged);
}

fn a_name_in_use_is_refused(session: &Session) {
    let host = session.host();
    host.coffer(["up", "life"])
        .end()
        .complains(125, "already runs: life", "coffer exec life");
    host.coffer(["run", "--name", "life", "--", "true"])
        .end()
        .complains(125, "already runs: life", "coffer stop life");
}

fn an_unknown_name_is_told_with_the_one_that_was_meant(session: &Session) {
    let host = session.host();
    host.coffer(["exec", "liffe", "--", "true"])
        .end()
        .complains(125, "liffe", "did you mean life?");
    host.coffer(["stop", "something-else"])
        .end()
        .complains(125, "something-else", "coffer ls");
    host.coffer(["rm", "something-else"])
        .end()
        .complains(125, "something-else", "coffer ls");
    host.coffer(["up", "Not_A_Name"])
        .end()
        .complains(2, "Not_A_Name", "lower-case");
}

fn one_that_runs_is_not_removed_unless_forced(session: &Session) {
    session
        .host()
        .coffer(["rm", "life"])
        .end()
        .complains(125, "still runs: life", "coffer stop life");
}

fn it_stops_and_starts_with_its_disk(session: &Session) {
    let host = session.host();
    let waits = "echo kept > file; trap 'echo in order > end; exit 5' TERM; echo ready; sleep 1000 & wait";
    let running = session.sh(waits).start();
    running.wait_for("ready");
    host.coffer(["stop", "life"]).end().code(0);
    running.end().code(5);
    assert!(host.coffer(["ls"]).end().code(0).text().contains("stopped"));
    host.coffer(["exec", "life", "--", "true"])
        .end()
        .complains(125, "does not run: life", "coffer up life");
    host.coffer(["stop", "life"]).end().code(0);
    host.coffer(["up", "life"]).end().says("life");
    session
        .sh("cat file end; echo $SECRET")
        .end()
        .says("kept\nin order\nvalue");
    host.coffer(["stop", "--time", "1s", "life"]).end().code(0);
    host.coffer(["rm", "life"]).end().code(0);
    assert_eq!(host.coffer(["ls", "-q"]).end().code(0).text(), "");
}

#[test]
fn files() {
    let session = Host::new().up("files", &["--image", "small", "--memory", "256M"]);
    cases!(session;
        a_directory_goes_in_and_comes_out_the_same,
        one_file_goes_by_its_name_or_another_or_a_stream,
        what_cannot_be_copied_is_said,
        names_from_the_sandbox_stay_below_the_directory_they_go_to,
        links_from_the_sandbox_are_not_followed,
    );
}

fn copy(session: &Session, from: impl AsRef<OsStr>, to: impl AsRef<OsStr>) -> Run {
    session
        .host()
        .coffer([OsStr::new("cp"), from.as_ref(), to.as_ref()])
}

fn a_directory_goes_in_and_comes_out_the_same(session: &Session) {
    let root = tempfile::tempdir().unwrap();
    let (there, back) = (root.path().join("tree"), root.path().join("back"));
    fs::create_dir_all(there.join("deep/er")).unwrap();
    fs::create_dir(there.join("empty")).unwrap();
    fs::write(there.join("deep/er/noise"), noise(3_000_001)).unwrap();
    fs::write(there.join("deep/nothing"), "").unwrap();
    fs::write(there.join(OsStr::from_bytes(b"-odd \n\xff name")), "odd").unwrap();
    fs::write(there.join("program"), "#!/bin/sh\necho runs\n").unwrap();
    fs::set_permissions(there.join("program"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("deep/er/noise", there.join("link")).unwrap();
    copy(session, &there, "files:").end().code(0);
    session.exec(&[], ["tree/program"]).end().says("runs");
    copy(session, "files:tree", &back).end().code(0);
    let compare = ["diff", "--recursive", "--no-dereference"];
    Run::new([there, back.clone()]).under(compare).end().says("");
    let mode = fs::metadata(back.join("program")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
}

fn one_file_goes_by_its_name_or_another_or_a_stream(session: &Session) {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "content").unwrap();
    copy(session, &file, "files:/tmp").end().code(0);
    copy(session, &file, "files:/tmp/other").end().code(0);
    copy(session, "-", "files:stream").input("streamed").end().code(0);
    session
        .sh("cat /tmp/file /tmp/other stream; stat -c %U stream")
        .end()
        .says("contentcontentstreamedagent");
    copy(session, "files:stream", "-").end().says("streamed");
    copy(session, "files:/tmp/other", root.path()).end().code(0);
    assert_eq!(fs::read_to_string(root.path().join("other")).unwrap(), "content");
}

fn what_cannot_be_copied_is_said(session: &Session) {
    copy(session, "files:/no/such/file", "/tmp")
        .end()
        .complains(125, "/no/such/file", "");
    copy(session, "/no/such/file", "files:")
        .end()
        .complains(125, "/no/such/file", "");
    copy(session, "/etc/hostname", "files:/no/such/directory/")
        .end()
        .complains(125, "/no/such/directory", "");
    copy(session, "files:a", "files:b")
        .end()
        .complains(2, "both sides", "coffer cp");
    copy(session, "a", "b")
        .end()
        .complains(2, "neither side", "coffer cp");
}

fn names_from_the_sandbox_stay_below_the_directory_they_go_to(session: &Session) {
    let root = tempfile::tempdir().unwrap();
    let names = "mkdir -p odd; cd odd; touch -- -rf '..\\..\\x' \"$(printf 'a\\nb')\" \"$(printf '\\033[2J')\" '...' ' '; mkfifo pipe";
    session.sh(names).end().code(0);
    let ended = copy(session, "files:odd", root.path()).end().code(0);
    assert!(ended.stderr.contains("not copied: 1"), "{ended}");
    let found = names_in(&root.path().join("odd"));
    assert_eq!(found, ["\u{1b}[2J", " ", "-rf", "...", "..\\..\\x", "a\nb"]);
    assert_eq!(names_in(root.path()), ["odd"]);
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

fn links_from_the_sandbox_are_not_followed(session: &Session) {
    let root = tempfile::tempdir().unwrap();
    let (outside, inside) = (root.path().join("outside"), root.path().join("inside"));
    fs::create_dir(&outside).unwrap();
    fs::create_dir(&inside).unwrap();
    let link = format!(
        "mkdir -p trap; ln -s {} trap/way; ln -s /etc/shadow trap/shadow",
        outside.display()
    );
    session.sh(&link).end().code(0);
    copy(session, "files:trap", &inside).end().code(0);
    assert_eq!(
        fs::read_link(inside.join("trap/shadow")).unwrap(),
        Path::new("/etc/shadow")
    );
    session
        .sh("rm trap/way; mkdir trap/way; touch trap/way/escaped")
        .end()
        .code(0);
    let _ = copy(session, "files:trap", &inside).end();
    assert_eq!(names_in(&outside), [""; 0]);
}

#[test]
fn what_dies_is_told() {
    cases!(Host::new();
        a_keeper_that_is_killed_takes_its_machine_along_and_frees_the_name,
        a_machine_that_is_killed_under_a_command,
        a_kernel_that_panics_under_a_command,
        a_sandbox_that_switches_itself_off,
    );
}

fn small(host: &Host, name: &str) -> Session {
    host.up(name, &["--image", "small", "--memory", "256M"])
}

fn a_keeper_that_is_killed_takes_its_machine_along_and_frees_the_name(host: &Host) {
    let session = small(host, "orphan");
    let machine = session.number("machine_pid");
    kill(session.number("pid"));
    wait_until("the machine is gone", 10, || {
        !Path::new(&format!("/proc/{machine}")).exists()
    });
    let stopped = host.coffer(["inspect", "orphan"]).end().code(0).text();
    assert!(
        stopped.contains("state: stopped") && stopped.contains("owner process died"),
        "{stopped}"
    );
    host.coffer(["up", "orphan"]).end().says("orphan");
    session.exec(&[], ["true"]).end().code(0);
}

fn a_machine_that_is_killed_under_a_command(host: &Host) {
    let session = small(host, "killed");
    let running = session.sh("echo ready; sleep 1000").start();
    running.wait_for("ready");
    kill(session.number("machine_pid"));
    let ended = running.end().code(125);
    assert!(
        ended.stderr.contains("machine's process was killed by signal 9"),
        "{ended}"
    );
    let next = session.exec(&[], ["true"]).end().code(125);
    assert!(next.stderr.contains("does not run: killed"), "{next}");
}

fn a_kernel_that_panics_under_a_command(host: &Host) {
    let session = small(host, "panic");
    let ended = session
        .root("echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger; sleep 1000")
        .end();
    ended.complains(
        125,
        "kernel panicked: Kernel panic - not syncing: sysrq triggered crash",
        "the last it said",
    );
    assert!(
        host.coffer(["logs", "panic"])
            .end()
            .code(0)
            .text()
            .contains("sysrq triggered crash")
    );
}

fn a_sandbox_that_switches_itself_off(host: &Host) {
    for (name, letter, word) in [
        ("off", 'o', "switched the machine off"),
        ("reboot", 'b', "reset the machine"),
    ] {
        let session = small(host, name);
        let line =
            format!("echo 1 > /proc/sys/kernel/sysrq; echo {letter} > /proc/sysrq-trigger; sleep 1000");
        let ended = session.root(&line).end().code(125);
        assert!(ended.stderr.contains(word), "{ended}");
    }
}

fn kill(id: u64) {
    kill_process(Pid::from_raw(id.try_into().unwrap()).unwrap(), Signal::KILL).unwrap();
}
