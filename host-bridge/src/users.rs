//! `/etc/passwd` and `/etc/group` by hand: a static binary has no name service switch.

use std::{fs, path::PathBuf};

pub(crate) fn home_of(uid: u32) -> Option<PathBuf> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2)?.parse::<u32>().ok()? == uid)
            .then(|| fields.get(5).map(PathBuf::from))
            .flatten()
            .filter(|home| home.is_absolute())
    })
}

/// The name of a group, for a hint that can be typed.
pub(crate) fn group_name(gid: u32) -> Option<String> {
    let group = fs::read_to_string("/etc/group").ok()?;
    group.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse::<u32>().ok()? == gid).then(|| name.to_owned())
    })
}
