//! Room and tools: memory, disk, images, and the programs that make them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use images::{BuildRequest, Staleness, Store};

use super::{Check, Level};
use crate::{Paths, reap::MACHINE_PROGRAM, scratch, shape::Bytes};

/// The default machine's memory, should its guest use all of it.
const GOOD_MEMORY: u64 = 1 << 30;
/// The smallest guest that does anything, and our own processes.
const MIN_MEMORY: u64 = 192 << 20;
/// An image, and sessions that write a little.
const GOOD_DISK: u64 = 5 << 30;
/// Not even an image.
const MIN_DISK: u64 = 1 << 30;

pub(super) fn memory() -> Check {
    let available = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.trim()
            .trim_end_matches(" kB")
            .parse::<u64>()
            .ok()?
            .checked_mul(1024)
    });
    let hint = "close something, or give sandboxes less: --memory 256M";
    match available {
        None => Check::new("memory", Level::Weak, "/proc/meminfo does not tell".into(), ""),
        Some(bytes) => room("memory", bytes, (MIN_MEMORY, GOOD_MEMORY), "available", hint),
    }
}

pub(super) fn disk(paths: &Paths) -> Check {
    let sessions = paths.sessions();
    let there = existing(&sessions);
    let hint = "free some space, or point XDG_STATE_HOME to a larger disk";
    match rustix::fs::statvfs(&there) {
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            room(
                "disk",
                free,
                (MIN_DISK, GOOD_DISK),
                &format!("free for {}", sessions.display()),
                hint,
            )
        }
        Err(error) => Check::new("disk", Level::Weak, format!("{}: {error}", there.display()), ""),
    }
}

fn room(what: &'static str, bytes: u64, (least, good): (u64, u64), where_: &str, hint: &str) -> Check {
    let found = format!("{} {where_}", Bytes(bytes >> 20 << 20));
    match bytes {
        b if b < least => Check::new(what, Level::Missing, found, hint),
        b if b < good => Check::new(what, Level::Weak, found, hint),
        _ => Check::new(what, Level::Ok, found, ""),
    }
}

/// The nearest directory above that is there already.
fn existing(path: &Path) -> PathBuf {
    path.ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"))
        .to_owned()
}

/// Tried by making it, as any session would.
pub(super) fn state(paths: &Paths) -> Check {
    match crate::state::Table::open(paths) {
        Ok(_) => Check::new(
            "state",
            Level::Ok,
            format!("{} is ours to write", paths.sessions().display()),
            "",
        ),
        Err(error) => Check::new(
            "state",
            Level::Missing,
            error.line(),
            &error.hint().unwrap_or_default(),
        ),
    }
}

pub(super) fn programs() -> Check {
    let ours = std::env::current_exe().unwrap_or_default();
    let absent: Vec<&str> = [MACHINE_PROGRAM, crate::image::AGENT_PROGRAM]
        .into_iter()
        .filter(|program| !ours.with_file_name(program).is_file())
        .collect();
    if absent.is_empty() {
        return Check::new(
            "programs",
            Level::Ok,
            "coffer-vmm and coffer-agent lie beside coffer".into(),
            "",
        );
    }
    let found = format!("not beside coffer: {}", absent.join(", "));
    Check::new(
        "programs",
        Level::Missing,
        found,
        "build or install all programs together",
    )
}

pub(super) fn image(paths: &Paths) -> Check {
    let agent = std::env::current_exe()
        .unwrap_or_default()
        .with_file_name(crate::image::AGENT_PROGRAM);
    let wanted = BuildRequest {
        agent,
        ..BuildRequest::default()
    };
    let name = &wanted.name;
    let check = |level, found: &str, hint| Check::new("image", level, format!("{name}: {found}"), hint);
    let store = Store::new(paths.images());
    let verified = store.find(name).and_then(|image| image.verify());
    match (verified, store.staleness(&wanted)) {
        (Err(images::Error::NoSuchImage { .. }), _) => {
            check(Level::Missing, "not there", "coffer image build")
        }
        (Err(error), _) => check(Level::Missing, &error.to_string(), "coffer image build"),
        (Ok(_), Ok(Staleness::Fresh)) => check(Level::Ok, "fresh, its hashes are right", ""),
        (Ok(_), Ok(_)) => check(
            Level::Weak,
            "older than this coffer",
            "coffer image build --if-stale",
        ),
        // What is wrong with the agent is said above.
        (Ok(_), Err(_)) => check(Level::Ok, "its hashes are right", ""),
    }
}

pub(super) fn mke2fs() -> Check {
    match scratch::mke2fs() {
        Some(path) => Check::new("e2fsprogs", Level::Ok, path.display().to_string(), ""),
        None => Check::new(
            "e2fsprogs",
            Level::Missing,
            "no mke2fs, which makes a sandbox's disk".into(),
            "sudo apt install e2fsprogs",
        ),
    }
}

pub(super) fn mmdebstrap() -> Check {
    let path = std::env::var_os("PATH").unwrap_or_default();
    match std::env::split_paths(&path)
        .map(|directory| directory.join("mmdebstrap"))
        .find(|path| path.is_file())
    {
        Some(path) => Check::new("mmdebstrap", Level::Ok, path.display().to_string(), ""),
        None => Check::new(
            "mmdebstrap",
            Level::Weak,
            "not installed: images can be imported but not built".into(),
            "sudo apt install mmdebstrap",
        ),
    }
}
