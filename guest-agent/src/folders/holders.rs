//! Who keeps a folder from being unmounted: processes with a working directory, a root, a program, an
//! open file or a mapping in it.
//!
//! A look at every process, done once, when the wait is over. It asks the kernel about what it has in
//! memory and the host about nothing.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, StatxFlags, openat, statx};

use super::mountinfo::Device;
use crate::failure::escaped;

/// Named in a message; the rest is a number.
const SHOWN: usize = 5;

/// What is not found in this time is not named: the host waits for the answer.
const DEADLINE: Duration = Duration::from_secs(1);

/// Mappings of a process that are looked at: some ten thousand.
const MAX_MAPS: u64 = 1024 * 1024;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pid: u32,
    name: String,
}

pub(super) fn of(device: Device) -> Vec<Holder> {
    let deadline = Instant::now() + DEADLINE;
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    processes
        .take_while(|_| Instant::now() < deadline)
        .filter(|pid| holds(*pid, device, deadline).unwrap_or(false))
        .map(|pid| Holder {
            pid,
            name: name_of(pid),
        })
        .collect()
}

/// `cargo (pid 12), sh (pid 3) and 4 more`
pub(super) fn describe(holders: &[Holder]) -> Option<String> {
    let shown: Vec<String> = holders
        .iter()
        .take(SHOWN)
        .map(|holder| format!("{} (pid {})", holder.name, holder.pid))
        .collect();
    match (holders.len(), shown.split_last()) {
        (_, None) => None,
        (count, _) if count > SHOWN => Some(format!("{} and {} more", shown.join(", "), count - SHOWN)),
        (1, Some((last, _))) => Some(last.clone()),
        (_, Some((last, others))) => Some(format!("{} and {last}", others.join(", "))),
    }
}

/// `None`: it is gone.
fn holds(pid: u32, device: Device, deadline: Instant) -> Option<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let process = openat(CWD, format!("/proc/{pid}"), flags, Mode::empty()).ok()?;
    let by_link = ["cwd", "root", "exe"]
        .iter()
        .any(|link| is_on(&process, *link, device));
    Some(by_link || has_open(&process, device, deadline) || maps(pid, device))
}

fn has_open(process: &OwnedFd, device: Device, deadline: Instant) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(mut files) = openat(process, "fd", flags, Mode::empty()).and_then(Dir::new) else {
        return false;
    };
    let Ok(numbers) = openat(process, "fd", flags, Mode::empty()) else {
        return false;
    };
    while let Some(Ok(file)) = files.read() {
        if Instant::now() >= deadline {
            return false;
        }
        if is_on(&numbers, file.file_name(), device) {
            return true;
        }
    }
    false
}

fn is_on(directory: impl AsFd, link: impl rustix::path::Arg, device: Device) -> bool {
    let known = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    statx(directory, link, known, StatxFlags::TYPE)
        .is_ok_and(|found| Device::new(found.stx_dev_major, found.stx_dev_minor) == device)
}

fn maps(pid: u32, device: Device) -> bool {
    let Ok(file) = File::open(format!("/proc/{pid}/maps")) else {
        return false;
    };
    let lines = BufReader::new(file.take(MAX_MAPS)).split(b'\n');
    lines
        .map_while(Result::ok)
        .any(|line| device_of_mapping(&line) == Some(device))
}

/// `7f00-7f01 r-xp 00001000 08:01 1234    /usr/bin/cat`
fn device_of_mapping(line: &[u8]) -> Option<Device> {
    let field = line.split(|byte| *byte == b' ').nth(3)?;
    let (major, minor) = std::str::from_utf8(field).ok()?.split_once(':')?;
    let number = |hex| u32::from_str_radix(hex, 16).ok();
    Some(Device::new(number(major)?, number(minor)?))
}

/// Which the process has chosen itself.
fn name_of(pid: u32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    escaped(String::from_utf8_lossy(name.trim_ascii_end()).chars())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holders(count: u32) -> Vec<Holder> {
        let holder = |pid| Holder {
            pid,
            name: "sh".into(),
        };
        (1..=count).map(holder).collect()
    }

    #[test]
    fn a_handful_is_named_and_the_rest_is_counted() {
        assert_eq!(describe(&[]), None);
        assert_eq!(describe(&holders(1)).unwrap(), "sh (pid 1)");
        assert_eq!(
            describe(&holders(3)).unwrap(),
            "sh (pid 1), sh (pid 2) and sh (pid 3)"
        );
        assert!(describe(&holders(9)).unwrap().ends_with("sh (pid 5) and 4 more"));
    }

    #[test]
    fn a_mapping_tells_its_file_system_in_hex() {
        let line = b"7f0011112000-7f0011113000 r--p 00000000 fd:1f 1234    /usr/lib/x";
        assert_eq!(device_of_mapping(line), Some(Device::new(0xfd, 0x1f)));
        for rubbish in [&b""[..], b"a b c d", b"a b c :", b"a b c 1:zz e"] {
            assert_eq!(device_of_mapping(rubbish), None);
        }
    }

    #[test]
    fn this_process_holds_the_file_system_of_proc() {
        let open = File::open("/proc/self/status").unwrap();
        let found = statx(&open, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE).unwrap();
        let proc_fs = Device::new(found.stx_dev_major, found.stx_dev_minor);
        let pid = std::process::id();
        assert!(of(proc_fs).iter().any(|holder| holder.pid == pid));
        assert!(!holds(pid, Device::new(4095, 1), Instant::now() + DEADLINE).unwrap());
    }
}
