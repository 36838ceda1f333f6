use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    },
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
    process::Signal,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};

use crate::{Run, run::Process};

const DEADLINE: Duration = Duration::from_secs(60);

/// A terminal with a command line running at it.
#[derive(Debug)]
pub struct Terminal {
    ours: File,
    /// Held open, so that what the command left the terminal like can be seen when it is gone.
    theirs: File,
    process: Process,
    seen: Vec<u8>,
}

impl Terminal {
    /// Starts `run` as a login would: the terminal controls it.
    pub fn start(run: Run, rows: u16, columns: u16) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let path = ptsname(&ours, Vec::new()).unwrap();
        let theirs = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::NOCTTY.bits().try_into().unwrap())
            .open(std::ffi::OsStr::from_bytes(path.as_bytes()))
            .unwrap();
        let end = || Stdio::from(OwnedFd::from(theirs.try_clone().unwrap()));
        resize(&ours, rows, columns);
        let mut command = run.under(["setsid", "--ctty"]).command();
        let child = command
            .env("TERM", "dumb")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        Terminal {
            ours: ours.into(),
            theirs,
            process: Process::of(child),
            seen: Vec::new(),
        }
    }

    pub fn keys(&mut self, text: &str) {
        self.ours.write_all(text.as_bytes()).unwrap();
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        resize(&self.ours, rows, columns);
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until `text` is on the screen, and forgets what came up to its end.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let screen = String::from_utf8_lossy(&self.seen).into_owned();
            if let Some(at) = screen.find(text) {
                self.seen = screen[at + text.len()..].into();
                return;
            }
            assert!(self.read(deadline), "{text:?} never came: {screen:?}");
        }
    }

    fn read(&mut self, deadline: Instant) -> bool {
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).unwrap();
        if poll(&mut [PollFd::new(&self.ours, PollFlags::IN)], Some(&left)).unwrap_or(0) == 0 {
            return false;
        }
        let mut chunk = [0; 4096];
        let read = self.ours.read(&mut chunk).unwrap_or(0);
        self.seen.extend_from_slice(&chunk[..read]);
        read > 0
    }

    /// Whether the command has taken line editing and echo away from the terminal.
    pub fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.theirs).unwrap().local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    #[track_caller]
    pub fn end(mut self) -> (i32, bool) {
        let code = self.process.code(Instant::now() + DEADLINE);
        let code =
            code.unwrap_or_else(|| panic!("not ended in time: {:?}", String::from_utf8_lossy(&self.seen)));
        (code, self.is_raw())
    }
}

fn resize(terminal: impl AsFd, rows: u16, columns: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).unwrap();
}
