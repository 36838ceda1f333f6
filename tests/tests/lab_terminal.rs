//! `coffer exec -it` and `coffer shell`: a terminal here is a terminal there, and ours again afterwards.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

use rustix::process::{Pid, Signal, kill_process};
use tests::{Host, Session, Terminal, cases};

#[test]
fn a_command_at_a_terminal() {
    let session = Host::new().up("tty", &["--image", "small"]);
    cases!(session;
        it_has_a_terminal_of_the_size_of_ours,
        keys_are_for_the_command,
        a_shell_works_and_gives_the_terminal_back,
        the_terminal_is_given_back_when_we_are_told_to_end,
        the_terminal_is_given_back_when_the_machine_goes,
    );
}

fn at_terminal(session: &Session, line: &str) -> Terminal {
    Terminal::start(session.exec(&["-it"], ["bash", "-c", line]), 33, 111)
}

fn it_has_a_terminal_of_the_size_of_ours(session: &Session) {
    let mut terminal = at_terminal(
        session,
        "trap 'stty size; exit' WINCH; tty; stty size; sleep 1000 & wait",
    );
    terminal.expect("/dev/pts/");
    terminal.expect("33 111");
    assert!(terminal.is_raw());
    terminal.resize(44, 122);
    terminal.expect("44 122");
    assert_eq!(terminal.end(), (0, false));
    session
        .exec(&["-t"], ["true"])
        .end()
        .complains(2, "terminal", "-t");
}

fn keys_are_for_the_command(session: &Session) {
    let mut terminal = at_terminal(
        session,
        "trap 'echo caught; exit 5' INT; read line; echo \"<$line>\"; read line",
    );
    terminal.keys("typed\r");
    terminal.expect("<typed>");
    terminal.keys("\x03");
    terminal.expect("caught");
    assert_eq!(terminal.end(), (5, false));
}

fn a_shell_works_and_gives_the_terminal_back(session: &Session) {
    let mut terminal = Terminal::start(session.host().coffer(["shell", session.name()]), 24, 80);
    terminal.keys("sleep 1000\r");
    terminal.keys("\x03");
    terminal.keys("echo $((6 * 7)) $PWD; sleep 1000 & jobs -p >/dev/null; exit 9\r");
    terminal.expect("42 /sessions/tty");
    assert_eq!(terminal.end(), (9, false));
}

fn the_terminal_is_given_back_when_we_are_told_to_end(session: &Session) {
    for signal in [Signal::HUP, Signal::TERM] {
        let mut terminal = at_terminal(session, "echo ready; exec sleep 1000");
        terminal.expect("ready");
        terminal.signal(signal);
        assert_eq!(terminal.end(), (128 + signal.as_raw(), false));
    }
}

fn the_terminal_is_given_back_when_the_machine_goes(session: &Session) {
    let mut terminal = at_terminal(session, "echo ready; exec sleep 1000");
    terminal.expect("ready");
    let machine = Pid::from_raw(session.number("machine_pid").try_into().unwrap()).unwrap();
    kill_process(machine, Signal::KILL).unwrap();
    assert_eq!(terminal.end(), (125, false));
}
