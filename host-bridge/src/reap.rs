//! What dead owners left is settled here, at the next start of any command that looks at sessions.

use std::{fs, time::Duration};

use egress_policy::control::Spent;

use crate::{
    Error, Paths, Result,
    net::account::spent_by_record,
    state::{Entry, Record, State, Table, unix_ms},
};

/// The program a machine runs as; a process of another name is never touched.
pub const MACHINE_PROGRAM: &str = "coffer-vmm";
/// A killed machine gives back its memory before it is gone, which takes a moment.
const KILL_WAIT: Duration = Duration::from_secs(5);
const OWNER_DIED: &str = "its owner process died";

pub(crate) fn settle_dead(table: &Table) -> Result<()> {
    for entry in &table.entries()? {
        // One that cannot be settled is in nobody's way until its own name is asked for, and then it
        // is tried again and the reason told.
        let _ = settle(table, entry);
    }
    Ok(())
}

/// Leaves a session that has an owner alone.
pub(crate) fn settle(table: &Table, entry: &Entry) -> Result<()> {
    if entry.alive {
        return Ok(());
    }
    let directory = table.paths().session(&entry.name);
    let record = match &entry.record {
        Ok(record) => record,
        // Its maker died before the first record was written: there is nothing in it.
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return table.forget(&entry.name);
        }
        // Damaged, or from another version: it shows up in the list and only `rm` touches it.
        Err(_) => return Ok(()),
    };
    if record.state == State::Stopped && !record.ephemeral {
        return Ok(());
    }
    end_machine(record)?;
    if record.ephemeral {
        return table.forget(&entry.name);
    }
    let _ = fs::remove_dir_all(table.paths().sockets(&entry.name));
    let settled = Record {
        state: State::Stopped,
        ended: Some(OWNER_DIED.to_owned()),
        ended_unix_ms: Some(unix_ms()),
        owner: None,
        machine: None,
        net_spent: spent(table.paths(), record),
        ..record.clone()
    };
    settled.write(&directory)
}

/// The owner notes it at its end, which it did not live to see. The network's records have it but for what live flows
/// had not told yet, which they do every ten seconds.
fn spent(paths: &Paths, record: &Record) -> Spent {
    let noted = record.net_spent;
    let told = spent_by_record(&paths.net(), &record.name, record.created_unix_ms).unwrap_or_default();
    Spent {
        bytes: noted.bytes.max(told.bytes),
        connections: noted.connections.max(told.connections),
    }
}

/// A machine ends by itself when its owner does; one that hangs is ended here.
fn end_machine(record: &Record) -> Result<()> {
    match record.machine {
        Some(machine) if !machine.kill(MACHINE_PROGRAM, KILL_WAIT) => Err(Error::Unkillable {
            name: record.name.clone(),
            pid: machine.pid,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::{SessionName, process::ProcessId, state::tests::record};

    fn left_behind(paths: &Paths, record: &Record) {
        let owner = Table::open(paths)
            .unwrap()
            .create(Some(record.name.clone()))
            .unwrap();
        record.write(owner.path()).unwrap();
    }

    #[test]
    fn an_ephemeral_session_of_a_dead_owner_is_removed_and_a_kept_one_is_stopped() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        left_behind(
            &paths,
            &Record {
                ephemeral: true,
                ..record("gone")
            },
        );
        left_behind(&paths, &record("stays"));
        let table = Table::open(&paths).unwrap();
        let entries = table.entries().unwrap();
        let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["stays"]);
        let settled = entries[0].record.as_ref().unwrap();
        assert_eq!(
            (settled.state, settled.ended.as_deref()),
            (State::Stopped, Some(OWNER_DIED))
        );
    }

    #[test]
    fn a_directory_without_a_record_is_removed_and_a_damaged_record_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        let empty: SessionName = "empty".parse().unwrap();
        drop(Table::open(&paths).unwrap().create(Some(empty.clone())).unwrap());
        left_behind(&paths, &record("damaged"));
        fs::write(paths.sessions().join("damaged/session.json"), "{").unwrap();
        let table = Table::open(&paths).unwrap();
        assert!(table.find(&empty).is_err());
        assert!(table.find(&"damaged".parse().unwrap()).unwrap().record.is_err());
    }

    #[test]
    fn a_machine_that_outlived_its_owner_is_killed_and_a_stranger_with_its_number_is_not() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        let machine = root.path().join(MACHINE_PROGRAM);
        fs::copy(fs::canonicalize("/bin/sleep").unwrap(), &machine).unwrap();
        let mut machine = Command::new(machine).arg("60").spawn().unwrap();
        let mut stranger = Command::new("sleep").arg("60").spawn().unwrap();
        for (name, child) in [("machine", &machine), ("stranger", &stranger)] {
            left_behind(
                &paths,
                &Record {
                    machine: ProcessId::of(child.id()),
                    ..record(name)
                },
            );
        }
        Table::open(&paths).unwrap();
        assert!(!machine.wait().unwrap().success());
        assert!(stranger.try_wait().unwrap().is_none());
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}
