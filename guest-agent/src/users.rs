//! Accounts, read from `/etc/passwd` and `/etc/group` by hand: a static binary has no name service, and
//! an image may have neither file.

use std::{fs::File, io::Read, os::unix::ffi::OsStrExt, path::Path};

use rustix::fs::{FileType, Mode, OFlags};

/// The user of every session, and what a file put into a shared directory belongs to.
pub(crate) const AGENT_NAME: &str = "agent";
pub(crate) const AGENT_ID: u32 = 1000;

/// A passwd file longer than this is read in part: tens of thousands of accounts fit.
const MAX_FILE: u64 = 1024 * 1024;

/// What the kernel takes for supplementary groups (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 65536;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: Vec<u8>,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups, its own included.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: Vec<u8>,
    pub(crate) shell: Vec<u8>,
}

impl Account {
    /// Who has no line in passwd: a group of the same number, no home.
    fn unlisted(name: &[u8], id: u32) -> Self {
        Account {
            name: name.to_vec(),
            uid: id,
            gid: id,
            groups: vec![id],
            home: b"/".to_vec(),
            shell: b"/bin/sh".to_vec(),
        }
    }
}

/// A name or a number. `None`: a name nobody has. `agent` and `root` exist in any image, and so does
/// every number but the one that means "none".
pub(crate) fn find(root: &Path, wanted: &str) -> Option<Account> {
    let listed = lines(&root.join("etc/passwd")).find_map(|line| {
        let account = parse_account(&line)?;
        let number = wanted.parse().is_ok_and(|uid: u32| uid == account.uid);
        (number || account.name == wanted.as_bytes()).then_some(account)
    });
    let mut account = listed.or_else(|| unlisted(wanted))?;
    account.groups.extend(
        lines(&root.join("etc/group"))
            .filter_map(|line| group_with_member(&line, &account.name))
            .take(MAX_GROUPS - 1),
    );
    account.groups.sort_unstable();
    account.groups.dedup();
    Some(account)
}

fn unlisted(wanted: &str) -> Option<Account> {
    match wanted {
        AGENT_NAME => Some(Account::unlisted(wanted.as_bytes(), AGENT_ID)),
        "root" => Some(Account::unlisted(wanted.as_bytes(), 0)),
        number => match number.parse() {
            Ok(u32::MAX) | Err(_) => None,
            Ok(id) => Some(Account::unlisted(number.as_bytes(), id)),
        },
    }
}

/// `name:password:uid:gid:comment:home:shell`
fn parse_account(line: &[u8]) -> Option<Account> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
    let [name, _, uid, gid, _, home, shell] = fields[..] else {
        return None;
    };
    let (uid, gid) = (number(uid)?, number(gid)?);
    Some(Account {
        name: name.to_vec(),
        uid,
        gid,
        groups: vec![gid],
        home: or_else(home, b"/"),
        shell: or_else(shell, b"/bin/sh"),
    })
}

/// `name:password:gid:member,member`
fn group_with_member(line: &[u8], member: &[u8]) -> Option<u32> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
    let [_, _, gid, members] = fields[..] else {
        return None;
    };
    members
        .split(|byte| *byte == b',')
        .any(|name| name == member)
        .then(|| number(gid))?
}

fn number(field: &[u8]) -> Option<u32> {
    let number = std::str::from_utf8(field).ok()?.parse().ok()?;
    (number != u32::MAX).then_some(number)
}

fn or_else(field: &[u8], default: &[u8]) -> Vec<u8> {
    if field.is_empty() { default } else { field }.to_vec()
}

fn lines(path: &Path) -> impl Iterator<Item = Vec<u8>> + use<> {
    let bytes = read_small_file(path).unwrap_or_default();
    let lines: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    lines.into_iter()
}

/// The first [`MAX_FILE`] bytes of a regular file; anything else at that path reads as no file.
pub(crate) fn read_small_file(path: &Path) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = rustix::fs::open(path.as_os_str().as_bytes(), flags, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut bytes = Vec::new();
    File::from(file).take(MAX_FILE).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn root_with(passwd: &str, group: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/passwd"), passwd).unwrap();
        fs::write(root.path().join("etc/group"), group).unwrap();
        root
    }

    #[test]
    fn an_account_is_found_by_name_and_by_number_with_all_its_groups() {
        let root = root_with(
            "root:x:0:0:root:/root:/bin/bash\nbroken line\nagent:x:1000:1000::/sessions:/bin/bash\n",
            "root:x:0:\nsudo:x:27:other,agent\nagent:x:1000:\nusers:x:100:agent2\n",
        );
        let agent = find(root.path(), "agent").unwrap();
        assert_eq!((agent.uid, agent.gid), (1000, 1000));
        assert_eq!(agent.groups, [27, 1000]);
        assert_eq!(find(root.path(), "1000"), Some(agent));
        assert_eq!(find(root.path(), "0").unwrap().home, b"/root");
        assert_eq!(find(root.path(), "nobody"), None);
    }

    #[test]
    fn without_a_passwd_file_agent_root_and_numbers_still_work() {
        let empty = tempfile::tempdir().unwrap();
        let uid = |name: &str| find(empty.path(), name).map(|account| account.uid);
        assert_eq!(uid("agent"), Some(1000));
        assert_eq!(uid("root"), Some(0));
        assert_eq!(uid("4711"), Some(4711));
        for wrong in ["", "-1", "4294967295", "99999999999", "someone", "0x0"] {
            assert_eq!(uid(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_fifo_in_the_place_of_passwd_does_not_hang() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        let path = root.path().join("etc/passwd");
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert_eq!(find(root.path(), "agent").unwrap().uid, 1000);
    }
}
