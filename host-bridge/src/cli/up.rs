//! `coffer up`: a session that stays, and `coffer keep`, the process that it stays in.

use std::{
    ffi::OsString,
    io::Read,
    process::{ExitStatus, Stdio},
};

use clap::Args;
use egress_policy::EgressPolicy;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
};

use super::machine::{FolderArguments, MachineArguments, NetArguments, session_environment};
use crate::{
    Error, Paths, Result, SessionName,
    error::{Context, code},
    keeper::{self, Report, Spec},
    output,
    process::ProcessId,
    progress::watched,
    session::Plan,
    shape::Shape,
    signals::Signals,
    state::{Record, Table},
};

/// What a keeper says is a page of JSON, and never this much.
const MAX_REPORT: u64 = 1 << 20;
/// What it is told may have every folder with two full lists of the longest patterns.
const MAX_SPEC: u64 = 64 << 20;

/// Start a session that stays, or a stopped one again
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of the session [default: one is made up]
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// The same as NAME
    #[arg(long = "name", value_name = "NAME", conflicts_with = "name")]
    named: Option<String>,
    /// A variable for every command in the session: KEY=VALUE, or KEY to pass ours on
    #[arg(long, short, value_name = "KEY[=VALUE]")]
    env: Vec<OsString>,
    /// Say nothing but the name
    #[arg(long, short)]
    quiet: bool,
    /// Print the session as JSON instead of its name
    #[arg(long)]
    json: bool,
    #[command(flatten, next_help_heading = "Folders")]
    folders: FolderArguments,
    #[command(flatten, next_help_heading = "Network")]
    net: NetArguments,
    #[command(flatten, next_help_heading = "Machine")]
    machine: MachineArguments,
}

pub(super) async fn up(paths: &Paths, mut arguments: Arguments) -> Result<u8> {
    let name = arguments.name.take().or(arguments.named.take());
    let name: Option<SessionName> = name.as_deref().map(str::parse).transpose()?;
    let former = match &name {
        Some(name) => stopped(paths, name)?,
        None => None,
    };
    let spec = Spec {
        name,
        again: former.is_some(),
        plan: plan(paths, &mut arguments, former)?,
    };
    let mut signals = Signals::catch()?;
    let mut keeper = start_keeper()?;
    let reporting = report_of(&mut keeper, &spec);
    let report = tokio::select! {
        report = watched("starting sandbox", arguments.quiet, reporting) => report,
        signal = signals.next_ending() => {
            end_keeper(&mut keeper).await;
            return Err(Error::Interrupted { signal });
        }
    };
    match report? {
        Report::Ready { name } if arguments.json => {
            let record = Record::read(&paths.session(&name))?;
            output::json(&super::list::row(&record, true)).act("standard output cannot be written")?;
        }
        Report::Ready { name } => {
            output::line(name.as_str()).act("standard output cannot be written")?;
            let published =
                Record::read(&paths.session(&name)).map_or_else(|_| Vec::new(), |record| record.publish);
            super::net::tell_published(&published, arguments.quiet);
        }
        Report::Failed { what, hint, code } => {
            // It has only to exit; then nothing of this session runs any more.
            let _ = keeper.wait().await;
            return Err(Error::Reported { what, hint, code });
        }
    }
    Ok(0)
}

/// The record of a session that is there and does not run.
fn stopped(paths: &Paths, name: &SessionName) -> Result<Option<Record>> {
    let table = Table::open(paths)?;
    match table.find(name) {
        Err(Error::UnknownSession { .. }) => Ok(None),
        Err(error) => Err(error),
        Ok(entry) if entry.alive => Err(Error::NameInUse { name: name.clone() }),
        Ok(entry) => entry.record.map(Some),
    }
}

/// A session that is started again is what it was, but for what is said now. Its disk it keeps.
fn plan(paths: &Paths, arguments: &mut Arguments, former: Option<Record>) -> Result<Plan> {
    let mut env = session_environment(&arguments.env)?;
    let Some(former) = former else {
        let folders = arguments.folders.settle(paths, Vec::new(), arguments.quiet)?;
        let (policy, hints) = arguments
            .net
            .settle(paths, &EgressPolicy::default(), arguments.quiet)?;
        env.splice(0..0, hints);
        let publish = arguments.net.publish(Vec::new(), arguments.quiet)?;
        let mut plan = arguments.machine.plan(paths, env, folders, policy)?;
        plan.publish = publish;
        return Ok(plan);
    };
    let asked = arguments.machine.shape()?;
    if arguments.machine.disk.is_some() && asked.disk != former.shape.disk {
        return Err(Error::DiskChanged {
            name: former.name,
            has: former.shape.disk.to_string(),
        });
    }
    if arguments
        .machine
        .image
        .as_ref()
        .is_some_and(|image| *image != former.image)
    {
        return Err(Error::ImageChanged {
            name: former.name,
            has: former.image,
        });
    }
    arguments.machine.image = Some(former.image.clone());
    env.splice(0..0, former.env.clone());
    let folders = arguments
        .folders
        .settle(paths, former.folders.clone(), arguments.quiet)?;
    let (policy, hints) = arguments.net.settle(paths, &former.net, arguments.quiet)?;
    // What a person said, now or before, counts for more.
    env.splice(0..0, hints);
    let publish = arguments.net.publish(former.publish.clone(), arguments.quiet)?;
    let mut plan = arguments.machine.plan(paths, env, folders, policy)?;
    plan.publish = publish;
    plan.shape = Shape {
        cpus: if arguments.machine.cpus.is_some() {
            asked.cpus
        } else {
            former.shape.cpus
        },
        memory: if arguments.machine.memory.is_some() {
            asked.memory
        } else {
            former.shape.memory
        },
        disk: former.shape.disk,
    };
    if former.image_id.is_some() && former.image_id != plan.image.id {
        output::note(&format!(
            "image {} was made again since session {} was made: files of the two may not fit together",
            former.image, former.name
        ));
    }
    Ok(plan)
}

fn start_keeper() -> Result<Child> {
    let program = std::env::current_exe().act("own program cannot be found")?;
    Command::new(program)
        .arg("keep")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .act("keeper cannot be started")
}

async fn report_of(keeper: &mut Child, spec: &Spec) -> Result<Report> {
    let act = "keeper cannot be talked to";
    let text = serde_json::to_vec(spec).map_err(std::io::Error::from).act(act)?;
    if let Some(mut stdin) = keeper.stdin.take() {
        stdin.write_all(&text).await.act(act)?;
    }
    let mut said = Vec::new();
    if let Some(stdout) = keeper.stdout.take() {
        stdout.take(MAX_REPORT).read_to_end(&mut said).await.act(act)?;
    }
    match serde_json::from_slice(&said) {
        Ok(report) => Ok(report),
        Err(_) => Err(keeper_died(keeper.wait().await.act(act)?)),
    }
}

fn keeper_died(status: ExitStatus) -> Error {
    Error::Reported {
        what: format!("the session's keeper died while it started: {status}"),
        hint: None,
        code: code::OURS,
    }
}

/// Its own handler of SIGTERM takes what it has made away again.
async fn end_keeper(keeper: &mut Child) {
    if let Some(process) = keeper.id().and_then(ProcessId::of) {
        process.terminate();
    }
    let _ = keeper.wait().await;
}

/// The keeper's side: everything it must know comes on standard input.
pub(super) async fn keep(paths: &Paths) -> Result<u8> {
    let mut text = Vec::new();
    std::io::stdin()
        .take(MAX_SPEC)
        .read_to_end(&mut text)
        .act("keeper cannot read what to keep")?;
    let spec = serde_json::from_slice(&text)
        .map_err(std::io::Error::from)
        .act("keeper cannot read what to keep")?;
    keeper::keep(paths, spec).await?;
    Ok(0)
}
