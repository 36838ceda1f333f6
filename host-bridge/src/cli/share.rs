//! `coffer share`: folders of a session that is there.

use std::{ffi::OsString, io, path::Path, path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use serde::Serialize;
use vmm_api::{ShareCache, ShareCounts, ShareLimits, ShareMode, ShareName, ShareStatus};

use crate::{
    Error, Paths, Result, SessionName, console,
    error::Context,
    keeper::KeeperClient,
    output,
    progress::watched,
    session::Removal,
    shape::{Bytes, parse_span},
    share::{FolderRules, Guard, OUTPUTS, UPLOADS, asked_of},
    signals::Signals,
    state::{Record, State, Table, outputs_of, uploads_of},
};

const STDOUT: &str = "standard output cannot be written";

/// Share folders with a session, take them away, list them
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: ShareCommand,
}

#[derive(Debug, Subcommand)]
enum ShareCommand {
    Add(AddArguments),
    Rm(RemoveArguments),
    Ls(ListArguments),
}

/// Share one more folder with a session that runs; prints where it is in there
#[derive(Debug, Args)]
struct AddArguments {
    /// Name of the session
    #[arg(value_name = "NAME")]
    name: String,
    /// The folder, with options and a name as for `coffer run --share`
    #[arg(value_name = "PATH[:OPTIONS][:AS]")]
    folder: OsString,
    /// Share also what is not shared by accident: /, a home directory, coffer's own
    #[arg(long)]
    i_know: bool,
}

/// Take a folder away from a session
#[derive(Debug, Args)]
struct RemoveArguments {
    /// Name of the session
    #[arg(value_name = "NAME")]
    name: String,
    /// Name of the folder in the session
    #[arg(value_name = "FOLDER")]
    folder: String,
    /// Wait until nothing in the session uses it, this long at most [default: 1m]
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "1m")]
    wait: Option<String>,
    /// Take it away from whatever still uses it, which then gets errors
    #[arg(long)]
    cut: bool,
    /// Say nothing
    #[arg(long, short)]
    quiet: bool,
}

/// List a session's folders
#[derive(Debug, Args)]
struct ListArguments {
    /// Name of the session
    #[arg(value_name = "NAME")]
    name: String,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn share(paths: &Paths, arguments: Arguments) -> Result<u8> {
    match arguments.command {
        ShareCommand::Add(arguments) => add(paths, &arguments).await,
        ShareCommand::Rm(arguments) => remove(paths, arguments).await,
        ShareCommand::Ls(arguments) => list(paths, &arguments).await,
    }
}

async fn add(paths: &Paths, arguments: &AddArguments) -> Result<u8> {
    let name: SessionName = arguments.name.parse()?;
    let asked = asked_of(&arguments.folder, &Guard::of(paths), arguments.i_know)?;
    let folder = KeeperClient::connect(paths, &name)
        .await?
        .share_add(asked)
        .await?;
    output::line(&format!("/sessions/{name}/mnt/{folder}")).act(STDOUT)?;
    Ok(0)
}

async fn remove(paths: &Paths, arguments: RemoveArguments) -> Result<u8> {
    let name: SessionName = arguments.name.parse()?;
    let folder = ShareName::try_from(arguments.folder).map_err(|error| Error::Usage {
        what: error.to_string(),
        hint: format!("coffer share ls {name} shows them"),
    })?;
    let wait = arguments.wait.as_deref().map(|text| parse_span("--wait", text));
    let how = Removal {
        wait: wait.transpose()?.unwrap_or(Duration::ZERO),
        cut: arguments.cut,
    };
    if forget_in_stopped(paths, &name, &folder)? {
        return Ok(0);
    }
    let mut signals = Signals::catch()?;
    let session = KeeperClient::connect(paths, &name).await?;
    tokio::select! {
        removed = watched("waiting for the sandbox", arguments.quiet, session.share_remove(&folder, how)) => removed?,
        signal = signals.next_ending() => return Err(Error::Interrupted { signal }),
    }
    Ok(0)
}

/// A session that does not run has its folders in its record only, and one that is lost must not keep it from
/// starting again. False when the session runs.
fn forget_in_stopped(paths: &Paths, name: &SessionName, folder: &ShareName) -> Result<bool> {
    let table = Table::open(paths)?;
    let entry = table.find(name)?;
    if entry.alive {
        return Ok(false);
    }
    let owner = table.take(name)?;
    let mut record = entry.record?;
    let there: Vec<String> = record
        .folders
        .iter()
        .map(|folder| folder.name.to_string())
        .collect();
    record.folders.retain(|other| other.name != *folder);
    if there.len() == record.folders.len() {
        return Err(Error::UnknownFolder {
            session: name.clone(),
            name: folder.clone(),
            there: there.join(", "),
        });
    }
    record.write(owner.path())?;
    Ok(true)
}

async fn list(paths: &Paths, arguments: &ListArguments) -> Result<u8> {
    let name: SessionName = arguments.name.parse()?;
    let (alive, record) = {
        let entry = Table::open(paths)?.find(&name)?;
        (entry.alive, entry.record?)
    };
    // Of a session of `coffer run`, or one that is just starting, only its record can be asked.
    let statuses = if alive && record.state == State::Running && !record.ephemeral {
        Some(KeeperClient::connect(paths, &name).await?.shares().await?)
    } else {
        None
    };
    let rows = rows(&paths.session(&name), &record, statuses.as_deref());
    if arguments.json {
        output::json(&rows).act(STDOUT)?;
    } else {
        print(&rows).act(STDOUT)?;
    }
    Ok(0)
}

/// A folder with all that is known of it.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    name: String,
    path: PathBuf,
    mode: ShareMode,
    cache: ShareCache,
    state: FolderState,
    /// Patterns beside the default ones; with `!`, those taken back.
    hide: Vec<String>,
    protect: Vec<String>,
    limits: ShareLimits,
    counts: Option<ShareCounts>,
    #[serde(skip)]
    rules: FolderRules,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum FolderState {
    Shared,
    /// Nothing is there any more on the host.
    Lost,
    /// It will be shared when the session is started.
    Stopped,
    /// The session runs, and nobody tells.
    Unknown,
}

impl FolderState {
    fn word(self) -> &'static str {
        match self {
            FolderState::Shared => "shared",
            FolderState::Lost => "lost",
            FolderState::Stopped => "stopped",
            FolderState::Unknown => "-",
        }
    }
}

/// The folders of a session, those that a person shared first.
pub(super) fn rows(directory: &Path, record: &Record, statuses: Option<&[ShareStatus]>) -> Vec<Row> {
    let shared = record
        .folders
        .iter()
        .map(|folder| (folder.name.as_str(), folder.path.clone(), folder.rules.clone()));
    let own = [
        (
            OUTPUTS,
            outputs_of(directory),
            FolderRules::new(ShareMode::ReadWrite),
        ),
        (
            UPLOADS,
            uploads_of(directory),
            FolderRules::new(ShareMode::ReadOnly),
        ),
    ];
    let row = |(name, path, rules): (&str, PathBuf, FolderRules)| {
        let status = statuses.and_then(|all| all.iter().find(|status| status.name.as_str() == name));
        Row {
            name: name.to_owned(),
            mode: rules.mode,
            cache: rules.cache,
            state: state_of(record, &path, status),
            hide: rules.hide.clone(),
            protect: rules.protect.clone(),
            limits: rules.limits,
            counts: status.map(|status| status.counts),
            path,
            rules,
        }
    };
    shared.chain(own).map(row).collect()
}

fn state_of(record: &Record, path: &Path, status: Option<&ShareStatus>) -> FolderState {
    match status {
        Some(status) if status.lost => FolderState::Lost,
        Some(_) => FolderState::Shared,
        None if !path.is_dir() => FolderState::Lost,
        None if record.state == State::Stopped => FolderState::Stopped,
        None => FolderState::Unknown,
    }
}

pub(super) fn print(rows: &[Row]) -> io::Result<()> {
    let headings = [
        "FOLDER", "MODE", "CACHE", "STATE", "READ", "WRITTEN", "REFUSED", "PATH", "RULES",
    ];
    let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
    output::table(&headings, &rows)
}

fn cells(row: &Row) -> Vec<String> {
    let count = |of: fn(&ShareCounts) -> String| row.counts.as_ref().map_or_else(|| "-".to_owned(), of);
    vec![
        console::one_line(&row.name),
        row.rules.mode_word().to_owned(),
        row.rules.cache_word().to_owned(),
        row.state.word().to_owned(),
        count(|counts| Bytes(counts.read_bytes).to_string()),
        count(|counts| Bytes(counts.written_bytes).to_string()),
        count(|counts| counts.refused.to_string()),
        console::one_line(&row.path.display().to_string()),
        console::one_line(&row.rules.changes().join(",")),
    ]
}
