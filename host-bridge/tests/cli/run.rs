use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::rig::{Rig, eventually, signal};

#[test]
fn the_exit_code_is_the_commands_own() {
    let rig = Rig::new();
    for (command, code) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "kill -9 $$"], 137),
        (&["no-such-command"], 127),
        (&["/etc/passwd"], 126),
    ] {
        let said = rig.coffer(&[&["run", "--"], command].concat());
        assert_eq!(said.code, Some(code), "{command:?}: {}", said.stderr);
    }
    rig.assert_nothing_is_left();
}

#[test]
fn output_and_errors_come_apart_and_input_goes_in() {
    let rig = Rig::new();
    let said = rig.coffer(&["run", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!(
        (said.stdout.as_slice(), said.stderr.as_str()),
        (&b"out\n"[..], "err\n")
    );
    assert_eq!(
        rig.coffer_with(&["run", "-i", "wc", "-l"], b"1\n2\n3\n")
            .ok()
            .trim(),
        "3"
    );
    assert_eq!(
        rig.coffer_with(&["run", "--", "wc", "-c"], b"not sent")
            .ok()
            .trim(),
        "0"
    );
}

#[test]
fn any_bytes_pass_unchanged_both_ways() {
    let rig = Rig::new();
    let bytes: Vec<u8> = (0..20_000_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let said = rig.coffer_with(&["run", "-i", "--", "cat"], &bytes);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(said.stdout == bytes);
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let rig = Rig::new();
    let mut child = rig
        .command(&["run", "yes"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let said = child.wait_with_output().unwrap();
    assert_eq!(
        (line.as_str(), said.status.code(), said.stderr.as_slice()),
        ("y\n", Some(141), &b""[..])
    );
    rig.assert_nothing_is_left();
}

#[test]
fn the_time_limit_ends_the_command_with_code_124() {
    let rig = Rig::new();
    let start = Instant::now();
    rig.coffer(&["run", "--timeout", "300ms", "--", "sleep", "60"])
        .failed(124, &["--timeout", "sleep 60"]);
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn variables_and_directory_reach_the_command() {
    let rig = Rig::new();
    let mut command = rig.command(&[
        "run",
        "-e",
        "A=1",
        "-e",
        "PASSED",
        "-w",
        "/",
        "sh",
        "-c",
        "echo $A $PASSED $PWD",
    ]);
    let output = command.env("PASSED", "on").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1 on /\n");
}

#[test]
fn json_tells_how_the_command_ended_and_leaves_its_output_alone() {
    let rig = Rig::new();
    let said = rig.coffer(&["run", "--json", "sh", "-c", "echo data; kill -9 $$"]);
    let report: serde_json::Value = serde_json::from_str(&said.stderr).unwrap();
    assert_eq!(
        (&report["exit_code"], &report["signal"]),
        (&137.into(), &9.into())
    );
    assert_eq!(said.stdout, b"data\n");
}

#[test]
fn what_was_typed_wrong_is_said_with_code_2() {
    let rig = Rig::new();
    for (arguments, words) in [
        (
            &["run", "--cpus", "33", "x"][..],
            &["--cpus", "33", "1 to 32"][..],
        ),
        (&["run", "--memory", "10M", "x"], &["--memory", "10M", "64"]),
        (&["run", "--disk", "lots", "x"], &["--disk", "lots"]),
        (&["run", "--name", "No Good", "x"], &["No Good", "hint: "]),
        (&["run", "-t", "x"], &["-t needs a terminal", "hint: "]),
        (&["run"], &["CMD", "hint: "]),
        (&["frobnicate"], &["frobnicate"]),
        (&["cp", "a", "b"], &["neither side", "hint: coffer cp"]),
        (&["run", "--image", "../x", "x"], &["../x"]),
    ] {
        rig.coffer(arguments).failed(2, words);
    }
}

#[test]
fn a_missing_or_corrupt_image_is_said_before_anything_starts() {
    let rig = Rig::new();
    rig.coffer(&["run", "--image", "nope", "x"])
        .failed(125, &["nope", "hint: "]);
    fs::write(rig.path("data/cofferdam/images/default/rootfs.erofs"), "x").unwrap();
    rig.coffer(&["run", "x"])
        .failed(125, &["corrupt", "rootfs.erofs", "hint: "]);
    rig.assert_nothing_is_left();
}

#[test]
fn a_kernel_that_is_none_is_said_by_the_machine() {
    let rig = Rig::new();
    rig.make_image("bad", b"not a kernel");
    rig.coffer(&["run", "--image", "bad", "x"])
        .failed(125, &["did not start", "is not a kernel"]);
    rig.assert_nothing_is_left();
}

#[test]
fn a_state_directory_that_cannot_be_used_is_named() {
    let rig = Rig::new();
    fs::write(rig.path("file"), "").unwrap();
    let output = rig
        .command(&["run", "x"])
        .env("XDG_STATE_HOME", rig.path("file"))
        .output()
        .unwrap();
    crate::rig::Said::from(output).failed(125, &["directory cannot be made", "file/cofferdam"]);
    let long = rig.path(&"d".repeat(90));
    let output = rig
        .command(&["run", "x"])
        .env("XDG_RUNTIME_DIR", long)
        .output()
        .unwrap();
    crate::rig::Said::from(output).failed(125, &["socket path", "hint: set XDG_RUNTIME_DIR"]);
}

#[test]
fn a_kernel_that_panics_and_a_machine_that_dies_are_told_apart() {
    let rig = Rig::new();
    rig.coffer(&["run", "fake-panic"]).failed(
        125,
        &["kernel panicked: Kernel panic - not syncing: \\u{1b}[31mfake"],
    );
    rig.coffer(&["run", "fake-die"])
        .failed(125, &["the sandbox ended", "killed by signal 6"]);
    rig.assert_nothing_is_left();
}

#[test]
fn a_machine_killed_under_a_command_is_an_error_that_says_so() {
    let rig = Rig::new();
    let child = sleeping(&rig, &["run", "sh", "-c", "echo started; exec sleep 60"]);
    let (machine, _) = rig
        .processes()
        .into_iter()
        .find(|(_, name)| name == "coffer-vmm")
        .unwrap();
    signal(machine, Signal::KILL);
    let said: crate::rig::Said = child.wait_with_output().unwrap().into();
    said.failed(125, &["the sandbox ended", "killed by signal 9"]);
    rig.assert_nothing_is_left();
}

#[test]
fn garbage_from_the_guest_disturbs_nothing() {
    let rig = Rig::new();
    assert_eq!(rig.coffer(&["run", "fake-garbage"]).code, Some(127));
}

#[test]
fn signals_are_for_the_command() {
    let rig = Rig::new();
    let script = "trap 'echo got; exit 3' TERM; echo started; while :; do sleep 0.05; done";
    let child = sleeping(&rig, &["run", "sh", "-c", script]);
    signal(child.id(), Signal::TERM);
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stdout.as_slice()),
        (Some(3), &b"got\n"[..])
    );
    rig.assert_nothing_is_left();
}

#[test]
fn a_second_interrupt_ends_the_sandbox() {
    let rig = Rig::new();
    let mut child = sleeping(
        &rig,
        &["run", "sh", "-c", "trap '' INT; echo started; exec sleep 60"],
    );
    signal(child.id(), Signal::INT);
    std::thread::sleep(Duration::from_millis(100));
    assert!(child.try_wait().unwrap().is_none());
    signal(child.id(), Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    rig.assert_nothing_is_left();
}

#[test]
fn what_a_killed_coffer_leaves_is_gone_at_the_next_start() {
    let rig = Rig::new();
    let mut child = sleeping(
        &rig,
        &["run", "--name", "box", "sh", "-c", "echo started; exec sleep 60"],
    );
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the machine ends when its owner does", || {
        rig.processes().is_empty()
    });
    assert_eq!(rig.names("state/cofferdam/sessions"), ["box"]);
    assert_eq!(rig.coffer(&["ls", "-q"]).ok(), "");
    rig.assert_nothing_is_left();
    rig.coffer(&["run", "--name", "box", "true"]).ok();
}

#[test]
fn a_kept_session_can_be_started_again() {
    let rig = Rig::new();
    let said = rig.coffer(&["run", "--keep", "--name", "box", "sh", "-c", "echo kept > note"]);
    said.failed(0, &["session kept: box", "hint: coffer up box"]);
    assert_eq!(rig.json(&["ls", "--json"])[0]["state"], "stopped");
    assert_eq!(rig.coffer(&["up", "box"]).ok(), "box\n");
    assert_eq!(rig.coffer(&["exec", "box", "cat", "note"]).ok(), "kept\n");
}

/// Starts a command that says `started`, and waits until it did.
fn sleeping(rig: &Rig, arguments: &[&str]) -> Child {
    let mut child = rig
        .command(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut word = [0; 8];
    child.stdout.as_mut().unwrap().read_exact(&mut word).unwrap();
    assert_eq!(&word, b"started\n");
    child
}
