//! Commands, run by a real agent for a host of our own.

mod support;

use std::{
    thread,
    time::{Duration, Instant},
};

use agent_protocol::{FailureKind, HostMessage, Reply, Request, Status};
use support::{Frame, Host, exec, is_alive, wait_until, write_script};

#[test]
fn the_exit_code_and_both_outputs_come_back_apart() {
    let host = Host::start();
    let outcome = host.run(&["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(outcome.status(), Status::Code(7));
    assert_eq!(
        (&outcome.stdout[..], &outcome.stderr[..]),
        (&b"out\n"[..], &b"err\n"[..])
    );
    let exit = outcome.exit.unwrap();
    assert!(!exit.timed_out && !exit.out_of_memory);
    assert!(
        exit.usage.wall_us > 0 && exit.usage.max_rss_kib > 0,
        "{:?}",
        exit.usage
    );
}

#[test]
fn a_command_that_kills_itself_ends_by_a_signal() {
    let host = Host::start();
    assert_eq!(
        host.run(&["sh", "-c", "kill -SEGV $$"]).status(),
        Status::Signal(11)
    );
}

#[test]
fn arguments_and_variables_arrive_byte_for_byte() {
    let host = Host::start();
    let mut request = exec(&["sh", "-c", "printf '%s|' \"$@\" \"$ODD\" \"$FROM_SESSION\"", "sh"]);
    request
        .argv
        .extend([b"".to_vec(), b"a b\n".to_vec(), b"\xff'\"$".to_vec()]);
    request.env.push((b"ODD".to_vec(), b"\x01=\xfe".to_vec()));
    assert_eq!(host.run_exec(request).stdout, b"|a b\n|\xff'\"$|\x01=\xfe|yes|");
}

#[test]
fn a_command_starts_at_home_as_the_agent_user_with_nothing_of_ours() {
    let host = Host::start();
    let script = "pwd; echo $HOME; cat /proc/$$/oom_score_adj; id -u; ulimit -n; umask";
    let text = host.run(&["sh", "-c", script]).text();
    let lines: Vec<&str> = text.lines().collect();
    let home = host.home().display().to_string();
    assert_eq!(lines[..2], [&home, &home]);
    if rustix::process::geteuid().is_root() {
        assert_eq!(lines[2..4], ["0", "1000"]);
    }
    assert_eq!(lines[4..], ["1024", "0022"]);
    assert_eq!(host.run(&["ls", "/proc/self/fd"]).stdout, b"0\n1\n2\n3\n");
}

#[test]
fn no_signal_is_blocked_and_a_broken_pipe_kills() {
    let host = Host::start();
    let blocked = host.run(&["grep", "SigBlk", "/proc/self/status"]).text();
    assert_eq!(blocked, "SigBlk:\t0000000000000000\n");
    let outcome = host.run(&["bash", "-c", "yes | head -n 1 >/dev/null; echo ${PIPESTATUS[0]}"]);
    assert_eq!(outcome.stdout, b"141\n");
}

#[test]
fn a_missing_command_is_not_found_and_a_plain_file_not_executable() {
    let host = Host::start();
    let home = host.home();
    write_script(&home.join("plain"), "#!/bin/sh\n", 0o644);
    write_script(&home.join("garbage"), "neither this nor that", 0o755);
    write_script(&home.join("orphan"), "#!/no/such/interpreter\n", 0o755);
    let refused = |argv: &[&str]| {
        let failure = host.run(argv).failure.unwrap();
        (failure.kind, failure.message)
    };
    assert_eq!(
        refused(&["no-such-command"]),
        (
            FailureKind::NotFound,
            "no command 'no-such-command' in the search path".into()
        )
    );
    assert_eq!(refused(&["./orphan"]).0, FailureKind::NotFound);
    assert_eq!(
        refused(&["./plain"]),
        (
            FailureKind::NotPermitted,
            "cannot execute './plain': Permission denied".into()
        )
    );
    assert_eq!(refused(&["./garbage"]).0, FailureKind::NotPermitted);
    assert_eq!(refused(&["/"]).0, FailureKind::NotPermitted);
    assert_eq!(refused(&[""]).0, FailureKind::Invalid);
    assert_eq!(host.run(&["true"]).status(), Status::Code(0));
}

#[test]
fn the_search_path_is_the_one_of_the_command() {
    let host = Host::start();
    write_script(&host.home().join("mine"), "#!/bin/sh\necho found\n", 0o755);
    let mut request = exec(&["mine"]);
    request
        .env
        .push((b"PATH".to_vec(), b"/nonexistent:/etc/passwd:.:/bin".to_vec()));
    assert_eq!(host.run_exec(request).stdout, b"found\n");
}

#[test]
fn a_working_directory_that_is_none_is_refused_by_name() {
    let host = Host::start();
    let mut request = exec(&["true"]);
    request.cwd = Some(b"nowhere".to_vec());
    let failure = host.run_exec(request).failure.unwrap();
    assert_eq!(failure.kind, FailureKind::Invalid);
    assert!(
        failure.message.starts_with("cannot use working directory '"),
        "{}",
        failure.message
    );
    assert!(
        failure.message.ends_with("nowhere': No such file or directory"),
        "{}",
        failure.message
    );
    let mut request = exec(&["pwd"]);
    request.cwd = Some(b"/usr".to_vec());
    assert_eq!(host.run_exec(request).stdout, b"/usr\n");
}

#[test]
fn a_user_is_taken_by_name_and_by_number() {
    let host = Host::start();
    let mut request = exec(&["id", "-u"]);
    request.user = Some("mallory".into());
    assert_eq!(
        host.run_exec(request.clone()).failure.unwrap().kind,
        FailureKind::Invalid
    );
    if !rustix::process::geteuid().is_root() {
        return skipped::because("the rest: becoming somebody takes root");
    }
    request.user = Some("4711".into());
    assert_eq!(host.run_exec(request.clone()).stdout, b"4711\n");
    request.user = Some("root".into());
    assert_eq!(host.run_exec(request).stdout, b"0\n");
}

#[test]
fn without_standard_input_there_is_nothing_to_read() {
    let host = Host::start();
    assert_eq!(host.run(&["wc", "-c"]).text().trim(), "0");
}

#[test]
fn ten_megabytes_through_a_command_come_back_exact() {
    let host = Host::start();
    let mut request = exec(&["cat"]);
    request.stdin = true;
    let stream = host.begin(Request::Exec(request));
    let data: Vec<u8> = (0..10_000_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let mut writer = stream.writer();
    let sent = data.clone();
    let writing = thread::spawn(move || writer.stdin(&sent).and_then(|()| writer.end()));
    let outcome = stream.outcome();
    writing.join().unwrap().unwrap();
    assert_eq!(outcome.status(), Status::Code(0));
    assert!(outcome.stdout == data, "{} bytes came back", outcome.stdout.len());
}

#[test]
fn fifty_megabytes_of_output_arrive_to_the_byte() {
    let host = Host::start();
    let outcome = host.run(&["head", "-c", "50000000", "/dev/zero"]);
    assert_eq!(
        (outcome.status(), outcome.stdout.len()),
        (Status::Code(0), 50_000_000)
    );
}

#[test]
fn a_command_that_closes_its_input_early_still_ends_well() {
    let host = Host::start();
    let mut request = exec(&["head", "-c", "3"]);
    request.stdin = true;
    let stream = host.begin(Request::Exec(request));
    let mut writer = stream.writer();
    let writing = thread::spawn(move || while writer.stdin(&[b'x'; 60_000]).is_ok() {});
    let outcome = stream.outcome();
    assert_eq!(
        (outcome.status(), &outcome.stdout[..]),
        (Status::Code(0), &b"xxx"[..])
    );
    writing.join().unwrap();
}

#[test]
fn a_command_that_never_reads_can_still_be_signalled() {
    let host = Host::start();
    let mut request = exec(&["sleep", "1000"]);
    request.stdin = true;
    let mut stream = host.begin(Request::Exec(request));
    stream.await_started();
    let mut writer = stream.writer();
    thread::spawn(move || while writer.stdin(&[b'x'; 60_000]).is_ok() {});
    host.tell(&HostMessage::Signal {
        id: stream.id,
        signal: 15,
    });
    assert_eq!(stream.outcome().status(), Status::Signal(15));
}

#[test]
fn a_signal_reaches_the_whole_process_group_even_right_behind_the_start() {
    let host = Host::start();
    for _ in 0..20 {
        let id = host.start_only(Request::Exec(exec(&["sh", "-c", "sleep 1000; echo no"])));
        host.tell(&HostMessage::Signal { id, signal: 15 });
        let outcome = host.stream(id).outcome();
        assert_eq!(
            (outcome.status(), &outcome.stdout[..]),
            (Status::Signal(15), &b""[..])
        );
    }
}

#[test]
fn a_timeout_asks_and_a_command_that_listens_ends_in_its_own_way() {
    let host = Host::start();
    let mut request = exec(&[
        "sh",
        "-c",
        "trap 'echo bye; exit 3' TERM; while :; do sleep 0.05; done",
    ]);
    request.timeout_ms = Some(300);
    let outcome = host.run_exec(request);
    assert_eq!(
        (outcome.status(), &outcome.stdout[..]),
        (Status::Code(3), &b"bye\n"[..])
    );
    assert!(outcome.exit.unwrap().timed_out);
}

#[test]
fn a_timeout_kills_a_command_that_does_not_listen_with_all_it_started() {
    let host = Host::start();
    let started = Instant::now();
    let mut request = exec(&[
        "sh",
        "-c",
        "trap '' TERM; (sleep 1000 & echo $!); while :; do sleep 1000; done",
    ]);
    request.timeout_ms = Some(200);
    let outcome = host.run_exec(request);
    assert_eq!(outcome.status(), Status::Signal(9));
    assert!(outcome.exit.as_ref().unwrap().timed_out);
    assert!(started.elapsed() > Duration::from_secs(2) && started.elapsed() < Duration::from_secs(10));
    let grandchild = outcome.text().trim().parse().unwrap();
    wait_until("the grandchild is gone", || !is_alive(grandchild));
}

#[test]
fn a_timeout_is_kept_while_the_host_reads_nothing() {
    let host = Host::start();
    let mut request = exec(&["cat", "/dev/zero"]);
    request.timeout_ms = Some(200);
    let mut stream = host.begin(Request::Exec(request));
    let pid = stream.await_started();
    wait_until("the command is gone", || !is_alive(pid));
    let outcome = stream.outcome();
    assert_eq!(outcome.status(), Status::Signal(15));
    assert!(outcome.exit.unwrap().timed_out && outcome.stdout.len() > 60_000);
}

#[test]
fn a_command_that_leaves_a_daemon_behind_returns_at_once() {
    let host = Host::start();
    let started = Instant::now();
    let outcome = host.run(&["sh", "-c", "setsid sleep 30 & echo $!"]);
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(outcome.status(), Status::Code(0));
    let daemon: u32 = outcome.text().trim().parse().unwrap();
    assert!(is_alive(daemon));
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(daemon.cast_signed()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
}

#[test]
fn a_daemon_that_goes_on_writing_does_not_keep_the_end_from_being_told() {
    let host = Host::start();
    let outcome = host.run(&["sh", "-c", "echo first; yes & echo $! >&2"]);
    assert_eq!(outcome.status(), Status::Code(0));
    assert!(outcome.stdout.starts_with(b"first\n"));
    // Its pipe is closed now, and so it ends.
    let daemon = String::from_utf8(outcome.stderr).unwrap().trim().parse().unwrap();
    wait_until("the writer is gone", || !is_alive(daemon));
}

#[test]
fn a_stream_the_host_closes_takes_its_command_along() {
    let host = Host::start();
    let mut stream = host.begin(Request::Exec(exec(&["sh", "-c", "sleep 1000 & echo $!; wait"])));
    let shell = stream.await_started();
    let Some(Frame::Stdout(text)) = stream.next() else {
        panic!("no output");
    };
    let sleeper = String::from_utf8(text).unwrap().trim().parse().unwrap();
    drop(stream);
    wait_until("the group is gone", || !is_alive(shell) && !is_alive(sleeper));
}

#[test]
fn a_stream_closed_under_a_command_that_ignores_it_kills_it_after_the_grace() {
    let host = Host::start();
    let mut request = exec(&[
        "sh",
        "-c",
        "trap '' HUP TERM; echo ready; while :; do sleep 0.1; done",
    ]);
    request.stdin = true;
    let mut stream = host.begin(Request::Exec(request));
    let pid = stream.await_started();
    stream.read_until("ready");
    drop(stream);
    wait_until("the command is gone", || !is_alive(pid));
}

#[test]
fn losing_the_control_connection_ends_no_command() {
    let host = Host::start();
    let mut request = exec(&["cat"]);
    request.stdin = true;
    let mut stream = host.begin(Request::Exec(request));
    stream.await_started();
    host.hang_up();
    host.await_redial();
    host.welcome();
    stream.writer().stdin(b"still here").unwrap();
    stream.read_until("still here");
    stream.writer().end().unwrap();
    assert_eq!(stream.outcome().status(), Status::Code(0));
    assert_eq!(host.run(&["true"]).status(), Status::Code(0));
}

#[test]
fn the_first_word_of_a_command_is_that_it_runs() {
    let host = Host::start();
    let outcome = host.run(&["true"]);
    assert!(matches!(outcome.replies[..], [Reply::Started { pid }] if pid > 1));
}
