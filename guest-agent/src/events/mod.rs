//! File events: a watcher in the guest hears of what the host edits in a shared folder.
//!
//! The kernel has no way for a FUSE device to send inotify events. But it sends them for what is done
//! through itself: so one thread of the agent repeats the host's edits ("echoes"), and the device, which
//! knows the thread, answers these repetitions without touching the host.
//!
//! ```text
//! who watches what ── scan of /proc ──▶ written to .coffer-events (and the device knows the thread)
//! host edits ──▶ the device ── read from .coffer-events ──▶ echo: mknod, truncate, chmod, unlink …
//!                                                            └─▶ the kernel tells the watchers
//! ```
//! While nothing is watched, nothing is asked; while no folder is mounted, the thread sleeps until one is.
//!
//! What it cannot do: watchers by fanotify, and those in another mount namespace with a mount of the
//! device of their own; more than `MAX_WATCHES` watched files; telling a rename from a
//! removal and a creation.

mod device;
mod echoes;
mod protocol;
mod scanner;
mod watches;

use std::{
    fs::File,
    io,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::setpriority_process,
    thread::gettid,
};

use self::{
    device::EventsFile,
    protocol::Event,
    scanner::Scanner,
    watches::{Folder, Watches},
};
use crate::{
    folders::{Folders, mountinfo},
    log,
};

/// Half of what is left to others: an echo is late under load, and never in the way.
const PRIORITY: i32 = 10;

/// Buffers live on the heap.
const STACK: usize = 128 * 1024;

/// From a host edit to the watcher are at most this, the device's own time, and the echo.
const POLL: Duration = Duration::from_millis(200);

/// Between two scans. A new watcher is promised its events within two seconds: this, the scan, and
/// [`POLL`], and as much again for a machine that is slow or busy.
const SCAN: Duration = Duration::from_millis(500);

/// Scans are a twentieth of the time, however many processes there are. Up to eighty milliseconds for one
/// that leaves the two seconds.
const SCAN_SHARE: u32 = 20;

/// For someone who has started a watcher, longer looks as if there were no events. A slow machine reaches
/// this after the first scan, which knows nothing yet, and one with tens of thousands of files always: there
/// scans take more than their share.
const LONGEST_SCAN_PAUSE: Duration = Duration::from_secs(5);

/// Reads in one turn, so that a host that never stops does not keep new watchers from being found.
const MAX_READS: usize = 16;

/// After an error, doubled each time.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// Starts the thread. Without it folders work all the same.
pub(crate) fn start(folders: Arc<Folders>) {
    let thread = thread::Builder::new().name("events".into()).stack_size(STACK);
    if let Err(error) = thread.spawn(move || run(folders)) {
        log::warn(format_args!("no file events: cannot start a thread: {error}"));
    }
}

/// Ends only when the device sends no events at all. A thread that the device knows must stay: its number
/// would go to another, whose changes would not reach the host.
fn run(folders: Arc<Folders>) {
    // Linux takes a thread where POSIX says process.
    let _ = setpriority_process(Some(gettid()), PRIORITY);
    let guest = Guest {
        folders,
        scanner: Scanner::new("/proc".into()),
    };
    if !guest.file().is_some_and(|file| file.exists()) {
        return;
    }
    let Ok(mounts) = File::open(mountinfo::PATH) else {
        return;
    };
    let mut turns = Turns::new(guest);
    loop {
        match turns.next() {
            Pause::For(time) => thread::sleep(time),
            Pause::UntilMounts => drop(poll(&mut [PollFd::new(&mounts, PollFlags::PRI)], None)),
        }
    }
}

/// What the loop needs of the world.
trait World {
    /// The folders that are mounted.
    fn folders(&self) -> Vec<Folder>;
    fn scan(&mut self, folders: &[Folder]) -> Watches;
    fn publish(&self, text: &[u8]) -> io::Result<()>;
    /// Whether there may be more than fitted into the buffer.
    fn read(&self, buffer: &mut Vec<u8>) -> io::Result<bool>;
    fn echo(&self, events: &[Event<'_>]);
}

struct Turns<W> {
    world: W,
    watches: Watches,
    /// What the device knows; `None` before the first time, and when it may have forgotten.
    published: Option<Vec<u8>>,
    scan_at: Instant,
    failures: u32,
    buffer: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
enum Pause {
    For(Duration),
    /// Until something is mounted.
    UntilMounts,
}

impl<W: World> Turns<W> {
    fn new(world: W) -> Self {
        Turns {
            world,
            watches: Watches::default(),
            published: Some(Watches::default().encode()),
            scan_at: Instant::now(),
            failures: 0,
            buffer: Vec::new(),
        }
    }

    fn next(&mut self) -> Pause {
        match self.turn() {
            Ok(pause) => {
                self.failures = 0;
                pause
            }
            Err(error) => {
                // A file that is not there was unmounted: the machine goes down.
                if self.failures == 0 && error.kind() != io::ErrorKind::NotFound {
                    log::warn(format_args!("file events: {error}"));
                }
                let backoff = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(16));
                self.failures += 1;
                self.published = None;
                self.scan_at = Instant::now();
                Pause::For(backoff.min(LONGEST_BACKOFF))
            }
        }
    }

    fn turn(&mut self) -> io::Result<Pause> {
        if Instant::now() >= self.scan_at {
            let folders = self.world.folders();
            self.scan(&folders);
            self.publish()?;
            if folders.is_empty() {
                return Ok(Pause::UntilMounts);
            }
        }
        let until_scan = self.scan_at.saturating_duration_since(Instant::now());
        if self.watches.is_empty() {
            return Ok(Pause::For(until_scan));
        }
        let drained = self.read_and_echo()?;
        Ok(Pause::For(if drained {
            POLL.min(until_scan)
        } else {
            Duration::ZERO
        }))
    }

    fn scan(&mut self, folders: &[Folder]) {
        let start = Instant::now();
        self.watches = match folders {
            [] => Watches::default(),
            folders => self.world.scan(folders),
        };
        let end = Instant::now();
        self.scan_at = end + next_scan(end - start);
    }

    /// The whole set, whenever it has changed.
    fn publish(&mut self) -> io::Result<()> {
        let text = self.watches.encode();
        if self.published.as_ref() != Some(&text) {
            self.world.publish(&text)?;
            self.published = Some(text);
        }
        Ok(())
    }

    /// Whether the device has nothing more to say. It is not asked again at once for no reason: it looks at
    /// what has happened when it is asked next, and the guest's own edits are known to it by then.
    fn read_and_echo(&mut self) -> io::Result<bool> {
        for _ in 0..MAX_READS {
            let more = self.world.read(&mut self.buffer)?;
            let events: Vec<Event<'_>> = protocol::decode(&self.buffer).collect();
            if !events.is_empty() {
                self.world.echo(&events);
            }
            if !more {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn next_scan(duration: Duration) -> Duration {
    duration
        .saturating_mul(SCAN_SHARE)
        .clamp(SCAN, LONGEST_SCAN_PAUSE)
}

/// The machine this agent is in.
struct Guest {
    folders: Arc<Folders>,
    scanner: Scanner,
}

impl Guest {
    fn file(&self) -> Option<PathBuf> {
        Some(self.folders.mounted()?.join(device::NAME))
    }

    fn device(&self) -> io::Result<EventsFile> {
        let path = self.file().ok_or(io::ErrorKind::NotFound)?;
        Ok(EventsFile::new(path))
    }
}

impl World for Guest {
    fn folders(&self) -> Vec<Folder> {
        let mnt = self.folders.mounted();
        mnt.map(|mnt| watches::folders_in(&mnt)).unwrap_or_default()
    }

    fn scan(&mut self, folders: &[Folder]) -> Watches {
        self.scanner.scan(folders)
    }

    fn publish(&self, text: &[u8]) -> io::Result<()> {
        self.device()?.publish(text)
    }

    fn read(&self, buffer: &mut Vec<u8>) -> io::Result<bool> {
        self.device()?.read(buffer)
    }

    fn echo(&self, events: &[Event<'_>]) {
        if let Some(mnt) = self.folders.mounted() {
            echoes::repeat(&mnt, events);
        }
    }
}

#[cfg(test)]
mod tests;
