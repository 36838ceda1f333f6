//! `coffer stop` and `coffer rm`.

use std::time::Duration;

use clap::Args;

use crate::{
    Error, Paths, Result, SessionName, console,
    keeper::KeeperClient,
    output,
    process::ProcessId,
    progress::watched,
    session::STOP_GRACE,
    shape::parse_span,
    state::{Record, Table},
};

/// Our own program, which every owner of a session runs.
const OWNER_PROGRAM: &str = "coffer";
/// After its last word a keeper has only to exit.
const EXIT_WAIT: Duration = Duration::from_secs(5);

/// Shut sessions down; their disks stay
#[derive(Debug, Args)]
pub(super) struct StopArguments {
    /// Names of the sessions
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// How long processes in the sandbox may take to end before they are killed [default: 10s]
    #[arg(long, short, value_name = "TIME")]
    time: Option<String>,
    /// Say nothing
    #[arg(long, short)]
    quiet: bool,
}

pub(super) async fn stop(paths: &Paths, arguments: &StopArguments) -> Result<u8> {
    let asked = arguments
        .time
        .as_deref()
        .map(|text| parse_span("--time", text))
        .transpose()?;
    let grace = asked.unwrap_or(STOP_GRACE);
    let what = "stopping";
    for name in names(&arguments.names)? {
        watched(what, arguments.quiet, stop_one(paths, &name, grace)).await?;
    }
    Ok(0)
}

/// One that is stopped already is what was asked for.
async fn stop_one(paths: &Paths, name: &SessionName, grace: Duration) -> Result<()> {
    let entry = Table::open(paths)?.find(name)?;
    if !entry.alive {
        return Ok(());
    }
    let owner = entry.record.ok().and_then(|record| record.owner);
    KeeperClient::connect(paths, name).await?.stop(grace).await?;
    match owner {
        Some(owner) if !owner.wait(EXIT_WAIT) => Err(Error::KeeperSilent { name: name.clone() }),
        _ => Ok(()),
    }
}

/// Remove sessions with their disks and logs; what is in their outputs stays, and where is said
#[derive(Debug, Args)]
pub(super) struct RemoveArguments {
    /// Names of the sessions
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// End those that run, and say nothing of those that are not there
    #[arg(long, short)]
    force: bool,
}

/// Each is tried, whatever becomes of the others.
pub(super) fn remove(paths: &Paths, arguments: &RemoveArguments) -> Result<u8> {
    let mut code = 0;
    for name in names(&arguments.names)? {
        match remove_one(paths, &name, arguments.force) {
            Err(Error::UnknownSession { .. }) if arguments.force => {}
            Err(error) => {
                output::error(&error);
                code = error.code();
            }
            Ok(()) => {}
        }
    }
    Ok(code)
}

fn remove_one(paths: &Paths, name: &SessionName, force: bool) -> Result<()> {
    let entry = Table::open(paths)?.find(name)?;
    if entry.alive {
        if !force {
            return Err(Error::StillRuns { name: name.clone() });
        }
        end_owner(name, &entry.record?)?;
    }
    // Opening the table settles what the owner left; one of `coffer run` is gone with that.
    match Table::open(paths)? {
        table if !paths.session(name).exists() => drop(table),
        table if table.find(name)?.alive => return Err(Error::KeeperSilent { name: name.clone() }),
        table => {
            if let Some(path) = table.remove(name)? {
                let path = console::one_line(&path.display().to_string());
                output::note(&format!("outputs kept: {path}"));
            }
        }
    }
    Ok(())
}

/// Nothing of the session is wanted any more, so its owner is not asked; the machine ends with it.
fn end_owner(name: &SessionName, record: &Record) -> Result<()> {
    let unkillable = |pid| Error::Unkillable {
        name: name.clone(),
        pid,
    };
    let owner: ProcessId = record.owner.ok_or_else(|| unkillable(0))?;
    if owner.kill(OWNER_PROGRAM, EXIT_WAIT) {
        Ok(())
    } else {
        Err(unkillable(owner.pid))
    }
}

fn names(typed: &[String]) -> Result<Vec<SessionName>> {
    typed.iter().map(|name| name.parse()).collect()
}
