use std::{
    fs,
    io::Read,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::rig::{Rig, eventually, signal};

/// A rig with folders to share.
fn rig() -> Rig {
    let rig = Rig::new();
    for folder in ["work/src", "work/other/src", "work/third"] {
        fs::create_dir_all(rig.path(folder)).unwrap();
    }
    fs::write(rig.path("work/src/note"), "from the host\n").unwrap();
    rig
}

fn rig_with_session(arguments: &[&str]) -> Rig {
    let rig = rig();
    rig.coffer(&[&["up", "box"], arguments].concat()).ok();
    rig
}

/// What machine and guest were told of a folder of the session `box`.
fn told(rig: &Rig, folder: &str) -> Option<Value> {
    let path = rig.path(&format!("state/cofferdam/sessions/box/guest/{folder}.mounted"));
    let told: Value = serde_json::from_str(&fs::read_to_string(path).ok()?).unwrap();
    let share: Value = serde_json::from_str(told["share"].as_str().unwrap()).unwrap();
    Some(json!({ "read_only": told["read_only"], "share": share }))
}

fn listed(rig: &Rig) -> Vec<String> {
    let rows = rig.json(&["share", "ls", "box", "--json"]);
    let name = |row: &Value| row["name"].as_str().unwrap().to_owned();
    rows.as_array().unwrap().iter().map(name).collect()
}

/// Starts a command in the session that stands in its folder and says `started`.
fn standing(rig: &Rig, arguments: &[&str]) -> Child {
    let script = ["sh", "-c", "echo started; exec sleep 60"];
    let mut child = rig
        .command(&[&["exec", "box"], arguments, &["--"], &script].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut word = [0; 8];
    child.stdout.as_mut().unwrap().read_exact(&mut word).unwrap();
    child
}

#[test]
fn a_command_starts_in_the_first_folder_and_what_it_writes_is_on_the_host() {
    let rig = rig();
    let script = "cat note; echo hi > hello";
    let said = rig.coffer(&[
        "run",
        "--share",
        "work/src",
        "--share",
        "work/third",
        "--",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(said.ok(), "from the host\n");
    assert_eq!(fs::read_to_string(rig.path("work/src/hello")).unwrap(), "hi\n");
    let said = rig.coffer(&["run", "--share", "work/src", "-w", ".", "--", "ls", "mnt"]);
    assert_eq!(said.ok(), "outputs\nsrc\nuploads\n");
    rig.assert_nothing_is_left();
}

#[test]
fn exec_and_shell_start_in_the_first_folder_too() {
    let rig = rig_with_session(&["--share", "work/src:ro"]);
    assert_eq!(
        rig.coffer(&["exec", "box", "cat", "note"]).ok(),
        "from the host\n"
    );
    let said = rig.coffer_with(&["shell", "box"], b"cat note\n");
    assert!(
        String::from_utf8_lossy(&said.stdout).contains("from the host"),
        "{}",
        said.stderr
    );
}

#[test]
fn machine_and_guest_are_told_what_was_said() {
    let options = "ro,cache=exclusive,hide=*.key,show=.ssh,protect=/Cargo.lock,max-bytes=1G,max-files=9";
    let rig = rig_with_session(&[
        "--share",
        &format!("work/src:{options}:code"),
        "--share",
        "work/third",
    ]);
    let code = told(&rig, "code").unwrap();
    assert_eq!(code["read_only"], true);
    let share = &code["share"];
    assert_eq!(
        (&share["mode"], &share["cache"]),
        (&json!("read-only"), &json!("exclusive"))
    );
    assert_eq!(share["limits"], json!({ "bytes": 1u64 << 30, "files": 9 }));
    let list = |key: &str| share[key].as_array().unwrap().clone();
    assert_eq!(
        list("hide")[list("hide").len() - 2..],
        [json!("*.key"), json!("!.ssh")]
    );
    assert_eq!(list("protect").last(), Some(&json!("/Cargo.lock")));
    assert!(list("hide").contains(&json!(".gnupg")));
    assert_eq!(told(&rig, "third").unwrap()["read_only"], false);
    assert_eq!(told(&rig, "uploads").unwrap()["read_only"], true);
    assert_eq!(told(&rig, "outputs").unwrap()["read_only"], false);
}

#[test]
fn two_folders_of_one_name_get_two_names_and_that_is_said() {
    let rig = rig();
    let said = rig.coffer(&["up", "box", "--share", "work/src", "--share", "work/other/src"]);
    said.failed(0, &["src-2 in the sandbox", "work/other/src"]);
    assert_eq!(listed(&rig), ["src", "src-2", "outputs", "uploads"]);
}

#[test]
fn what_cannot_be_shared_is_said_before_anything_starts() {
    let rig = rig();
    fs::write(rig.path("work/file"), "").unwrap();
    for (share, code, words) in [
        ("work/nope", 125, &["work/nope", "hint: "][..]),
        ("work/file", 125, &["not a folder", "hint: "]),
        ("/", 125, &["whole file system", "--i-know"]),
        (".", 125, &["holds a whole home", "--i-know"]),
        ("state", 125, &["coffer's own", "--i-know"]),
        ("state/cofferdam", 125, &["coffer's own"]),
        ("work/src:review", 2, &["review is not there yet", "hint: "]),
        ("work/src:readonly", 2, &["readonly", "hint: options are ro"]),
        ("work/src:hide=a[", 2, &["bracket"]),
        ("work/src:outputs", 2, &["outputs"]),
    ] {
        // The state directory is made by looking for sessions.
        fs::create_dir_all(rig.path("state/cofferdam")).unwrap();
        fs::create_dir_all(rig.path("home")).unwrap();
        rig.coffer(&["run", "--share", share, "true"]).failed(code, words);
        rig.coffer(&["up", "box", "--share", share]).failed(code, words);
    }
    rig.coffer(&["run", "--share", "home", "true"])
        .failed(125, &["home directory"]);
    rig.coffer(&["run", "--share", "home", "--i-know", "true"]).ok();
    rig.assert_nothing_is_left();
}

#[test]
fn a_refusal_of_the_machine_ends_the_start_with_its_words() {
    let rig = rig();
    rig.coffer(&["run", "--share", "work/src:fake-refused", "true"])
        .failed(125, &["refused a folder: fake-refused", "does not want it"]);
    rig.assert_nothing_is_left();
}

#[test]
fn folders_come_and_go_while_a_session_runs() {
    let rig = rig_with_session(&["--share", "work/third"]);
    let said = rig.coffer(&["share", "add", "box", "work/src:ro"]).ok();
    assert_eq!(said, "/sessions/box/mnt/src\n");
    assert_eq!(
        rig.coffer(&["share", "add", "box", "work/other/src"]).ok(),
        "/sessions/box/mnt/src-2\n"
    );
    rig.coffer(&["share", "add", "box", "work/other:src"])
        .failed(2, &["one name: src"]);
    assert_eq!(listed(&rig), ["third", "src", "src-2", "outputs", "uploads"]);
    assert_eq!(
        rig.coffer(&["exec", "box", "-w", ".", "cat", "mnt/src/note"])
            .ok(),
        "from the host\n"
    );
    assert_eq!(rig.coffer(&["share", "rm", "box", "third"]).ok(), "");
    assert_eq!(listed(&rig), ["src", "src-2", "outputs", "uploads"]);
    assert!(told(&rig, "third").is_none());
    rig.coffer(&["share", "rm", "box", "third"])
        .failed(125, &["no folder of box", "hint: there are: src, src-2"]);
    // The first folder is another one now.
    assert_eq!(
        rig.coffer(&["exec", "box", "cat", "note"]).ok(),
        "from the host\n"
    );
}

#[test]
fn the_sessions_own_folders_cannot_be_taken_away() {
    let rig = rig_with_session(&[]);
    for own in ["outputs", "uploads"] {
        rig.coffer(&["share", "rm", "box", own])
            .failed(2, &[own, "hint: "]);
    }
    assert_eq!(listed(&rig), ["outputs", "uploads"]);
}

#[test]
fn a_folder_the_guest_cannot_mount_is_taken_back_from_the_machine() {
    let rig = rig_with_session(&[]);
    rig.coffer(&["share", "add", "box", "work/src:fake-unmountable"])
        .failed(125, &["cannot be mounted", "fake-unmountable"]);
    rig.coffer(&["share", "add", "box", "work/src:fake-refused"])
        .failed(125, &["does not want it"]);
    assert_eq!(listed(&rig), ["outputs", "uploads"]);
    // Had it stayed, the machine would not take the name again.
    rig.coffer(&["share", "add", "box", "work/src:fake-unmountable"])
        .failed(125, &["cannot be mounted"]);
}

#[test]
fn a_folder_in_use_stays_until_it_is_waited_for_or_cut() {
    let rig = rig_with_session(&["--share", "work/src", "--share", "work/third"]);
    let mut child = standing(&rig, &[]);
    rig.coffer(&["share", "rm", "box", "src"]).failed(
        125,
        &[
            "cannot be taken away: src: it is in use by sh (pid ",
            "hint: --wait waits for them, --cut",
        ],
    );
    rig.coffer(&["share", "rm", "box", "src", "--wait=100ms"])
        .failed(125, &["is in use"]);
    assert!(listed(&rig).contains(&"src".to_owned()));
    assert!(child.try_wait().unwrap().is_none());
    assert_eq!(rig.coffer(&["share", "rm", "box", "src", "--cut"]).ok(), "");
    assert!(!listed(&rig).contains(&"src".to_owned()));
    child.kill().unwrap();
    child.wait().unwrap();

    let mut child = standing(&rig, &["-w", "mnt/third"]);
    let mut waiting = rig
        .command(&["share", "rm", "box", "third", "--wait"])
        .spawn()
        .unwrap();
    let on_its_way = rig.path("state/cofferdam/sessions/box/guest/third.waited-for");
    eventually("it is waited for", || on_its_way.exists());
    rig.coffer(&["share", "rm", "box", "third"])
        .failed(125, &["just being shared or taken away: third"]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(waiting.wait().unwrap().code(), Some(0));
    assert_eq!(listed(&rig), ["outputs", "uploads"]);
}

#[test]
fn cut_after_a_wait_gives_those_who_use_it_their_time() {
    let rig = rig_with_session(&["--share", "work/src"]);
    let mut child = standing(&rig, &[]);
    let start = Instant::now();
    rig.coffer(&["share", "rm", "box", "src", "--wait=300ms", "--cut"])
        .ok();
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert_eq!(listed(&rig), ["outputs", "uploads"]);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn who_gives_up_waiting_leaves_the_folder_as_it_was() {
    let rig = rig_with_session(&["--share", "work/src"]);
    let mut child = standing(&rig, &[]);
    let mut waiting = rig
        .command(&["share", "rm", "box", "src", "--wait=10m", "--cut"])
        .spawn()
        .unwrap();
    let on_its_way = rig.path("state/cofferdam/sessions/box/guest/src.waited-for");
    eventually("it is waited for", || on_its_way.exists());
    signal(waiting.id(), Signal::INT);
    assert_eq!(waiting.wait().unwrap().code(), Some(130));
    eventually("it is there again", || {
        let said = rig.coffer(&["share", "rm", "box", "src"]).stderr;
        said.contains("is in use")
    });
    assert_eq!(
        rig.coffer(&["exec", "box", "cat", "note"]).ok(),
        "from the host\n"
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn cut_does_not_wait_for_a_guest_that_says_nothing() {
    let rig = rig_with_session(&["--share", "work/src:fake-deaf"]);
    let start = Instant::now();
    assert_eq!(rig.coffer(&["share", "rm", "box", "fake-deaf", "--cut"]).ok(), "");
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    assert_eq!(listed(&rig), ["outputs", "uploads"]);
    rig.coffer(&["exec", "box", "true"]).ok();
}

#[test]
fn a_session_that_is_started_again_has_its_folders_and_what_is_said_now() {
    let rig = rig_with_session(&["--share", "work/src:ro"]);
    rig.coffer(&["share", "add", "box", "work/third:hide=x"]).ok();
    rig.coffer(&["stop", "box"]).ok();
    assert_eq!(listed(&rig), ["src", "third", "outputs", "uploads"]);
    rig.coffer(&["up", "box"]).ok();
    assert_eq!(told(&rig, "src").unwrap()["read_only"], true);
    let hidden = told(&rig, "third").unwrap()["share"]["hide"].clone();
    assert_eq!(hidden.as_array().unwrap().last(), Some(&json!("x")));
    rig.coffer(&["stop", "box"]).ok();
    rig.coffer(&["up", "box", "--share", "work/src", "--share", "work/other"])
        .ok();
    assert_eq!(told(&rig, "src").unwrap()["read_only"], false);
    assert_eq!(listed(&rig), ["src", "third", "other", "outputs", "uploads"]);
}

#[test]
fn a_folder_that_vanished_is_shown_and_keeps_a_session_from_starting_until_it_is_let_go() {
    let rig = rig_with_session(&["--share", "work/third"]);
    fs::remove_dir(rig.path("work/third")).unwrap();
    let rows = rig.json(&["share", "ls", "box", "--json"]);
    assert_eq!(
        (&rows[0]["name"], &rows[0]["state"]),
        (&json!("third"), &json!("lost"))
    );
    assert!(rig.coffer(&["share", "ls", "box"]).ok().contains("lost"));
    rig.coffer(&["stop", "box"]).ok();
    rig.coffer(&["up", "box"]).failed(125, &["work/third", "hint: "]);
    assert_eq!(rig.json(&["inspect", "box", "--json"])["ended"], "stopped");
    assert_eq!(rig.json(&["share", "ls", "box", "--json"])[0]["state"], "lost");
    assert_eq!(rig.coffer(&["share", "rm", "box", "third"]).ok(), "");
    rig.coffer(&["up", "box"]).ok();
}

#[test]
fn a_path_that_became_a_link_is_not_followed_at_the_next_start() {
    let rig = rig_with_session(&["--share", "work/third"]);
    rig.coffer(&["stop", "box"]).ok();
    fs::remove_dir(rig.path("work/third")).unwrap();
    std::os::unix::fs::symlink(rig.path("work/src"), rig.path("work/third")).unwrap();
    rig.coffer(&["up", "box"])
        .failed(125, &["is a link now", "work/third"]);
}

#[test]
fn inspect_and_ls_show_the_folders() {
    let rig = rig_with_session(&["--share", "work/src:ro,hide=*.key,max-files=9"]);
    let all = rig.json(&["inspect", "box", "--json"]);
    let folder = &all["folders"][0];
    assert_eq!(folder["name"], "src");
    assert_eq!(
        folder["path"],
        json!(fs::canonicalize(rig.path("work/src")).unwrap())
    );
    assert_eq!(
        (&folder["mode"], &folder["cache"]),
        (&json!("read-only"), &json!("shared"))
    );
    assert_eq!(
        (&folder["hide"], &folder["limits"]["files"]),
        (&json!(["*.key"]), &json!(9))
    );
    assert_eq!(
        (&folder["state"], &folder["counts"]["read_bytes"]),
        (&json!("shared"), &json!(4096))
    );
    assert_eq!(all["folders"].as_array().unwrap().len(), 3);
    let text = rig.coffer(&["inspect", "box"]).ok();
    let row = text.lines().find(|line| line.starts_with("src ")).unwrap();
    assert!(
        row.contains(" ro ") && row.contains(" 4K ") && row.ends_with("hide=*.key,max-files=9"),
        "{row}"
    );
    assert!(text.contains("\nuploads: /") && text.contains("FOLDER"), "{text}");
    assert_eq!(rig.json(&["ls", "--json"])[0]["folders"], json!(["src"]));
    assert!(rig.coffer(&["ls"]).ok().lines().nth(1).unwrap().ends_with("src"));
}

#[test]
fn outputs_of_a_run_are_kept_when_there_are_any() {
    let rig = rig();
    rig.coffer(&["run", "--name", "box", "true"]).ok();
    assert!(rig.names("state/cofferdam/outputs").is_empty());
    let script = "echo result > mnt/outputs/file";
    let run = |more: &[&str]| rig.coffer(&[&["run", "--name", "box"], more, &["sh", "-c", script]].concat());
    run(&[]).failed(0, &["outputs kept: ", "state/cofferdam/outputs/box"]);
    let said = run(&["--json"]);
    let report: Value = serde_json::from_str(&said.stderr).unwrap();
    assert!(
        report["outputs"].as_str().unwrap().ends_with("outputs/box-2"),
        "{report}"
    );
    assert_eq!(run(&["--quiet"]).ok(), "");
    assert_eq!(rig.names("state/cofferdam/outputs"), ["box", "box-2", "box-3"]);
    let kept = rig.path("state/cofferdam/outputs/box/file");
    assert_eq!(fs::read_to_string(kept).unwrap(), "result\n");
    rig.assert_nothing_is_left();
    // What one session made, another may have.
    let said = rig.coffer(&["run", "--share", "state/cofferdam/outputs/box", "cat", "file"]);
    assert_eq!(said.ok(), "result\n");
}

#[test]
fn removing_a_session_keeps_its_outputs_and_says_where() {
    let rig = rig_with_session(&[]);
    rig.coffer(&["exec", "box", "sh", "-c", "echo x > mnt/outputs/file"])
        .ok();
    rig.coffer(&["rm", "-f", "box"])
        .failed(0, &["outputs kept: ", "outputs/box"]);
    assert_eq!(rig.names("state/cofferdam/outputs/box"), ["file"]);
}

#[test]
fn what_the_host_puts_into_uploads_is_there() {
    let rig = rig_with_session(&[]);
    let uploads = rig.json(&["inspect", "box", "--json"])["uploads"]
        .as_str()
        .unwrap()
        .to_owned();
    fs::write(format!("{uploads}/given"), "to you\n").unwrap();
    assert_eq!(
        rig.coffer(&["exec", "box", "cat", "mnt/uploads/given"]).ok(),
        "to you\n"
    );
}
