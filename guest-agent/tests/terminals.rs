//! Commands at a terminal.

mod support;

use std::time::Duration;

use agent_protocol::{Exec, HostMessage, Request, Status, TerminalSize};
use support::{Host, HostStream, exec, is_alive, wait_until};

const SIZE: TerminalSize = TerminalSize {
    rows: 33,
    columns: 111,
};

fn at_terminal(argv: &[&str]) -> Exec {
    Exec {
        terminal: Some(SIZE),
        stdin: true,
        ..exec(argv)
    }
}

fn begin(host: &Host, argv: &[&str]) -> HostStream {
    host.begin(Request::Exec(at_terminal(argv)))
}

#[test]
fn a_terminal_has_its_size_its_name_and_its_type_before_the_command_starts() {
    let host = Host::start();
    let outcome = host.run_exec(at_terminal(&[
        "sh",
        "-c",
        "stty size; echo $TERM; test -t 0 -a -t 1 -a -t 2 && tty",
    ]));
    assert_eq!(outcome.status(), Status::Code(0));
    let text = outcome.text();
    assert!(
        text.starts_with("33 111\r\nxterm-256color\r\n/dev/pts/"),
        "{text:?}"
    );
    assert!(outcome.stderr.is_empty());
}

#[test]
fn the_user_of_a_command_may_open_its_terminal_again() {
    let host = Host::start();
    let outcome = host.run_exec(at_terminal(&[
        "sh",
        "-c",
        "echo again > $(tty); echo third > /dev/tty",
    ]));
    assert_eq!(outcome.text(), "again\r\nthird\r\n");
}

#[test]
fn a_resize_is_seen_and_signalled() {
    let host = Host::start();
    let script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.02; done";
    let mut stream = begin(&host, &["sh", "-c", script]);
    stream.read_until("ready");
    host.tell(&HostMessage::Resize {
        id: stream.id,
        size: TerminalSize {
            rows: 50,
            columns: 200,
        },
    });
    stream.read_until("50 200");
    assert_eq!(stream.outcome().status(), Status::Code(0));
}

#[test]
fn control_c_interrupts_the_foreground_and_a_signal_from_the_host_too() {
    let host = Host::start();
    let mut stream = begin(&host, &["sh", "-c", "echo ready; exec sleep 1000"]);
    stream.read_until("ready");
    stream.writer().stdin(b"\x03").unwrap();
    assert_eq!(stream.outcome().status(), Status::Signal(2));

    // A shell with job control puts its jobs into groups of their own.
    let mut stream = begin(
        &host,
        &[
            "bash",
            "--norc",
            "-i",
            "-c",
            "set -m; sh -c 'echo ready; exec sleep 1000'; echo code $?",
        ],
    );
    stream.read_until("ready");
    std::thread::sleep(Duration::from_millis(100));
    host.tell(&HostMessage::Signal {
        id: stream.id,
        signal: 9,
    });
    wait_until("its jobs are gone", || true);
    assert_eq!(stream.outcome().status(), Status::Signal(9));
}

#[test]
fn the_end_of_input_is_typed_also_behind_a_line_begun() {
    let host = Host::start();
    for input in [&b""[..], b"line\n", b"line\nbegun"] {
        let stream = begin(&host, &["sh", "-c", "stty -echo; cat | od -An -c | tr -d ' \\n'"]);
        let mut writer = stream.writer();
        std::thread::sleep(Duration::from_millis(200));
        writer.stdin(input).unwrap();
        writer.end().unwrap();
        let outcome = stream.outcome();
        assert_eq!(outcome.status(), Status::Code(0));
        let wanted = String::from_utf8_lossy(input).replace('\n', "\\n");
        assert_eq!(outcome.text(), wanted);
    }
}

#[test]
fn a_megabyte_at_a_terminal_comes_whole() {
    let host = Host::start();
    let outcome = host.run_exec(at_terminal(&[
        "sh",
        "-c",
        "stty -onlcr; head -c 1000000 /dev/zero | tr '\\0' x; echo end",
    ]));
    assert_eq!(outcome.stdout.len(), 1_000_004);
    assert!(outcome.stdout.ends_with(b"xend\n"));
}

#[test]
fn a_terminal_the_host_closes_hangs_its_session_up() {
    let host = Host::start();
    let mut stream = begin(&host, &["sh", "-c", "echo ready; sleep 1000"]);
    let pid = stream.await_started();
    stream.read_until("ready");
    drop(stream);
    wait_until("the session is gone", || !is_alive(pid));
}

#[test]
fn a_daemon_at_a_terminal_does_not_hang_the_command() {
    let host = Host::start();
    let outcome = host.run_exec(at_terminal(&["sh", "-c", "trap '' HUP; sleep 3 & echo left"]));
    assert_eq!(
        (outcome.status(), outcome.text().as_str()),
        (Status::Code(0), "left\r\n")
    );
}
