use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::rig::{Rig, eventually, signal};

/// What `fake-connect` says of a connection to port 443.
fn connect(rig: &Rig, name: &str) -> String {
    let said = rig.coffer(&["exec", "box", "fake-connect", name, "443"]);
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}

/// Each line that a coffer-egress was told, the first of each a configuration.
fn heard(rig: &Rig) -> Vec<Value> {
    let text = fs::read_to_string(rig.path("egress.heard")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn egress_pid(rig: &Rig) -> Option<u32> {
    let (pid, _) = rig
        .processes()
        .into_iter()
        .find(|(_, name)| name == "coffer-egress")?;
    Some(pid)
}

#[test]
fn without_a_rule_nothing_is_reached_and_what_was_tried_is_told() {
    let rig = Rig::new();
    rig.coffer(&["up", "box"]).ok();
    assert_eq!(connect(&rig, "example.com"), "no such name");
    rig.coffer(&["stop", "box"]).ok();
    let shown = rig.coffer(&["net", "box"]).ok();
    for words in [
        "session box: stopped",
        "may reach:\n  nothing\n",
        "reached: nothing",
        "example.com",
        "no rule allows it",
        "hint: coffer net allow box example.com",
        "fake-connect \\u{1b}[2J",
    ] {
        assert!(shown.contains(words), "{words:?} is not in {shown}");
    }
}

#[test]
fn a_rule_lets_through_what_it_names_and_the_record_says_so() {
    let rig = Rig::new();
    rig.coffer(&[
        "up",
        "box",
        "--allow",
        "*.example.com:443",
        "--deny",
        "bad.example.com",
    ])
    .ok();
    assert_eq!(connect(&rig, "www.example.com"), "opened");
    assert_eq!(connect(&rig, "bad.example.com"), "no such name");
    assert_eq!(connect(&rig, "example.com"), "no such name");
    rig.coffer(&["stop", "box"]).ok();
    let shown = rig.coffer(&["net"]).ok();
    for words in [
        "allow *.example.com:443",
        "deny bad.example.com",
        "nothing else",
        "www.example.com:443",
        "192.0.2.1",
        "1000",
        "a rule denies it (bad.example.com)",
    ] {
        assert!(shown.contains(words), "{words:?} is not in {shown}");
    }
    assert_eq!(
        rig.json(&["inspect", "box", "--json"])["net"]["rules"],
        json!(["allow *.example.com:443", "deny bad.example.com"])
    );
}

#[test]
fn the_process_that_is_killed_is_started_again_with_the_same_rules_and_the_session_lives() {
    let rig = Rig::new();
    rig.coffer(&["up", "box", "--allow", "example.com", "--net-max-bytes", "1M"])
        .ok();
    rig.coffer(&["net", "allow", "box", "more.example.com"]).ok();
    assert_eq!(connect(&rig, "example.com"), "opened");
    let first = egress_pid(&rig).unwrap();
    signal(first, Signal::KILL);
    eventually("another one serves", || {
        egress_pid(&rig).is_some_and(|pid| pid != first) && connect(&rig, "more.example.com") == "opened"
    });
    assert_eq!(connect(&rig, "other.example.com"), "no such name");
    let configs: Vec<Value> = heard(&rig)
        .into_iter()
        .filter(|line| line.get("version").is_some())
        .collect();
    assert_eq!(configs.len(), 2);
    assert_eq!(configs[1]["policy"]["rules"].as_array().unwrap().len(), 2);
    assert_eq!(configs[1]["spent"], json!({ "bytes": 2000, "connections": 1 }));
    rig.coffer(&["stop", "box"]).ok();
    let shown = rig.coffer(&["net", "box"]).ok();
    assert!(
        shown.contains("coffer-egress died: it was killed by signal 9"),
        "{shown}"
    );
}

#[test]
fn a_session_keeps_its_rules_and_what_it_spent_when_it_is_started_again() {
    let rig = Rig::new();
    rig.coffer(&[
        "up",
        "box",
        "--allow",
        "example.com",
        "--ask-net",
        "--net-max-connections",
        "7",
    ])
    .ok();
    assert_eq!(connect(&rig, "example.com"), "opened");
    rig.coffer(&["stop", "box"]).ok();
    rig.coffer(&["up", "box", "--deny", "bad.example.com"]).ok();
    let configs: Vec<Value> = heard(&rig);
    let again = &configs.last().unwrap();
    assert_eq!(again["policy"]["rules"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&again["policy"]["unknown"], &again["policy"]["max_connections"]),
        (&json!("ask"), &json!(7))
    );
    assert_eq!(again["spent"], json!({ "bytes": 2000, "connections": 1 }));
    let shown = rig.coffer(&["net", "box"]).ok();
    assert!(shown.contains("at most 7 connections; 1 used"), "{shown}");
    assert!(shown.contains("is asked about"), "{shown}");
}

#[test]
fn what_was_spent_is_spent_also_when_the_keeper_is_killed() {
    let rig = Rig::new();
    rig.coffer(&["up", "box", "--allow", "example.com", "--net-max-bytes", "1M"])
        .ok();
    for (spent, used) in [(2000, "1.9K"), (4000, "3.9K")] {
        assert_eq!(connect(&rig, "example.com"), "opened");
        eventually("the record is written", || {
            rig.coffer(&["net", "box", "--json"])
                .ok()
                .matches("\"what\":\"closed\"")
                .count()
                == 1
        });
        let shown = rig.coffer(&["net", "box"]).ok();
        assert!(shown.contains(&format!("{used} used")), "{shown}");
        let keeper = rig.json(&["inspect", "box", "--json"])["pid"].clone();
        signal(u32::try_from(keeper.as_u64().unwrap()).unwrap(), Signal::KILL);
        eventually("all of it is gone", || rig.processes().is_empty());
        rig.coffer(&["up", "box"]).ok();
        assert_eq!(
            heard(&rig).last().unwrap()["spent"],
            json!({ "bytes": spent, "connections": spent / 2000 })
        );
    }
}

#[test]
fn rules_of_a_running_session_change_at_once_and_stay_changed() {
    let rig = Rig::new();
    rig.coffer(&["up", "box"]).ok();
    for _ in 0..2 {
        assert_eq!(
            rig.coffer(&["net", "allow", "box", "a.test", "b.test:443"]).ok(),
            ""
        );
    }
    assert_eq!(connect(&rig, "a.test"), "opened");
    rig.coffer(&["net", "deny", "box", "a.test"]).ok();
    assert_eq!(connect(&rig, "a.test"), "no such name");
    rig.coffer(&["net", "allow", "box", "a.test"]).ok();
    assert_eq!(connect(&rig, "a.test"), "opened");
    rig.coffer(&["net", "forget", "box", "a.test"]).ok();
    assert_eq!(connect(&rig, "a.test"), "no such name");
    rig.coffer(&["net", "forget", "box", "a.test"]).failed(
        2,
        &["no rule of the session is this: a.test", "there are: b.test:443"],
    );
    rig.coffer(&["stop", "box"]).ok();
    rig.coffer(&["net", "deny", "box", "b.test:443"]).ok();
    rig.coffer(&["net", "allow", "box", "c.test"]).ok();
    rig.coffer(&["up", "box"]).ok();
    assert_eq!(
        (connect(&rig, "b.test"), connect(&rig, "c.test")),
        ("no such name".into(), "opened".into())
    );
}

#[test]
fn a_session_that_is_not_kept_or_not_there_cannot_be_changed() {
    let rig = Rig::new();
    rig.coffer(&["up", "builder"]).ok();
    rig.coffer(&["net", "allow", "biulder", "a.test"])
        .failed(125, &["biulder", "did you mean builder?"]);
    for how in [&[][..], &["--json"], &["-f"], &["--all"]] {
        rig.coffer(&[&["net", "biulder"], how].concat())
            .failed(125, &["biulder", "did you mean builder?"]);
    }
}

#[test]
fn a_session_may_be_called_as_a_command_is() {
    let rig = Rig::new();
    rig.coffer(&["up", "allow"]).ok();
    assert!(
        rig.coffer(&["net", "--", "allow"])
            .ok()
            .starts_with("session allow: running\n")
    );
    rig.coffer(&["net", "allow", "allow", "a.test"]).ok();
    rig.coffer(&["net", "allow"]).failed(2, &["NAME"]);
    assert!(Rig::new().coffer(&["net"]).stderr.contains("nothing is known"));
}

#[test]
fn a_rule_that_does_not_parse_is_told_with_the_character_and_what_was_meant() {
    let rig = Rig::new();
    rig.coffer(&["run", "--allow", "exa mple.com", "true"])
        .failed(2, &["--allow is not valid", "character 4", "hint: "]);
    rig.coffer(&["run", "--deny", "https://example.com/x", "true"])
        .failed(2, &["--deny is not valid", "did you mean example.com"]);
    rig.coffer(&["up", "--allow", "\u{1b}[2J", "box"])
        .failed(2, &["--allow", "\\u{1b}"]);
    rig.coffer(&["run", "--net-max-bytes", "much", "true"])
        .failed(2, &["--net-max-bytes", "such as 500M"]);
    rig.coffer(&["run", "--net-max-bytes", "-1", "true"])
        .failed(2, &["--net-max-bytes", "\"-1\""]);
    for connections in ["many", "-1"] {
        rig.coffer(&["run", "--net-max-connections", connections, "true"])
            .failed(2, &["--net-max-connections", connections]);
    }
    rig.coffer(&["run", "--publish", "99999:1", "--image", "nosuch", "true"])
        .failed(2, &["--publish", "\"99999\" is not a port"]);
    rig.coffer(&["up", "box"]).ok();
    rig.coffer(&["net", "allow", "box", "good.test", "*x.test"])
        .failed(2, &["allow is not valid", "character"]);
    assert_eq!(connect(&rig, "good.test"), "no such name");
    rig.coffer(&["rm", "-f", "box"]).ok();
    rig.assert_nothing_is_left();
}

#[test]
fn a_set_is_a_file_and_its_rules_come_and_go_together() {
    let rig = Rig::new();
    let sets = rig.path("config/cofferdam/sets");
    fs::create_dir_all(&sets).unwrap();
    fs::write(sets.join("work"), "# ours\na.test\n@more\n").unwrap();
    fs::write(sets.join("more"), "b.test:443\n").unwrap();
    rig.coffer(&["up", "box", "--allow", "@work"]).ok();
    assert_eq!(
        (connect(&rig, "a.test"), connect(&rig, "b.test")),
        ("opened".into(), "opened".into())
    );
    let shown = rig.coffer(&["net", "box"]).ok();
    assert!(shown.contains("allow b.test:443 (@work)"), "{shown}");
    rig.coffer(&["net", "forget", "box", "@work"]).ok();
    assert_eq!(connect(&rig, "a.test"), "no such name");
    fs::write(sets.join("more"), "b.test:\n").unwrap();
    rig.coffer(&["run", "--allow", "@work", "true"])
        .failed(2, &["sets/more:1: ", "character"]);
    rig.coffer(&["run", "--allow", "@wrok", "true"])
        .failed(2, &["@wrok", "@more, @npm, @pip, @work"]);
    rig.coffer(&["run", "--allow", "@../x", "true"])
        .failed(2, &["--allow", "name of a set"]);
}

#[test]
fn a_session_whose_network_cannot_be_guarded_does_not_start() {
    let rig = Rig::new();
    for (fault, words) in [
        ("die", &["network did not start", "exit code 3"][..]),
        ("fail", &["network did not start", "no \\u{1b}[31msockets"]),
    ] {
        fs::write(rig.path("egress.fault"), fault).unwrap();
        rig.coffer(&["run", "true"]).failed(125, words);
        rig.assert_nothing_is_left();
        rig.coffer(&["up", "box"]).failed(125, words);
        assert!(rig.processes().is_empty());
        rig.coffer(&["rm", "-f", "box"]).ok();
    }
    fs::remove_file(rig.path("bin/coffer-egress")).unwrap();
    rig.coffer(&["run", "true"]).failed(
        125,
        &["program not found", "coffer-egress", "must lie beside coffer"],
    );
    rig.assert_nothing_is_left();
    assert!(rig.names("state/cofferdam/net").is_empty());
}

#[test]
fn a_process_that_dies_again_and_again_is_started_slowly_and_the_session_lives() {
    let rig = Rig::new();
    rig.coffer(&["up", "box", "--allow", "a.test"]).ok();
    fs::write(rig.path("egress.fault"), "die").unwrap();
    signal(egress_pid(&rig).unwrap(), Signal::KILL);
    eventually("it is started slowly", || {
        rig.coffer(&["net", "box"]).ok().contains("5 times in a minute")
    });
    let starts = heard(&rig).len();
    assert_eq!(connect(&rig, "a.test"), "no network");
    rig.coffer(&["net", "allow", "box", "b.test"]).ok();
    rig.coffer(&["exec", "box", "true"]).ok();
    assert_eq!(heard(&rig).len(), starts);
    rig.coffer(&["stop", "box"]).ok();
    assert!(rig.processes().is_empty());
    assert_eq!(
        rig.json(&["inspect", "box", "--json"])["net"]["rules"],
        json!(["allow a.test", "allow b.test"])
    );
}

#[test]
fn after_a_command_that_failed_what_was_refused_is_told_once_and_not_too_much() {
    let rig = Rig::new();
    let said = rig.coffer(&["run", "fake-connect", "example.com", "443"]);
    assert_eq!(
        (said.code, said.stderr.as_str()),
        (
            Some(1),
            "coffer: network: example.com refused (no rule allows it); --allow example.com lets it\n"
        )
    );
    for silent in ["-q", "--json"] {
        let said = rig.coffer(&["run", silent, "fake-connect", "example.com", "443"]);
        assert!(!said.stderr.contains("network"), "{}", said.stderr);
    }
    let shown = rig.coffer(&["net"]).ok();
    assert!(
        shown.contains(": ended\n") && shown.contains("hint: coffer run --allow example.com"),
        "{shown}"
    );
    rig.assert_nothing_is_left();
}

#[test]
fn a_command_that_went_well_says_nothing_of_the_network() {
    let rig = Rig::new();
    let said = rig.coffer(&[
        "run",
        "--allow",
        "example.com",
        "fake-connect",
        "example.com",
        "443",
    ]);
    assert_eq!(said.ok(), "opened\n");
    let shown = rig.coffer(&["net"]).ok();
    assert!(
        shown.contains("example.com:443") && shown.contains("1000"),
        "{shown}"
    );
}

#[test]
fn what_happens_can_be_followed_to_the_end_of_the_session() {
    let rig = Rig::new();
    rig.coffer(&["up", "box", "--allow", "a.test", "--deny", "c.test"])
        .ok();
    let follow = |json: bool| {
        let mut arguments = vec!["net", "-f", "box"];
        arguments.extend(json.then_some("--json"));
        rig.command(&arguments)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    let (lines, raw) = (follow(false), follow(true));
    connect(&rig, "a.test");
    connect(&rig, "b.test");
    connect(&rig, "c.test");
    rig.coffer(&["stop", "box"]).ok();
    let text =
        |child: std::process::Child| String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let (lines, raw) = (text(lines), text(raw));
    for words in [
        "session box starts",
        "rules: allow a.test, deny c.test",
        "opened a.test:443 at 192.0.2.1 (a.test) by fake-connect",
        "closed a.test:443: done, 1000 sent, 1000 received",
        "refused b.test: no rule allows it",
        "refused c.test: a rule denies it (c.test)",
    ] {
        assert!(lines.contains(words), "{words:?} is not in {lines}");
    }
    assert!(!lines.contains('\u{1b}') && !raw.contains('\u{1b}'));
    let all: Vec<Value> = raw
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (&all[0]["version"], &all[0]["session"]),
        (&json!(2), &json!("box"))
    );
    let opened = all.iter().find(|line| line["what"] == "opened").unwrap();
    assert_eq!((&opened["by"]["pid"], &opened["link"]), (&json!(7), &json!(1)));
    assert_eq!(raw, rig.coffer(&["net", "box", "--json"]).ok());
}

#[test]
fn all_runs_of_a_session_can_be_shown_and_the_last_is_shown_without_asking() {
    let rig = Rig::new();
    for name in ["a.test", "b.test"] {
        rig.coffer(&["up", "box"]).ok();
        connect(&rig, name);
        rig.coffer(&["stop", "box"]).ok();
    }
    let last = rig.coffer(&["net", "box"]).ok();
    assert!(last.contains("b.test") && !last.contains("a.test"), "{last}");
    let all = rig.coffer(&["net", "box", "--all"]).ok();
    assert!(all.contains("b.test") && all.contains("a.test"), "{all}");
}

#[test]
fn records_are_for_the_user_alone_and_proxies_secrets_are_in_none_of_our_files() {
    use std::os::unix::fs::PermissionsExt;
    let rig = Rig::new();
    let proxy = "http://user:hunter2@proxy.test:3128";
    let up = |value: &str| {
        rig.command(&["up", "box"])
            .env("https_proxy", value)
            .output()
            .unwrap()
    };
    assert!(up(proxy).status.success());
    assert_eq!(heard(&rig)[0]["upstream"]["https"], proxy);
    assert!(
        !heard(&rig)[0]["resolver"]["nameservers"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    let net = rig.path("state/cofferdam/net");
    assert_eq!(fs::metadata(&net).unwrap().permissions().mode() & 0o777, 0o700);
    let mut looked_at = 0;
    let mut folders = vec![rig.path("state"), rig.path("run")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if entry.file_type().unwrap().is_file() && entry.metadata().unwrap().len() < 1 << 20 {
                if entry.path().starts_with(&net) || entry.file_name() == "egress.log" {
                    assert_eq!(
                        entry.metadata().unwrap().permissions().mode() & 0o777,
                        0o600,
                        "{entry:?}"
                    );
                }
                let text = fs::read(entry.path()).unwrap();
                assert!(!String::from_utf8_lossy(&text).contains("hunter2"), "{entry:?}");
                looked_at += 1;
            }
        }
    }
    assert!(looked_at > 3, "{looked_at}");
    for (pid, _) in rig.processes() {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(!String::from_utf8_lossy(&line).contains("hunter2"));
        if Some(pid) == egress_pid(&rig) {
            assert_eq!(fs::read(format!("/proc/{pid}/environ")).unwrap(), b"");
        }
    }
    rig.coffer(&["rm", "-f", "box"]).ok();
    let said = up("socks4://user:hunter2@proxy.test");
    let stderr = String::from_utf8(said.stderr).unwrap();
    assert!(
        stderr.contains("https_proxy cannot be used") && !stderr.contains("hunter2"),
        "{stderr}"
    );
    assert_eq!(said.status.code(), Some(2));
}

#[test]
fn a_disk_that_takes_no_records_does_not_end_the_session() {
    let rig = Rig::new();
    fs::create_dir_all(rig.path("state/cofferdam")).unwrap();
    fs::write(rig.path("state/cofferdam/net"), "in the way").unwrap();
    let said = rig.coffer(&["run", "--allow", "a.test", "fake-connect", "a.test", "443"]);
    assert_eq!((said.code, said.stdout.as_slice()), (Some(0), &b"opened\n"[..]));
    assert_eq!(
        said.stderr.matches("records cannot be written").count(),
        1,
        "{}",
        said.stderr
    );
    rig.coffer(&["up", "box"]).ok();
    fs::remove_file(rig.path("state/cofferdam/net")).unwrap();
    connect(&rig, "b.test");
    rig.coffer(&["stop", "box"]).ok();
    let shown = rig.coffer(&["net", "box"]).ok();
    assert!(
        shown.contains("1 records could not be written") && shown.contains("b.test"),
        "{shown}"
    );
}

#[test]
fn a_link_that_the_machine_does_not_take_is_an_error_that_says_so() {
    let rig = Rig::new();
    rig.make_image("no-net", b"no network card");
    rig.coffer(&["run", "--image", "no-net", "true"])
        .failed(125, &["the machine refused its network"]);
    rig.assert_nothing_is_left();
}
