use std::cell::{Cell, RefCell};

use super::*;
use crate::folders::mountinfo::Device;

/// A device and its watchers, as a test wants them.
#[derive(Default)]
struct Script {
    folders: RefCell<Vec<Folder>>,
    watched: RefCell<Vec<u64>>,
    published: RefCell<Vec<Vec<u8>>>,
    to_read: RefCell<Vec<&'static [u8]>>,
    reads: Cell<usize>,
    echoed: Cell<usize>,
    broken: Cell<bool>,
}

impl Script {
    fn watching(inodes: &[u64]) -> Self {
        Script {
            folders: RefCell::new(vec![docs()]),
            watched: RefCell::new(inodes.to_vec()),
            ..Script::default()
        }
    }
}

impl World for Script {
    fn folders(&self) -> Vec<Folder> {
        self.folders.borrow().clone()
    }

    fn scan(&mut self, folders: &[Folder]) -> Watches {
        let mut watches = Watches::default();
        for inode in self.watched.borrow().iter().copied() {
            watches.insert(&folders[0].name, inode);
        }
        watches
    }

    fn publish(&self, text: &[u8]) -> io::Result<()> {
        if self.broken.get() {
            return Err(io::ErrorKind::Other.into());
        }
        self.published.borrow_mut().push(text.to_vec());
        Ok(())
    }

    fn read(&self, buffer: &mut Vec<u8>) -> io::Result<bool> {
        self.reads.set(self.reads.get() + 1);
        buffer.clear();
        buffer.extend(self.to_read.borrow_mut().pop().unwrap_or_default());
        Ok(!self.to_read.borrow().is_empty())
    }

    fn echo(&self, events: &[Event<'_>]) {
        self.echoed.set(self.echoed.get() + events.len());
    }
}

fn docs() -> Folder {
    Folder {
        name: b"docs".to_vec(),
        device: Device::new(0, 51),
    }
}

/// As if a second had passed.
fn next_scan_now(turns: &mut Turns<Script>) -> Pause {
    turns.scan_at = Instant::now();
    turns.next()
}

#[test]
fn without_a_folder_the_thread_waits_for_one_and_asks_nothing() {
    let mut turns = Turns::new(Script::default());
    assert_eq!(turns.next(), Pause::UntilMounts);
    assert!(turns.world.published.borrow().is_empty());
    assert_eq!(turns.world.reads.get(), 0);
}

#[test]
fn while_nothing_is_watched_the_device_is_not_asked() {
    let mut turns = Turns::new(Script::watching(&[]));
    assert!(matches!(turns.next(), Pause::For(time) if time > POLL));
    assert!(turns.world.published.borrow().is_empty());
    assert_eq!(turns.world.reads.get(), 0);
}

#[test]
fn a_set_is_written_when_it_changes_and_an_empty_one_once() {
    let mut turns = Turns::new(Script::watching(&[7]));
    turns.next();
    next_scan_now(&mut turns);
    turns.world.watched.borrow_mut().push(8);
    next_scan_now(&mut turns);
    turns.world.watched.borrow_mut().clear();
    next_scan_now(&mut turns);
    next_scan_now(&mut turns);
    let published = turns.world.published.borrow();
    assert_eq!(*published, [&b"7 docs\n"[..], b"7 docs\n8 docs\n", b"\n"]);
}

#[test]
fn the_last_folder_going_empties_the_set() {
    let mut turns = Turns::new(Script::watching(&[7]));
    turns.next();
    turns.world.folders.borrow_mut().clear();
    assert_eq!(next_scan_now(&mut turns), Pause::UntilMounts);
    assert_eq!(turns.world.published.borrow().last().unwrap(), b"\n");
}

#[test]
fn a_turn_repeats_all_there_is_and_then_pauses() {
    let mut turns = Turns::new(Script::watching(&[7]));
    *turns.world.to_read.borrow_mut() = vec![b"U docs/a\0", b"C docs/a\0M docs/a\0rubbish"];
    assert_eq!(turns.next(), Pause::For(POLL));
    assert_eq!(turns.world.echoed.get(), 3);
    assert_eq!(turns.world.reads.get(), 2, "asked again for no reason");
}

#[test]
fn a_device_that_never_stops_talking_does_not_keep_the_scan_away() {
    let mut turns = Turns::new(Script::watching(&[7]));
    *turns.world.to_read.borrow_mut() = vec![b"A docs/a\0"; 2 * MAX_READS];
    assert_eq!(turns.next(), Pause::For(Duration::ZERO));
    assert_eq!(turns.world.echoed.get(), MAX_READS);
}

#[test]
fn errors_are_met_with_longer_and_longer_pauses_and_then_the_whole_set_again() {
    let mut turns = Turns::new(Script::watching(&[7]));
    turns.world.broken.set(true);
    let pauses: Vec<Pause> = (0..20).map(|_| turns.next()).collect();
    assert_eq!(
        pauses[..2],
        [Pause::For(FIRST_BACKOFF), Pause::For(2 * FIRST_BACKOFF)]
    );
    assert_eq!(pauses[19], Pause::For(LONGEST_BACKOFF));
    turns.world.broken.set(false);
    assert_eq!(turns.next(), Pause::For(POLL));
    assert_eq!(*turns.world.published.borrow(), [b"7 docs\n"]);
}

#[test]
fn a_slow_scan_is_a_twentieth_of_the_time_and_none_keeps_a_watcher_waiting() {
    assert_eq!(next_scan(Duration::from_millis(3)), SCAN);
    assert_eq!(next_scan(Duration::from_millis(50)), Duration::from_secs(1));
    assert_eq!(next_scan(Duration::from_secs(1)), LONGEST_SCAN_PAUSE);
}
