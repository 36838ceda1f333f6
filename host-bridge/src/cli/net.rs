//! `coffer net`: what sessions may reach, reached, and tried.

use std::{io, time::Duration};

use clap::{Args, Subcommand};
use egress_policy::{
    Effect, EgressPolicy, Unknown,
    control::{Spent, What},
};

use super::list::age;
use crate::{
    Error, Paths, Result, SessionName, console,
    error::Context,
    keeper::KeeperClient,
    net::{
        Forgotten, NetChange,
        account::{Account, by_text, what},
        forgotten_of,
        journal::{self, Entry, Line, Run},
        publish::Publish,
        rules_of, shown, words,
    },
    output,
    shape::Bytes,
    state::{Record, Table, unix_ms},
};

const STDOUT: &str = "standard output cannot be written";
const RECORDS: &str = "records of the network cannot be read";
/// How often a followed file is looked at.
const INTERVAL: Duration = Duration::from_millis(200);
/// Rows of one table. A guest can ask for any number of names.
const MAX_ROWS: usize = 100;
/// Rules that are suggested.
const MAX_HINTS: usize = 3;

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
    /// Take rules back
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
    if arguments.follow {
        let Some(run) = runs.last() else {
            return Err(nothing_known(name));
        };
        return follow(run, arguments.json).await;
    }
    if arguments.json {
        return print_raw(&runs);
    }
    let name = name.or_else(|| runs.last().map(|run| run.session.clone()));
    let Some(name) = name else {
        return Err(Error::NoNetwork);
    };
    let record = match Table::open(paths)?.find(&name) {
        Ok(entry) => Some(entry.record?),
        // Its records outlive a session.
        Err(Error::UnknownSession { .. }) if !runs.is_empty() => None,
        Err(error) => return Err(error),
    };
    let mut account = Account::default();
    for run in &runs {
        account.next_run();
        let lines = run.lines().context(RECORDS, paths.net())?;
        lines
            .iter()
            .filter_map(|line| journal::parse(line))
            .for_each(|line| account.add(line));
    }
    let running = runs.last().is_some_and(Run::is_live);
    Page {
        name: &name,
        record: record.as_ref(),
        running,
        account,
    }
    .print()
    .act(STDOUT)?;
    Ok(0)
}

fn nothing_known(name: Option<SessionName>) -> Error {
    name.map_or(Error::NoNetwork, |name| Error::NoNetworkOf { name })
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

fn print_raw(runs: &[Run]) -> Result<u8> {
    for run in runs {
        for line in run.lines().act(RECORDS)? {
            raw(&line).act(STDOUT)?;
        }
    }
    Ok(0)
}

/// What is no line of ours is not printed as one.
fn raw(line: &[u8]) -> io::Result<()> {
    match (journal::parse(line), std::str::from_utf8(line)) {
        (Some(_), Ok(line)) => output::line(line),
        _ => Ok(()),
    }
}

async fn follow(run: &Run, json: bool) -> Result<u8> {
    let mut follower = journal::follow(run).act(RECORDS)?;
    loop {
        // Asked before reading, so that the last words of a session are read after its end.
        let more = run.is_live();
        for line in follower.more().act(RECORDS)? {
            match (json, journal::parse(&line)) {
                (true, _) => raw(&line),
                (false, Some(line)) => event(&line).map_or(Ok(()), |text| output::line(&text)),
                (false, None) => Ok(()),
            }
            .act(STDOUT)?;
        }
        if !more {
            return Ok(0);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// One thing that happened, on one line.
fn event(line: &Line) -> Option<String> {
    let (unix_ms, text) = match line {
        Line::Start(start) => (start.started_unix_ms, format!("session {} starts", start.session)),
        Line::Policy(policy) => (policy.unix_ms, policy_line(&policy.policy)),
        Line::Note(note) => (note.unix_ms, console::one_line(&note.note)),
        Line::Entry(entry) => (entry.record.unix_ms, entry_line(entry)?),
    };
    Some(format!("{} {text}", clock(unix_ms)))
}

fn policy_line(policy: &EgressPolicy) -> String {
    let rules: Vec<String> = policy.rules.iter().map(shown).collect();
    match rules.is_empty() {
        true => "rules: none".to_owned(),
        false => format!("rules: {}", rules.join(", ")),
    }
}

fn entry_line(entry: &Entry) -> Option<String> {
    let what = what(&entry.record);
    let mut text = match &entry.record.what {
        What::Named { rule } => format!("named {what} ({})", console::one_line(rule)),
        What::Opened { address, rule, .. } => {
            format!("opened {what} at {address} ({})", console::one_line(rule))
        }
        What::Carried { .. } => return None,
        What::Closed {
            sent, received, end, ..
        } => format!(
            "closed {what}: {}, {} sent, {} received",
            words::end(*end),
            Bytes(*sent),
            Bytes(*received)
        ),
        What::Refused {
            reason,
            address,
            count,
            ..
        } => {
            let at = address.map_or_else(String::new, |address| format!(" at {address}"));
            format!("refused {what}{at}: {}{}", reason.text(), times(*count))
        }
        What::Dropped { reason, count } => format!("dropped {what}: {}{}", reason.text(), times(*count)),
    };
    if let Some(by) = by_text(entry) {
        text.push_str(" by ");
        text.push_str(&by);
    }
    Some(text)
}

fn times(count: u64) -> String {
    match count {
        0 | 1 => String::new(),
        count => format!(", {count} times"),
    }
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

/// All that is known of one session's network.
struct Page<'a> {
    name: &'a SessionName,
    /// None of a session that is no more.
    record: Option<&'a Record>,
    running: bool,
    account: Account,
}

impl Page<'_> {
    fn print(&self) -> io::Result<()> {
        let state = match (self.running, self.record) {
            (true, _) => "running",
            (false, Some(_)) => "stopped",
            (false, None) => "ended",
        };
        output::line(&format!("session {}: {state}", self.name))?;
        let policy = self.record.map(|record| &record.net);
        if let Some(policy) = policy.or(self.account.policy.as_ref()) {
            self.print_policy(policy)?;
        }
        print_published(self.record.map_or(&[], |record| &record.publish))?;
        self.print_reached()?;
        self.print_refused()?;
        for note in &self.account.notes {
            let note_text = console::one_line(&note.note);
            output::line(&format!("note: {} {note_text}", clock(note.unix_ms)))?;
        }
        Ok(())
    }

    fn print_policy(&self, policy: &EgressPolicy) -> io::Result<()> {
        output::line("\nmay reach:")?;
        for line in policy_lines(policy) {
            output::line(&format!("  {line}"))?;
        }
        let spent = self.spent();
        if let Some(max) = policy.max_bytes {
            output::line(&format!("  at most {}; {} used", Bytes(max), Bytes(spent.bytes)))?;
        }
        if let Some(max) = policy.max_connections {
            output::line(&format!(
                "  at most {max} connections; {} used",
                spent.connections
            ))?;
        }
        Ok(())
    }

    /// What is in the record is of former runs while the session runs, and of all when it does not.
    fn spent(&self) -> Spent {
        let recorded = self.record.map_or_else(Spent::default, |record| record.net_spent);
        let counted = self.account.spent();
        Spent {
            bytes: recorded.bytes.max(counted.bytes),
            connections: recorded.connections.max(counted.connections),
        }
    }

    fn print_reached(&self) -> io::Result<()> {
        let mut reached: Vec<_> = self.account.reached.iter().collect();
        if reached.is_empty() {
            return output::line("\nreached: nothing");
        }
        output::line("\nreached:")?;
        reached.sort_by_key(|row| std::cmp::Reverse(row.last_unix_ms));
        let rows: Vec<Vec<String>> = reached
            .iter()
            .take(MAX_ROWS)
            .map(|row| {
                vec![
                    row.what.clone(),
                    row.address.map_or_else(|| "-".to_owned(), |at| at.to_string()),
                    row.connections.to_string(),
                    Bytes(row.sent).to_string(),
                    Bytes(row.received).to_string(),
                    ago(row.last_unix_ms),
                    row.by.clone().unwrap_or_default(),
                ]
            })
            .collect();
        let headings = ["WHAT", "ADDRESS", "TIMES", "SENT", "RECEIVED", "LAST", "BY"];
        output::table(&headings, &rows)?;
        and_more(reached.len())
    }

    fn print_refused(&self) -> io::Result<()> {
        let mut refused: Vec<_> = self.account.refused.iter().collect();
        if refused.is_empty() {
            return Ok(());
        }
        output::line("\ntried, and was refused:")?;
        refused.sort_by_key(|row| std::cmp::Reverse(row.last_unix_ms));
        let rows: Vec<Vec<String>> = refused
            .iter()
            .take(MAX_ROWS)
            .map(|row| {
                let address = row.address.map_or_else(String::new, |at| format!("{at}: "));
                vec![
                    row.what.clone(),
                    row.times.to_string(),
                    format!("{address}{}", row.why),
                    ago(row.last_unix_ms),
                    row.by.clone().unwrap_or_default(),
                ]
            })
            .collect();
        output::table(&["WHAT", "TIMES", "WHY", "LAST", "BY"], &rows)?;
        and_more(refused.len())?;
        let mut hints: Vec<String> = Vec::new();
        for rule in refused.iter().filter_map(|row| row.rule.as_ref()) {
            let hint = match self.record {
                Some(_) => format!("hint: coffer net allow {} {rule}", self.name),
                None => format!("hint: coffer run --allow {rule} …"),
            };
            if hints.len() < MAX_HINTS && !hints.contains(&hint) {
                hints.push(hint);
            }
        }
        hints.iter().try_for_each(|hint| output::line(hint))
    }
}

fn and_more(found: usize) -> io::Result<()> {
    match found.saturating_sub(MAX_ROWS) {
        0 => Ok(()),
        more => output::line(&format!("and {more} more: coffer net --json has all")),
    }
}

/// Says of each port that was chosen for a person which one it is.
pub(super) fn tell_published(published: &[Publish], quiet: bool) {
    let chosen = published.iter().filter(|publish| publish.host == 0 && !quiet);
    chosen.for_each(|publish| output::note(&format!("published: {publish}")));
}

/// Nothing where nothing is published.
pub(super) fn print_published(published: &[Publish]) -> io::Result<()> {
    if published.is_empty() {
        return Ok(());
    }
    output::line("\npublished:")?;
    published
        .iter()
        .try_for_each(|publish| output::line(&format!("  {publish}")))
}

/// The rules, and what becomes of the rest.
pub(super) fn policy_lines(policy: &EgressPolicy) -> Vec<String> {
    let mut lines: Vec<String> = policy
        .rules
        .iter()
        .map(|rule| console::one_line(&shown(rule)))
        .collect();
    lines.push(
        match (policy.unknown, policy.rules.is_empty()) {
            (Unknown::Ask, _) => {
                "what no rule names is asked about, and refused while there is nobody to ask"
            }
            (Unknown::Refuse, true) => "nothing",
            (Unknown::Refuse, false) => "nothing else",
        }
        .to_owned(),
    );
    lines
}

fn ago(at_unix_ms: u64) -> String {
    format!("{} ago", age(unix_ms().saturating_sub(at_unix_ms)))
}
