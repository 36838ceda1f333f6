//! A command's standard input, or its side of a terminal.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::terminal;

#[derive(Debug)]
pub(super) struct Input {
    fd: OwnedFd,
    is_terminal: bool,
    last: u8,
}

impl Input {
    pub(super) fn pipe(fd: OwnedFd) -> Self {
        Input {
            fd,
            is_terminal: false,
            last: b'\n',
        }
    }

    pub(super) fn terminal(fd: OwnedFd) -> Self {
        Input {
            is_terminal: true,
            ..Input::pipe(fd)
        }
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    pub(super) fn write(&mut self, data: &[u8]) -> Result<usize, Errno> {
        let count = rustix::io::write(&self.fd, data)?;
        if let Some(last) = data.get(..count).and_then(<[u8]>::last) {
            self.last = *last;
        }
        Ok(count)
    }

    /// A pipe ends by being closed, which is the caller's to do. On a terminal the end is typed: once on
    /// an empty line, twice where the first only ends the line begun.
    pub(super) fn end(&self) -> Result<(), Errno> {
        if !self.is_terminal {
            return Ok(());
        }
        let Some(typed) = terminal::end_of_file(&self.fd) else {
            return Ok(());
        };
        let times = if self.last == b'\n' { 1 } else { 2 };
        rustix::io::write(&self.fd, &[typed; 2][..times]).map(drop)
    }
}
