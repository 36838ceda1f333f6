//! Becoming a session, staying one under load, under a hostile host, and going down.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    fs, thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use agent_protocol::{
    Channel, FailureKind, GuestMessage, Header, HostMessage, MAX_MESSAGE_TO_GUEST, Request, Setup, Status,
    StreamId, encode_frame,
};
use guest_agent::Cgroups;
use support::{
    Host, children_of_this_process, exec, is_alive, open_descriptors, setup, wait_until, writable_cgroup,
};

#[test]
fn a_welcome_sets_clock_name_and_home_before_ready() {
    let host = Host::start();
    let done = host.machine.0.lock().unwrap().clone();
    assert_eq!(done, ["clock 1800000000000000000", "hostname calm-otter"]);
    assert!(host.home().join("mnt").is_dir());
    let hosts = fs::read_to_string(host.root.path().join("etc/hosts")).unwrap();
    assert!(hosts.contains("127.0.1.1\tcalm-otter"));
}

#[test]
fn a_session_name_that_leads_elsewhere_is_refused_and_the_machine_ends() {
    let host = Host::unwelcoming(None);
    host.tell(&HostMessage::Welcome(Setup {
        session: "../escape".into(),
        ..setup()
    }));
    assert!(matches!(host.hear(), GuestMessage::SetupFailed { what } if what.contains("escape")));
    host.stopped
        .lock()
        .unwrap()
        .recv_timeout(support::PATIENCE)
        .unwrap();
}

#[test]
fn the_clock_is_stepped_only_when_it_is_off() {
    let host = Host::start();
    host.machine.0.lock().unwrap().clear();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let clock = |time: Duration| HostMessage::Clock {
        unix_ns: u64::try_from(time.as_nanos()).unwrap(),
    };
    host.tell(&clock(now));
    host.tell(&clock(now + Duration::from_secs(3600)));
    host.tell(&HostMessage::Ping { nonce: 42 });
    assert_eq!(host.hear(), GuestMessage::Pong { nonce: 42 });
    let off = (now + Duration::from_secs(3600)).as_nanos();
    assert_eq!(*host.machine.0.lock().unwrap(), [format!("clock {off}")]);
}

#[test]
fn a_shutdown_is_announced_and_then_done() {
    let host = Host::start();
    host.tell(&HostMessage::Shutdown { grace_ms: 1500 });
    assert_eq!(host.hear(), GuestMessage::ShuttingDown);
    host.stopped
        .lock()
        .unwrap()
        .recv_timeout(support::PATIENCE)
        .unwrap();
    assert_eq!(host.machine.0.lock().unwrap().last().unwrap(), "stop 1500");
}

#[test]
fn two_thousand_commands_in_a_row_leave_nothing_behind() {
    let host = Host::start();
    for _ in 0..10 {
        host.run(&["true"]);
    }
    let (descriptors, running) = (open_descriptors(), threads());
    for _ in 0..2000 {
        assert_eq!(host.run(&["true"]).status(), Status::Code(0));
    }
    wait_until("descriptors, children and threads are gone", || {
        open_descriptors() <= descriptors && children_of_this_process().is_empty() && threads() <= running
    });
}

#[test]
fn two_hundred_commands_at_once_each_get_their_own_answer() {
    let host = Host::start();
    let ids: Vec<StreamId> = (0..200)
        .map(|i| {
            host.start_only(Request::Exec(exec(&[
                "sh",
                "-c",
                &format!("sleep 1; echo {i}; exit {}", i % 100),
            ])))
        })
        .collect();
    for (i, id) in ids.into_iter().enumerate() {
        let outcome = host.stream(id).outcome();
        assert_eq!(outcome.text(), format!("{i}\n"));
        assert_eq!(outcome.status(), Status::Code(i32::try_from(i % 100).unwrap()));
    }
    wait_until("children are gone", || children_of_this_process().is_empty());
}

#[test]
fn the_same_number_twice_is_refused_while_the_first_runs() {
    let host = Host::start();
    let mut stream = host.begin(Request::Exec(exec(&["sleep", "1000"])));
    let pid = stream.await_started();
    let id = stream.id;
    host.tell(&HostMessage::Start {
        id,
        request: Request::Exec(exec(&["true"])),
    });
    assert_eq!(
        host.stream(id).outcome().failure.unwrap().kind,
        FailureKind::Invalid
    );
    assert!(is_alive(pid));
}

#[test]
fn a_host_that_talks_garbage_loses_its_connection_and_the_agent_lives() {
    let host = Host::start();
    let too_long = u32::try_from(MAX_MESSAGE_TO_GUEST + 1).unwrap().to_le_bytes();
    let unknown_message = [
        9, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    ];
    let attacks: [&[u8]; 5] = [
        &[0xff; 4096],
        &[too_long[0], too_long[1], too_long[2], too_long[3], 0],
        &unknown_message,
        &encode_frame(Channel::Stdin, b"not here"),
        &Header::data(Channel::Message, 0),
    ];
    for attack in attacks {
        host.tell_raw(attack);
        host.await_redial();
        host.welcome();
        assert_eq!(host.run(&["true"]).status(), Status::Code(0));
    }
}

#[test]
fn a_message_before_the_welcome_or_a_second_welcome_is_no_session() {
    let host = Host::unwelcoming(None);
    host.tell(&HostMessage::Ping { nonce: 1 });
    host.await_redial();
    host.welcome();
    host.tell(&HostMessage::Welcome(Setup {
        session: "other".into(),
        ..setup()
    }));
    host.await_redial();
}

#[test]
fn garbage_on_a_stream_ends_that_command_only() {
    let host = Host::start();
    for attack in [
        &[0xff; 100][..],
        &encode_frame(Channel::Stdout, b"x"),
        &[0xff, 0xff, 0xff, 0x7f, 1],
    ] {
        let mut request = exec(&["sleep", "1000"]);
        request.stdin = true;
        let mut stream = host.begin(Request::Exec(request));
        let pid = stream.await_started();
        stream.writer().raw(attack).unwrap();
        wait_until("the command is gone", || !is_alive(pid));
        assert!(stream.next().is_none());
    }
    assert_eq!(host.run(&["true"]).status(), Status::Code(0));
}

#[test]
fn signals_for_nobody_and_of_no_number_change_nothing() {
    let host = Host::start();
    let mut stream = host.begin(Request::Exec(exec(&["sh", "-c", "sleep 0.3; echo alive"])));
    stream.await_started();
    for signal in [0, -1, 65, i32::MAX, i32::MIN] {
        host.tell(&HostMessage::Signal {
            id: stream.id,
            signal,
        });
        host.tell(&HostMessage::Signal {
            id: StreamId(999_999),
            signal,
        });
    }
    assert_eq!(stream.outcome().text(), "alive\n");
}

#[test]
fn a_control_group_is_reused_and_kills_what_left_its_process_group() {
    let Some(parent) = writable_cgroup() else {
        return skipped::because("no version 2 control groups to write to");
    };
    let host = Host::with(Some(Cgroups::open(&parent).unwrap()));
    let base = parent.join("coffer");
    for _ in 0..100 {
        host.run(&["true"]);
    }
    assert!(
        leaves(&base) <= 2,
        "{} groups after a hundred commands",
        leaves(&base)
    );

    for leaf in fs::read_dir(&base)
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().is_dir())
    {
        fs::remove_dir(leaf.path()).unwrap();
    }
    assert_eq!(host.run(&["true"]).status(), Status::Code(0), "without its group");

    let script = "setsid sleep 1000 & echo $!; trap '' TERM; while :; do sleep 0.1; done";
    let mut request = exec(&["sh", "-c", script]);
    request.timeout_ms = Some(200);
    let outcome = host.run_exec(request);
    assert_eq!(outcome.status(), Status::Signal(9));
    let escaped = outcome.text().trim().parse().unwrap();
    wait_until("what left the process group is gone too", || !is_alive(escaped));

    let daemon: u32 = host
        .run(&["sh", "-c", "setsid sleep 1 & echo $!"])
        .text()
        .trim()
        .parse()
        .unwrap();
    let group = fs::read_to_string(format!("/proc/{daemon}/cgroup")).unwrap();
    assert!(group.contains("/coffer/"), "{group}");
    wait_until("the daemon is gone", || !is_alive(daemon));
    wait_until("and its group", || {
        host.run(&["true"]);
        leaves(&base) <= 3
    });
    thread::sleep(Duration::from_millis(50));
    for leaf in fs::read_dir(&base)
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().is_dir())
    {
        fs::remove_dir(leaf.path()).unwrap();
    }
    fs::remove_dir(base).unwrap();
    fs::remove_dir(parent).unwrap();
}

fn leaves(base: &std::path::Path) -> usize {
    fs::read_dir(base)
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .count()
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}
