//! `-t`, on a terminal of the test's own.

use std::{
    fs::File,
    io::Read,
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command},
};

use rustix::{
    process::Signal,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};

use crate::rig::{Rig, eventually, signal};

struct Terminal {
    ours: File,
    theirs: OwnedFd,
}

impl Terminal {
    fn new() -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let theirs = File::options()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap()
            .into();
        tcsetwinsize(
            &ours,
            Winsize {
                ws_row: 33,
                ws_col: 111,
                ws_xpixel: 0,
                ws_ypixel: 0,
            },
        )
        .unwrap();
        Terminal {
            ours: ours.into(),
            theirs,
        }
    }

    fn start(&self, mut command: Command) -> Child {
        let theirs = || self.theirs.try_clone().unwrap();
        command
            .stdin(theirs())
            .stdout(theirs())
            .stderr(theirs())
            .spawn()
            .unwrap()
    }

    /// Raw is without echo, among other things.
    fn is_raw(&self) -> bool {
        !tcgetattr(self.theirs.as_fd())
            .unwrap()
            .local_modes
            .contains(LocalModes::ECHO)
    }

    fn read_until(&mut self, word: &str) -> String {
        let (mut text, mut byte) = (String::new(), [0]);
        while !text.contains(word) {
            self.ours.read_exact(&mut byte).unwrap();
            text.push(char::from(byte[0]));
        }
        text
    }
}

#[test]
fn the_guest_has_our_terminals_size_and_we_have_our_terminal_back_afterwards() {
    let rig = Rig::new();
    let mut terminal = Terminal::new();
    assert!(!terminal.is_raw());
    let mut child = terminal.start(rig.command(&[
        "run",
        "-it",
        "--",
        "sh",
        "-c",
        "echo $LINES x $COLUMNS; read x; echo $x",
    ]));
    terminal.read_until("33 x 111");
    assert!(terminal.is_raw());
    std::io::Write::write_all(&mut terminal.ours, b"typed\n").unwrap();
    terminal.read_until("typed");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!terminal.is_raw());
}

#[test]
fn the_terminal_comes_back_when_we_are_told_to_end() {
    let rig = Rig::new();
    let mut terminal = Terminal::new();
    let script = "trap '' TERM; echo started; while :; do sleep 0.05; done";
    let mut child = terminal.start(rig.command(&["run", "-it", "--", "sh", "-c", script]));
    terminal.read_until("started");
    assert!(terminal.is_raw());
    signal(child.id(), Signal::TERM);
    signal(child.id(), Signal::TERM);
    let mut signalled = 0;
    eventually("it ends at the second SIGTERM", || {
        signalled += 1;
        // Two of the same signal may arrive as one.
        if signalled % 20 == 0 && child.try_wait().unwrap().is_none() {
            signal(child.id(), Signal::TERM);
        }
        child.try_wait().unwrap().is_some()
    });
    assert!(!terminal.is_raw());
    rig.assert_nothing_is_left();
}

#[test]
fn the_terminal_comes_back_when_the_machine_dies() {
    let rig = Rig::new();
    let mut terminal = Terminal::new();
    let mut child =
        terminal.start(rig.command(&["run", "-it", "--", "sh", "-c", "echo started; exec sleep 60"]));
    terminal.read_until("started");
    let (machine, _) = rig
        .processes()
        .into_iter()
        .find(|(_, name)| name == "coffer-vmm")
        .unwrap();
    signal(machine, Signal::KILL);
    assert_eq!(child.wait().unwrap().code(), Some(125));
    assert!(!terminal.is_raw());
}
