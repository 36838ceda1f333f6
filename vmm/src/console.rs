//! The serial console: output only, to a log that a chatty guest cannot make grow or burn the disk with.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use vm_superio::{Serial, Trigger, serial::NoEvents};
use vmm_api::Console as Config;
use vmm_sys_util::eventfd::EventFd;

/// What a guest may write at once: a whole boot with every message on.
const BURST: u64 = 512 * 1024;
/// And in the long run, each second: more than a console tells anyone.
const BYTES_PER_SECOND: u64 = 64 * 1024;
/// A line is written when it ends, or when it is this long.
const LINE_MAX: usize = 1024;

pub(crate) type SerialPort = Serial<InterruptLine, NoEvents, ConsoleLog>;

/// Opens the log and puts a serial port before it; `interrupt` is wired to its line.
pub(crate) fn open(config: &Config, interrupt: EventFd) -> io::Result<(SerialPort, Dropped)> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&config.log)?;
    let dropped = Dropped::default();
    let log = ConsoleLog {
        file,
        max: config.max_bytes.max(4 * LINE_MAX as u64),
        len: 0,
        line: Vec::with_capacity(LINE_MAX),
        allowance: BURST,
        refilled: Instant::now(),
        dropped: dropped.clone(),
    };
    Ok((Serial::new(InterruptLine(interrupt), log), dropped))
}

/// Bytes that were not kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dropped(Arc<AtomicU64>);

impl Dropped {
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
pub(crate) struct InterruptLine(EventFd);

impl Trigger for InterruptLine {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// The first half of the file is kept as it was written; once the second half is full, its older part goes.
#[derive(Debug)]
pub(crate) struct ConsoleLog {
    file: File,
    max: u64,
    len: u64,
    line: Vec<u8>,
    allowance: u64,
    refilled: Instant,
    dropped: Dropped,
}

impl ConsoleLog {
    fn put(&mut self, byte: u8) {
        self.line.push(byte);
        if byte == b'\n' || self.line.len() >= LINE_MAX {
            self.flush_line();
        }
    }

    /// A log that cannot be written is no reason to stop the guest; what is lost is counted.
    fn flush_line(&mut self) {
        let line = std::mem::replace(&mut self.line, Vec::with_capacity(LINE_MAX));
        let len = line.len() as u64;
        if !self.may_write(len) || self.append(&line).is_err() {
            self.dropped.0.fetch_add(len, Ordering::Relaxed);
        }
    }

    fn may_write(&mut self, len: u64) -> bool {
        let elapsed = self.refilled.elapsed().as_millis() as u64;
        if elapsed > 0 {
            self.allowance = (self.allowance + elapsed.saturating_mul(BYTES_PER_SECOND) / 1000).min(BURST);
            self.refilled = Instant::now();
        }
        let enough = self.allowance >= len;
        if enough {
            self.allowance -= len;
        }
        enough
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.len + line.len() as u64 > self.max {
            self.drop_older()?;
        }
        self.file.write_all_at(line, self.len)?;
        self.len += line.len() as u64;
        Ok(())
    }

    /// Moves the newest quarter to the middle and forgets what was there.
    fn drop_older(&mut self) -> io::Result<()> {
        let keep = self.max / 4;
        let mut newest = vec![0; keep as usize];
        self.file.read_exact_at(&mut newest, self.len - keep)?;
        let start = newest
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        let kept = newest.get(start..).unwrap_or_default();
        let gone = self.len - self.max / 2 - kept.len() as u64;
        let note = format!("\n[{gone} bytes dropped here]\n");
        self.dropped.0.fetch_add(gone, Ordering::Relaxed);
        let mut at = self.max / 2;
        for part in [note.as_bytes(), kept] {
            self.file.write_all_at(part, at)?;
            at += part.len() as u64;
        }
        self.len = at;
        self.file.set_len(at)
    }
}

impl Write for ConsoleLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        bytes.iter().for_each(|byte| self.put(*byte));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for ConsoleLog {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.flush_line();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(max: u64) -> (tempfile::NamedTempFile, SerialPort, Dropped) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let config = Config {
            log: file.path().into(),
            max_bytes: max,
        };
        let (port, dropped) = open(&config, EventFd::new(0).unwrap()).unwrap();
        (file, port, dropped)
    }

    #[test]
    fn a_log_never_grows_past_its_limit_and_keeps_its_start_and_its_end() {
        let (file, mut port, dropped) = log(16 * 1024);
        for number in 0..5_000 {
            port.writer_mut()
                .write_all(format!("line {number}\n").as_bytes())
                .unwrap();
            assert!(file.as_file().metadata().unwrap().len() <= 16 * 1024 + 64);
        }
        drop(port);
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert!(text.starts_with("line 0\nline 1\n") && text.ends_with("line 4999\n"));
        assert!(text.contains("bytes dropped here") && dropped.bytes() > 0);
    }

    #[test]
    fn a_flood_is_cut_off_not_followed() {
        let (file, mut port, dropped) = log(1 << 30);
        let flood = vec![b'x'; 4 << 20];
        port.writer_mut().write_all(&flood).unwrap();
        drop(port);
        let kept = file.as_file().metadata().unwrap().len();
        assert!(kept < BURST + 4 * BYTES_PER_SECOND, "{kept}");
        assert_eq!(kept + dropped.bytes(), flood.len() as u64);
    }

    #[test]
    fn a_last_line_without_an_end_is_kept() {
        let (file, mut port, _) = log(1 << 20);
        port.writer_mut().write_all(b"Kernel panic").unwrap();
        drop(port);
        assert_eq!(std::fs::read(file.path()).unwrap(), b"Kernel panic");
    }
}
