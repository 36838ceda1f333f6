//! Becoming the session the host names: host name, clock, identity, network, home, folders.

use std::{
    fs, io,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use agent_protocol::{Network, Setup};

use crate::{
    Agent, Error, Machine,
    agent::Session,
    log, network, trust,
    users::{AGENT_ID, read_small_file},
};

/// What Linux takes for a host name (`HOST_NAME_MAX`).
const MAX_NAME: usize = 64;

/// A clock off by less is left alone: stepping it disturbs programs more than that much error does.
const TOLERANCE: Duration = Duration::from_millis(100);

pub(crate) fn become_session(agent: &Agent, setup: Setup) -> Result<Session, Error> {
    let (root, machine) = (agent.root(), agent.machine());
    let name = setup.session;
    if !is_host_name(&name) {
        return Err(Error::SessionName { name });
    }
    machine.set_clock(setup.unix_ns).map_err(Error::Clock)?;
    if let Err(source) = machine.set_hostname(&name) {
        return Err(Error::HostName { name, source });
    }
    if let Err(error) = name_in_etc(root, &name) {
        log::warn(format_args!("cannot write the host name to /etc: {error}"));
    }
    if let Err(error) = identify(root) {
        log::warn(format_args!("cannot write the machine's id to /etc: {error}"));
    }
    // Once: what the session has since made of its network and its files is its own affair.
    if agent.session().is_none() {
        if let Some(network) = &setup.network {
            connect(root, machine, network);
        }
        if let Some(certificates) = &setup.certificates {
            trust::install(root, certificates);
        }
    }
    let home = root.join("sessions").join(&name);
    make_home(&home).map_err(|source| Error::Prepare {
        path: home.clone(),
        source,
    })?;
    match agent.folders().open(machine, &home.join("mnt"), &setup.folders) {
        // A session that runs is worth more than a folder that is gone when the host comes back.
        Err(error) if agent.session().is_some() => log::warn(log::with_causes(&error)),
        opened => opened?,
    }
    let mut env = match setup.certificates {
        Some(_) => trust::variables(root),
        None => Vec::new(),
    };
    // Later ones win.
    env.extend(setup.env);
    Ok(Session { home, env })
}

/// A session without its network still does what needs none.
fn connect(root: &Path, machine: &dyn Machine, network: &Network) {
    if let Err(error) = machine.set_network(network) {
        return log::warn(format_args!("cannot set up the network: {error}"));
    }
    if let Err(error) = network::name_resolver(root, network) {
        log::warn(format_args!("cannot write the resolver to /etc: {error}"));
    }
}

pub(crate) fn keep_clock(machine: &dyn Machine, unix_ns: u64) {
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if ours.abs_diff(Duration::from_nanos(unix_ns)) > TOLERANCE
        && let Err(error) = machine.set_clock(unix_ns)
    {
        log::warn(format_args!("cannot set the clock: {error}"));
    }
}

/// Letters, digits, dashes and dots, not at the ends: also a file name that leads nowhere else.
fn is_host_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    let ends = [name.bytes().next(), name.bytes().last()];
    name.len() <= MAX_NAME
        && name.bytes().all(inner)
        && ends
            .iter()
            .all(|end| end.is_some_and(|byte| byte.is_ascii_alphanumeric()))
}

/// The home and the folder of its mounts belong to the agent user. Made once: what the session has since
/// put in their place is its own affair, and not followed.
fn make_home(home: &Path) -> io::Result<()> {
    if let Some(sessions) = home.parent() {
        fs::create_dir_all(sessions)?;
    }
    for directory in [home.to_owned(), home.join("mnt")] {
        match fs::create_dir(&directory) {
            Ok(()) => give_to_agent(directory)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn give_to_agent(directory: PathBuf) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    chown(directory, Some(AGENT_ID), Some(AGENT_ID))
}

/// Programs look their own host name up: sudo complains, and some wait, when nobody knows it.
fn name_in_etc(root: &Path, name: &str) -> io::Result<()> {
    let etc = root.join("etc");
    if !etc.is_dir() {
        return Ok(());
    }
    fs::write(etc.join("hostname"), format!("{name}\n"))?;
    let path = etc.join("hosts");
    let mut hosts = match read_small_file(&path) {
        Some(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        None => "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".into(),
    };
    if hosts.split_whitespace().any(|word| word == name) {
        return Ok(());
    }
    if !hosts.ends_with('\n') && !hosts.is_empty() {
        hosts.push('\n');
    }
    hosts.push_str(&format!("127.0.1.1\t{name}\n"));
    fs::write(path, hosts)
}

/// Tells this machine from all others. An image holds an empty file for it; an id that is there stays.
fn identify(root: &Path) -> io::Result<()> {
    let path = root.join("etc/machine-id");
    if read_small_file(&path).is_none_or(|id| !id.trim_ascii().is_empty()) {
        return Ok(());
    }
    let id = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    fs::write(path, id.replace('-', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_machine_id_is_filled_once() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("etc/machine-id");
        fs::create_dir(root.path().join("etc")).unwrap();
        identify(root.path()).unwrap();
        assert!(!path.exists());
        fs::write(&path, "").unwrap();
        identify(root.path()).unwrap();
        let id = fs::read_to_string(&path).unwrap();
        assert!(id.trim_end().len() == 32 && id.trim_end().bytes().all(|byte| byte.is_ascii_hexdigit()));
        identify(root.path()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), id);
    }

    #[test]
    fn only_a_host_name_names_a_session() {
        for good in ["a", "calm-otter", "a.b", "x1", &"a".repeat(64)] {
            assert!(is_host_name(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "/a",
            "a\0b",
            "-a",
            "a-",
            "ä",
            "a b",
            &"a".repeat(65),
        ] {
            assert!(!is_host_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn the_name_is_added_to_hosts_once() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/hosts"), "10.0.0.1 db").unwrap();
        for _ in 0..2 {
            name_in_etc(root.path(), "otter").unwrap();
        }
        let hosts = fs::read_to_string(root.path().join("etc/hosts")).unwrap();
        assert_eq!(hosts, "10.0.0.1 db\n127.0.1.1\totter\n");
    }
}
