//! `coffer ls` and `coffer inspect`: what there is, and all that is known of one.

use clap::Args;
use serde_json::{Value, json};
use vmm_api::ShareStatus;

use crate::{
    Error, Paths, Result, SessionName, console,
    error::Context,
    keeper::{Inspection, KeeperClient},
    net::shown,
    output,
    shape::Bytes,
    state::{
        Entry, Record, State, Table, console_of, egress_log_of, keeper_log_of, machine_log_of, outputs_of,
        unix_ms, uploads_of,
    },
};

const STDOUT: &str = "standard output cannot be written";

/// List sessions
#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// Print as JSON
    #[arg(long)]
    json: bool,
    /// Print names only
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
}

pub(super) fn list(paths: &Paths, arguments: &ListArguments) -> Result<u8> {
    let entries = Table::open(paths)?.entries()?;
    if arguments.json {
        let rows: Vec<Value> = entries.iter().map(json_row).collect();
        output::json(&rows).act(STDOUT)?;
    } else if arguments.quiet {
        entries
            .iter()
            .try_for_each(|entry| output::line(entry.name.as_str()))
            .act(STDOUT)?;
    } else {
        let rows: Vec<Vec<String>> = entries.iter().map(text_row).collect();
        output::table(
            &["NAME", "STATE", "IMAGE", "CPUS", "MEMORY", "SINCE", "FOLDERS"],
            &rows,
        )
        .act(STDOUT)?;
    }
    Ok(0)
}

fn text_row(entry: &Entry) -> Vec<String> {
    let name = entry.name.to_string();
    let Ok(record) = &entry.record else {
        return vec![name, "damaged".to_owned()];
    };
    let since = match record.state {
        State::Running | State::Starting => record.started_unix_ms.unwrap_or(record.created_unix_ms),
        State::Stopped => record.ended_unix_ms.unwrap_or(record.created_unix_ms),
    };
    vec![
        name,
        record.state.word().to_owned(),
        record.image.clone(),
        record.shape.cpus.count().to_string(),
        Bytes(record.shape.memory.bytes()).to_string(),
        age(unix_ms().saturating_sub(since)),
        folder_names(record),
    ]
}

fn folder_names(record: &Record) -> String {
    let names: Vec<String> = record
        .folders
        .iter()
        .map(|folder| console::one_line(folder.name.as_str()))
        .collect();
    names.join(", ")
}

fn json_row(entry: &Entry) -> Value {
    match &entry.record {
        Ok(record) => row(record, entry.alive),
        Err(error) => json!({ "name": entry.name, "state": "damaged", "error": error.line() }),
    }
}

/// A session as a program sees it. Values of variables may be secrets and are not told.
pub(super) fn row(record: &Record, alive: bool) -> Value {
    json!({
        "name": record.name,
        "state": record.state,
        "alive": alive,
        "ephemeral": record.ephemeral,
        "image": record.image,
        "cpus": record.shape.cpus,
        "memory_mib": record.shape.memory,
        "disk_bytes": record.shape.disk,
        "env": record.env.iter().map(|(key, _)| key).collect::<Vec<_>>(),
        "folders": record.folders.iter().map(|folder| &folder.name).collect::<Vec<_>>(),
        "created_unix_ms": record.created_unix_ms,
        "started_unix_ms": record.started_unix_ms,
        "ended_unix_ms": record.ended_unix_ms,
        "ended": record.ended,
        "pid": record.owner.map(|owner| owner.pid),
        "machine_pid": record.machine.map(|machine| machine.pid),
    })
}

/// Show all that is known of a session
#[derive(Debug, Args)]
pub(super) struct InspectArguments {
    /// Name of the session
    #[arg(value_name = "NAME")]
    name: String,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn inspect(paths: &Paths, arguments: &InspectArguments) -> Result<u8> {
    let name: SessionName = arguments.name.parse()?;
    let (alive, record) = {
        let entry = Table::open(paths)?.find(&name)?;
        (entry.alive, entry.record?)
    };
    let mut all = row(&record, alive);
    let directory = paths.session(&name);
    merge(
        &mut all,
        json!({
            "directory": directory,
            "disk_used_bytes": disk_used(&directory.join("scratch.img")),
            "logs": {
                "console": console_of(&directory),
                "machine": machine_log_of(&directory),
                "keeper": keeper_log_of(&directory),
                "egress": egress_log_of(&directory),
            },
            "sockets": paths.sockets(&name),
            "outputs": outputs_of(&directory),
            "uploads": uploads_of(&directory),
            "net": net_json(&record),
        }),
    );
    if alive && let Some(started) = record.started_unix_ms {
        merge(
            &mut all,
            json!({ "uptime_ms": unix_ms().saturating_sub(started) }),
        );
    }
    let mut statuses = None;
    if alive && record.state == State::Running && !record.ephemeral {
        let (told, shares) = told_by_owner(paths, &name).await;
        merge(&mut all, told);
        statuses = shares;
    }
    let folders = super::share::rows(&directory, &record, statuses.as_deref());
    if arguments.json {
        all["folders"] = serde_json::json!(folders);
        return output::json(&all).act(STDOUT).map(|()| 0);
    }
    // A table says it better than lines do.
    merge(&mut all, json!({ "folders": null, "net": null }));
    print_lines(&all).act(STDOUT)?;
    output::line("\nmay reach:").act(STDOUT)?;
    for line in super::net::policy_lines(&record.net) {
        output::line(&format!("  {line}")).act(STDOUT)?;
    }
    super::net::print_published(&record.publish).act(STDOUT)?;
    output::line("")
        .and_then(|()| super::share::print(&folders))
        .act(STDOUT)?;
    Ok(0)
}

fn net_json(record: &Record) -> Value {
    json!({
        "rules": record.net.rules.iter().map(shown).collect::<Vec<_>>(),
        "unknown": record.net.unknown,
        "max_bytes": record.net.max_bytes,
        "max_connections": record.net.max_connections,
        "publish": record.publish,
    })
}

async fn told_by_owner(paths: &Paths, name: &SessionName) -> (Value, Option<Vec<ShareStatus>>) {
    let asked = async {
        let keeper = KeeperClient::connect(paths, name).await?;
        // A machine that says nothing of its folders is told of below.
        Ok((keeper.inspect().await?, keeper.shares().await.ok()))
    };
    match asked.await {
        Ok((inspection, shares)) => (inspection_json(&inspection), shares),
        Err::<_, Error>(error) => (json!({ "keeper": error.line() }), None),
    }
}

fn inspection_json(inspection: &Inspection) -> Value {
    let guest = inspection.guest.as_ref().map(|guest| {
        json!({
            "agent_version": console::safe(guest.agent_version.as_bytes()),
            "kernel": console::safe(guest.kernel.as_bytes()),
            "boot_ms": guest.uptime_ms,
        })
    });
    let machine = match &inspection.machine {
        Ok(text) => serde_json::from_str(text).unwrap_or(Value::Null),
        Err(error) => json!({ "error": error }),
    };
    json!({ "guest": guest, "machine": machine })
}

fn merge(into: &mut Value, more: Value) {
    if let (Some(into), Value::Object(mut more)) = (into.as_object_mut(), more) {
        into.append(&mut more);
    }
}

fn disk_used(path: &std::path::Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|found| found.blocks() * 512)
}

/// One `key: value` a line; what is nested, with its keys joined by dots.
fn print_lines(value: &Value) -> std::io::Result<()> {
    let mut lines = Vec::new();
    flatten("", value, &mut lines);
    lines.iter().try_for_each(|line| output::line(line))
}

fn flatten(key: &str, value: &Value, lines: &mut Vec<String>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (name, field) in fields {
                let key = if key.is_empty() {
                    name.clone()
                } else {
                    format!("{key}.{name}")
                };
                flatten(&key, field, lines);
            }
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(plain).collect();
            lines.push(format!("{key}: {}", items.join(" ")));
        }
        value => lines.push(format!("{key}: {}", plain(value))),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

pub(super) fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Show what a session's machine said
#[derive(Debug, Args)]
pub(super) struct LogsArguments {
    /// Name of the session
    #[arg(value_name = "NAME")]
    name: String,
    /// Go on showing what comes, until the session ends
    #[arg(long, short)]
    follow: bool,
    /// The VMM's own log instead of the guest's console
    #[arg(long)]
    vmm: bool,
    /// The keeper's log instead of the guest's console
    #[arg(long, conflicts_with = "vmm")]
    keeper: bool,
}

pub(super) async fn logs(paths: &Paths, arguments: &LogsArguments) -> Result<u8> {
    let name: SessionName = arguments.name.parse()?;
    Table::open(paths)?.find(&name)?;
    let directory = paths.session(&name);
    let log = match (arguments.vmm, arguments.keeper) {
        (true, _) => machine_log_of(&directory),
        (_, true) => keeper_log_of(&directory),
        _ => console_of(&directory),
    };
    let lives = || -> Result<bool> {
        match Table::open(paths)?.find(&name) {
            Err(Error::UnknownSession { .. }) => Ok(false),
            entry => Ok(entry?.alive),
        }
    };
    super::logs::show(&log, arguments.follow, lives).await?;
    Ok(0)
}
