//! The only place that prints: data on standard output, everything else on standard error.

use std::{
    io::{self, IsTerminal, Write},
    os::fd::BorrowedFd,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use serde::Serialize;

use crate::Error;

/// An error, its causes, and what to do about it.
pub fn error(error: &Error) {
    let mut text = format!("coffer: {}\n", error.line());
    if let Some(hint) = error.hint() {
        text.push_str("hint: ");
        text.push_str(&hint);
        text.push('\n');
    }
    stderr(&text);
}

/// Something a person should know though nothing failed.
pub fn note(text: &str) {
    stderr(&format!("coffer: {text}\n"));
}

/// One line of JSON beside the data, on standard error.
pub fn note_json(value: &impl Serialize) {
    if let Ok(text) = serde_json::to_string(value) {
        stderr(&format!("{text}\n"));
    }
}

fn stderr(text: &str) {
    // Where standard error is closed there is nobody to tell.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// A line of data. The error of a reader that went away is the caller's end, and no failure.
pub fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")
}

pub fn json(value: &impl Serialize) -> io::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Rows under their headings, each column as wide as it must be.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        cells
            .chain(headings.get(column).map(|h| h.len()))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let print = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        line(padded.join("  ").trim_end())
    };
    print(&mut headings.iter().copied())?;
    rows.iter()
        .try_for_each(|row| print(&mut row.iter().map(String::as_str)))
}

pub fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// A line that is written over itself, and gone at the end.
#[derive(Debug, Default)]
pub struct StatusLine {
    shown: bool,
}

impl StatusLine {
    pub fn show(&mut self, text: &str) {
        stderr(&format!("\r\x1b[K{text}"));
        self.shown = true;
    }

    pub fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            stderr("\r\x1b[K");
        }
    }
}

impl Drop for StatusLine {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Writes all of it straight to the descriptor, also to one that somebody made non-blocking.
pub fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(fd, PollFlags::OUT)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Reads once, also from a descriptor that somebody made non-blocking. Nothing read is the end.
pub fn read(fd: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match rustix::io::read(fd, &mut *into) {
            Ok(n) => return Ok(n),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(fd, PollFlags::IN)?,
            Err(error) => return Err(error.into()),
        }
    }
}

fn wait(fd: BorrowedFd<'_>, flags: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::from_borrowed_fd(fd, flags)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
