//! `coffer net`: what sessions may reach, reached, and tried.

mod follow;
mod page;

use clap::{Args, Subcommand};
use egress_policy::Effect;

pub(super) use self::page::{policy_lines, print_published};
use self::{
    follow::{follow, print_raw},
    page::Page,
};
use crate::{
    Error, Paths, Result, SessionName, console,
    error::Context,
    keeper::KeeperClient,
    net::{
        Forgotten, NetChange,
        account::Account,
        forgotten_of,
        journal::{self, Run},
        publish::Publish,
        rules_of,
    },
    output,
    state::{Record, Table},
};

const STDOUT: &str = "standard output cannot be written";
const RECORDS: &str = "records of the network cannot be read";

/// Show what a session may reach, reached and tried, or change what it may
///
/// Without NAME it is the session that started last, also one that has ended. For a session called allow, deny or
/// forget: coffer net -- NAME
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<NetCommand>,
    /// Name of the session
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Print each thing that happens, until the session ends
    #[arg(long, short)]
    follow: bool,
    /// Print the records themselves, a line of JSON each
    #[arg(long)]
    json: bool,
    /// All that is remembered, not only of the last time the session ran
    #[arg(long, conflicts_with = "follow")]
    all: bool,
}

#[derive(Debug, Subcommand)]
enum NetCommand {
    /// Let a session reach more, from its next connection on
    Allow(ChangeArguments),
    /// Refuse a session something; connections it has there are cut
    Deny(ChangeArguments),
    /// Take rules back; connections that nothing else allows are cut
    Forget(ChangeArguments),
}

#[derive(Debug, Args)]
struct ChangeArguments {
    /// Name of the session
    #[arg(value_name = "NAME")]
    name: String,
    /// example.com, *.example.com, 192.0.2.0/24, each with :PORT or :FIRST-LAST or without, or @SET
    #[arg(value_name = "RULE", required = true)]
    rules: Vec<String>,
}

pub(super) async fn net(paths: &Paths, arguments: Arguments) -> Result<u8> {
    match &arguments.command {
        Some(NetCommand::Allow(change)) => add(paths, "allow", Effect::Allow, change).await,
        Some(NetCommand::Deny(change)) => add(paths, "deny", Effect::Deny, change).await,
        Some(NetCommand::Forget(change)) => forget(paths, change).await,
        None => show(paths, &arguments).await,
    }
}

async fn add(paths: &Paths, word: &'static str, effect: Effect, asked: &ChangeArguments) -> Result<u8> {
    let mut rules = Vec::new();
    for text in &asked.rules {
        let set = rules_of(&paths.sets(), word, effect, text)?;
        set.notes.iter().for_each(|note| output::note(note));
        let set_env = set
            .env
            .iter()
            .map(|(key, value)| format!("{text}: commands need --env {key}={value}"));
        set_env.for_each(|note| output::note(&console::one_line(&note)));
        rules.extend(set.rules);
    }
    change(paths, &asked.name, NetChange::Add(rules)).await
}

async fn forget(paths: &Paths, asked: &ChangeArguments) -> Result<u8> {
    let gone = asked.rules.iter().map(|text| forgotten_of("forget", text));
    let gone: Vec<Forgotten> = gone.collect::<Result<_>>()?;
    change(paths, &asked.name, NetChange::Forget(gone)).await
}

async fn change(paths: &Paths, name: &str, change: NetChange) -> Result<u8> {
    let name: SessionName = name.parse()?;
    if !change_stopped(paths, &name, &change)? {
        KeeperClient::connect(paths, &name)
            .await?
            .net_change(change)
            .await?;
    }
    Ok(0)
}

/// A session that does not run has its rules in its record only. False when it runs.
fn change_stopped(paths: &Paths, name: &SessionName, change: &NetChange) -> Result<bool> {
    let table = Table::open(paths)?;
    let entry = table.find(name)?;
    if entry.alive {
        return Ok(false);
    }
    let owner = table.take(name)?;
    let mut record = entry.record?;
    record.net = change.applied(&record.net)?;
    record.write(owner.path())?;
    Ok(true)
}

async fn show(paths: &Paths, arguments: &Arguments) -> Result<u8> {
    let name: Option<SessionName> = arguments.name.as_deref().map(str::parse).transpose()?;
    let runs = runs(paths, name.as_ref(), arguments.all)?;
    let name = name.or_else(|| runs.last().map(|run| run.session.clone()));
    let name = name.ok_or(Error::NoNetwork)?;
    let entry = match Table::open(paths)?.find(&name) {
        // Its records outlive a session.
        Err(Error::UnknownSession { .. }) if !runs.is_empty() => None,
        entry => Some(entry?),
    };
    match (arguments.follow, runs.last()) {
        (true, Some(run)) => follow(run, arguments.json).await?,
        (true, None) => return Err(Error::NoNetworkOf { name }),
        (false, _) if arguments.json => print_raw(&runs)?,
        (false, _) => {
            let record = entry.map(|entry| entry.record).transpose()?;
            print_page(paths, &name, record.as_ref(), &runs)?;
        }
    }
    Ok(0)
}

fn print_page(paths: &Paths, name: &SessionName, record: Option<&Record>, runs: &[Run]) -> Result<()> {
    let mut account = Account::default();
    for run in runs {
        account.next_run();
        let lines = run.lines().context(RECORDS, paths.net())?;
        lines
            .iter()
            .filter_map(|line| journal::parse(line))
            .for_each(|line| account.add(&line));
    }
    let page = Page {
        name,
        record,
        running: runs.last().is_some_and(Run::is_live),
        account,
    };
    page.print().act(STDOUT)
}

/// The latest run of the session that is meant, or with `all` each that is remembered, the oldest first.
fn runs(paths: &Paths, name: Option<&SessionName>, all: bool) -> Result<Vec<Run>> {
    let directory = paths.net();
    let latest = journal::run_of(&directory, name).context(RECORDS, &directory)?;
    if !all {
        return Ok(latest.into_iter().collect());
    }
    let name = name.cloned().or(latest.map(|run| run.session));
    let mut runs = journal::runs(&directory).context(RECORDS, &directory)?;
    runs.retain(|run| Some(&run.session) == name.as_ref());
    runs.sort_by_key(|run| run.started_unix_ms);
    Ok(runs)
}

/// Says of each port that was chosen for a person which one it is.
pub(super) fn tell_published(published: &[Publish], quiet: bool) {
    let chosen = published.iter().filter(|publish| publish.host == 0 && !quiet);
    chosen.for_each(|publish| output::note(&format!("published: {publish}")));
}

/// Of the day, in UTC.
fn clock(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000 % 86_400;
    format!(
        "{:02}:{:02}:{:02}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}
