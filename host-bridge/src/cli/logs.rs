//! A log on standard output: as it is into a pipe, made safe on a terminal.

use std::{
    fs::File,
    io::{self, IsTerminal, Read, Seek, SeekFrom},
    path::Path,
    time::Duration,
};

use rustix::stdio::stdout;

use crate::{Result, console, error::Context, output};

/// How often a followed log is looked at: quick for a person, cheap for the host.
const INTERVAL: Duration = Duration::from_millis(200);
const CHUNK: usize = 64 * 1024;

pub(super) async fn show(log: &Path, follow: bool, lives: impl Fn() -> Result<bool>) -> Result<()> {
    let mut printer = Printer {
        raw: !io::stdout().is_terminal(),
        line: Vec::new(),
    };
    let mut file = match File::open(log) {
        // Nothing was said yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !follow => return Ok(()),
        file => file.context("log cannot be opened", log)?,
    };
    loop {
        // Asked before reading, so that the last words of a session are read after its end.
        let more = follow && lives()?;
        copy_new(&mut file, &mut printer).context("log cannot be shown", log)?;
        if !more {
            return printer.finish().context("log cannot be shown", log);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// What was added since; a log whose older half was dropped goes on at its end.
fn copy_new(file: &mut File, printer: &mut Printer) -> io::Result<()> {
    if file.metadata()?.len() < file.stream_position()? {
        file.seek(SeekFrom::End(0))?;
    }
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(()),
            n => printer.print(chunk.get(..n).unwrap_or_default())?,
        }
    }
}

struct Printer {
    raw: bool,
    line: Vec<u8>,
}

impl Printer {
    fn print(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.raw {
            return output::write_all(stdout(), bytes);
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.line.len() > CHUNK {
                self.finish()?;
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            Ok(())
        } else {
            output::line(&console::safe(line.trim_ascii_end()))
        }
    }
}
