use std::{fs, process::Stdio, time::Duration};

use rustix::process::Signal;

use crate::rig::{Rig, eventually, signal};

#[test]
fn a_session_stays_until_it_is_stopped_and_comes_back_with_its_disk_and_variables() {
    let rig = Rig::new();
    assert_eq!(
        rig.coffer(&["up", "box", "-e", "A=secret", "--memory", "256M"])
            .ok(),
        "box\n"
    );
    assert_eq!(
        rig.coffer(&["exec", "box", "--", "sh", "-c", "echo here > note; echo done"])
            .ok(),
        "done\n"
    );
    let all = rig.coffer(&["inspect", "box", "--json"]).ok();
    assert!(!all.contains("secret"));
    let all: serde_json::Value = serde_json::from_str(&all).unwrap();
    assert_eq!(
        (&all["state"], &all["memory_mib"]),
        (&"running".into(), &256.into())
    );
    assert_eq!(all["machine"]["state"], "running");
    assert_eq!(rig.coffer(&["stop", "box"]).ok(), "");
    assert!(rig.processes().is_empty());
    assert_eq!(rig.json(&["ls", "--json"])[0]["state"], "stopped");
    rig.coffer(&["up", "box"]).ok();
    assert_eq!(rig.json(&["inspect", "box", "--json"])["memory_mib"], 256);
    assert_eq!(rig.coffer(&["exec", "box", "cat", "note"]).ok(), "here\n");
    assert_eq!(rig.coffer(&["rm", "-f", "box"]).ok(), "");
    rig.assert_nothing_is_left();
}

#[test]
fn a_session_that_is_not_there_or_does_not_run_is_said_with_what_to_do() {
    let rig = Rig::new();
    rig.coffer(&["up", "builder"]).ok();
    rig.coffer(&["up", "builder"])
        .failed(125, &["already runs: builder", "hint: "]);
    rig.coffer(&["run", "--name", "builder", "x"])
        .failed(125, &["already", "builder"]);
    rig.coffer(&["exec", "biulder", "x"])
        .failed(125, &["biulder", "did you mean builder?"]);
    rig.coffer(&["rm", "builder"])
        .failed(125, &["still runs: builder", "coffer stop builder"]);
    rig.coffer(&["stop", "builder"]).ok();
    rig.coffer(&["stop", "builder"]).ok();
    rig.coffer(&["run", "--name", "builder", "x"])
        .failed(125, &["exists already: builder", "coffer rm builder"]);
    rig.coffer(&["exec", "builder", "x"])
        .failed(125, &["does not run: builder", "coffer up builder"]);
    rig.coffer(&["up", "builder", "--disk", "1G"])
        .failed(125, &["disk", "64G"]);
    rig.coffer(&["rm", "builder"]).ok();
    rig.coffer(&["rm", "builder"]).failed(125, &["no session"]);
    rig.coffer(&["rm", "-f", "builder"]).ok();
}

#[test]
fn a_session_whose_keeper_was_killed_is_found_stopped_and_starts_again() {
    let rig = Rig::new();
    rig.coffer(&["up", "box"]).ok();
    rig.coffer(&["exec", "box", "sh", "-c", "echo kept > note"]).ok();
    let (keeper, _) = rig
        .processes()
        .into_iter()
        .find(|(_, name)| name == "coffer")
        .unwrap();
    signal(keeper, Signal::KILL);
    eventually("the machine ends when its owner does", || {
        rig.processes().is_empty()
    });
    let listed = rig.json(&["ls", "--json"]);
    assert_eq!(
        (&listed[0]["state"], &listed[0]["alive"]),
        (&"stopped".into(), &false.into())
    );
    assert_eq!(listed[0]["ended"], "its owner process died");
    rig.coffer(&["up", "box"]).ok();
    assert_eq!(rig.coffer(&["exec", "box", "cat", "note"]).ok(), "kept\n");
}

#[test]
fn a_keeper_told_to_end_ends_its_session_in_order() {
    let rig = Rig::new();
    rig.coffer(&["up", "box"]).ok();
    let (keeper, _) = rig
        .processes()
        .into_iter()
        .find(|(_, name)| name == "coffer")
        .unwrap();
    signal(keeper, Signal::HUP);
    rig.coffer(&["exec", "box", "true"]).ok();
    signal(keeper, Signal::TERM);
    eventually("the keeper ends", || rig.processes().is_empty());
    assert_eq!(rig.json(&["ls", "--json"])[0]["ended"], "stopped");
}

#[test]
fn a_panic_in_a_session_reaches_the_command_and_the_record() {
    let rig = Rig::new();
    rig.coffer(&["up", "box"]).ok();
    rig.coffer(&["exec", "box", "fake-panic"])
        .failed(125, &["kernel panicked"]);
    eventually("the keeper ends", || rig.processes().is_empty());
    let ended = rig.json(&["ls", "--json"])[0]["ended"].clone();
    assert!(ended.as_str().unwrap().contains("kernel panicked"), "{ended}");
    assert!(rig.coffer(&["logs", "box"]).ok().contains("Kernel panic"));
}

#[test]
fn a_session_that_does_not_start_says_why_and_leaves_its_logs() {
    let rig = Rig::new();
    rig.make_image("bad", b"not a kernel");
    rig.coffer(&["up", "box", "--image", "bad"])
        .failed(125, &["is not a kernel"]);
    assert_eq!(rig.json(&["ls", "--json"])[0]["state"], "stopped");
    assert!(rig.processes().is_empty());
    rig.coffer(&["rm", "box"]).ok();
}

#[test]
fn many_commands_at_once_each_get_their_own_output() {
    let rig = Rig::new();
    rig.coffer(&["up", "box"]).ok();
    std::thread::scope(|scope| {
        for i in 0..40 {
            let rig = &rig;
            scope.spawn(move || {
                let script = format!("echo {i}; sleep 0.1; exit {i}");
                let said = rig.coffer(&["exec", "box", "sh", "-c", &script]);
                assert_eq!(said.code, Some(i), "{}", said.stderr);
                assert_eq!(said.stdout, format!("{i}\n").as_bytes());
            });
        }
    });
}

#[test]
fn a_client_that_is_killed_takes_its_command_along() {
    let rig = Rig::new();
    rig.coffer(&["up", "box"]).ok();
    let script = "echo $$ > pid; exec sleep 60";
    let mut child = rig
        .command(&["exec", "box", "sh", "-c", script])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let note = rig.path("state/cofferdam/sessions/box/guest/pid");
    eventually("the command runs", || {
        fs::read_to_string(&note).is_ok_and(|text| text.ends_with('\n'))
    });
    let pid = fs::read_to_string(&note).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the command is killed", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    });
    rig.coffer(&["exec", "box", "true"]).ok();
}

#[test]
fn logs_can_be_followed_to_the_end_of_the_session() {
    let rig = Rig::new();
    rig.coffer(&["up", "box"]).ok();
    let child = rig
        .command(&["logs", "-f", "box"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    rig.coffer(&["stop", "box"]).ok();
    let said = child.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&said.stdout),
        "fake guest console: booted\n"
    );
}

#[test]
fn a_shell_takes_commands_from_a_pipe() {
    let rig = Rig::new();
    rig.coffer(&["up", "box"]).ok();
    let said = rig.coffer_with(&["shell", "box", "-u", "root"], b"echo in the shell; exit 4\n");
    assert_eq!(said.code, Some(4), "{}", said.stderr);
    assert!(String::from_utf8_lossy(&said.stdout).contains("in the shell"));
}
