//! Looking through `/proc` for inotify instances, which is the only way the kernel offers.
//!
//! To look at every open file of every process each time would take hundreds of milliseconds of a slow
//! machine. So what a process was found to have is kept: while its number of open files is the same it is
//! asked for nothing else, and the instances it has are read again, for they get new watches. A process
//! that closes one file and makes an instance of inotify between two scans is found when its turn comes to
//! be looked at anew: an eighth of the processes in each scan, rather than all in every eighth, so that no
//! scan is a long one.

use std::{
    collections::HashMap,
    ffi::CStr,
    fs::File,
    mem::{self, MaybeUninit},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, RawDir, openat, readlinkat_raw, statat},
    io::{Errno, Result},
    path::Arg,
};

use super::watches::{Folder, Watches};

/// Open files of one process: what a service with many connections has.
const MAX_PER_PROCESS: usize = 8192;

/// Processes, open files and instances looked at in one scan. Each is about a microsecond.
const MAX_LOOKS: usize = 65_536;

/// A process is looked at anew in one scan of this many, whatever is known of it.
const TURNS: u32 = 8;

/// Of directory entries read at once: some hundred.
const ENTRIES: usize = 8 * 1024;

/// How the kernel calls such a file, with brackets in some versions.
const INOTIFY: [&[u8]; 2] = [b"anon_inode:inotify", b"anon_inode:[inotify]"];

/// Looks again and again, and remembers.
#[derive(Debug)]
pub(super) struct Scanner {
    /// Where `/proc` is.
    proc: PathBuf,
    scans: u32,
    /// By the number of the process. Only those that were there at the last scan.
    known: HashMap<u32, Process>,
}

#[derive(Debug)]
struct Process {
    /// Of its directory in `/proc`, which the listing tells. Numbers of processes come again; the directory
    /// of the next one has another inode.
    inode: u64,
    found: Found,
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// A thread of the kernel, or a process that has ended: nothing will be open there. In a rare moment
    /// also one that the kernel is about to start; its turn will come.
    NoProgram,
    Program {
        /// How many files are open; Linux before 6.2 does not tell, and says none.
        open: u64,
        /// Descriptors.
        instances: Vec<u32>,
    },
}

impl Scanner {
    pub(super) fn new(proc: PathBuf) -> Self {
        Scanner {
            proc,
            scans: 0,
            known: HashMap::new(),
        }
    }

    pub(super) fn scan(&mut self, folders: &[Folder]) -> Watches {
        self.scans = self.scans.wrapping_add(1);
        let mut before = mem::take(&mut self.known);
        let Ok(proc) = directory(CWD, &self.proc) else {
            return Watches::default();
        };
        let mut scan = Scan {
            proc: &proc,
            folders,
            left: MAX_LOOKS,
            watches: Watches::default(),
        };
        let mut buffer = Vec::with_capacity(ENTRIES);
        let mut processes = RawDir::new(&proc, buffer.spare_capacity_mut());
        while let Some(Ok(entry)) = processes.next() {
            let Some(number) = parse_number(entry.file_name()) else {
                continue;
            };
            let inode = entry.ino();
            let known = before
                .remove(&number)
                .filter(|known| known.inode == inode && !is_turn(self.scans, number));
            let found = scan.look(number, known.map(|known| known.found));
            // Perhaps it was not looked at to the end, and the others will not be.
            if scan.left == 0 {
                break;
            }
            if let Some(found) = found {
                self.known.insert(number, Process { inode, found });
            }
        }
        scan.watches
    }
}

fn is_turn(scans: u32, process: u32) -> bool {
    scans.wrapping_add(process).is_multiple_of(TURNS)
}

/// One of many.
struct Scan<'a> {
    proc: &'a OwnedFd,
    folders: &'a [Folder],
    left: usize,
    watches: Watches,
}

impl Scan<'_> {
    /// `None` when it is gone by now, or lets us see nothing.
    fn look(&mut self, process: u32, known: Option<Found>) -> Option<Found> {
        if known == Some(Found::NoProgram) {
            return known;
        }
        self.left = self.left.saturating_sub(1);
        let open = self.count_open(process).ok()?;
        if open == 0 && self.has_no_program(process) {
            return Some(Found::NoProgram);
        }
        let instances = match known.and_then(|known| known.unchanged(open)) {
            Some(instances) => instances,
            None => self.find_instances(process).ok()?,
        };
        for descriptor in &instances {
            self.read_instance(process, *descriptor);
        }
        Some(Found::Program { open, instances })
    }

    fn count_open(&self, process: u32) -> Result<u64> {
        let stat = statat(self.proc, format!("{process}/fd"), AtFlags::empty())?;
        Ok(u64::try_from(stat.st_size).unwrap_or(0))
    }

    fn has_no_program(&self, process: u32) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 1];
        let link = readlinkat_raw(self.proc, format!("{process}/exe"), &mut buffer);
        matches!(link, Err(Errno::NOENT))
    }

    fn find_instances(&mut self, process: u32) -> Result<Vec<u32>> {
        let files = directory(self.proc, format!("{process}/fd"))?;
        let mut buffer = Vec::with_capacity(ENTRIES);
        let mut entries = RawDir::new(&files, buffer.spare_capacity_mut());
        let mut instances = Vec::new();
        let most = MAX_PER_PROCESS.min(self.left);
        let mut looked = 0;
        while looked < most
            && let Some(entry) = entries.next()
        {
            let entry = entry?;
            if let Some(descriptor) = parse_number(entry.file_name()) {
                looked += 1;
                if is_inotify(&files, entry.file_name()) {
                    instances.push(descriptor);
                }
            }
        }
        self.left -= looked;
        Ok(instances)
    }

    /// Another file in its place has no such lines.
    fn read_instance(&mut self, process: u32, descriptor: u32) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        let path = format!("{process}/fdinfo/{descriptor}");
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        if let Ok(fdinfo) = openat(self.proc, path, flags, Mode::empty()) {
            self.watches.read(File::from(fdinfo), self.folders);
        }
    }
}

impl Found {
    /// The instances, if nothing says that there are others by now.
    fn unchanged(self, now: u64) -> Option<Vec<u32>> {
        match self {
            Found::Program { open, instances } if open == now && now > 0 => Some(instances),
            _ => None,
        }
    }
}

fn directory(parent: impl AsFd, path: impl Arg) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(parent, path, flags, Mode::empty())
}

/// `parse` takes a sign, too.
fn parse_number(name: &CStr) -> Option<u32> {
    let digits = name.to_str().ok()?;
    let plain = digits.bytes().all(|digit| digit.is_ascii_digit());
    plain.then(|| digits.parse().ok())?
}

fn is_inotify(files: &OwnedFd, link: &CStr) -> bool {
    // A target that fills the buffer is a longer one, and so another.
    let mut buffer = [MaybeUninit::uninit(); 32];
    readlinkat_raw(files, link, &mut buffer).is_ok_and(|(target, _)| INOTIFY.contains(&&*target))
}

#[cfg(test)]
mod tests;
