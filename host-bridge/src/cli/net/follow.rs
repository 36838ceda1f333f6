//! What happened, line by line: as it happens, or as the records have it.

use std::{io, time::Duration};

use egress_policy::{EgressPolicy, control::What};

use super::{RECORDS, STDOUT, clock};
use crate::{
    Result, console,
    error::Context,
    net::{
        account::what,
        journal::{self, Entry, Line, Run, total::Subject},
        shown, words,
    },
    output,
    shape::Bytes,
};

/// How often a followed file is looked at.
const INTERVAL: Duration = Duration::from_millis(200);

/// Until the session ends.
pub(super) async fn follow(run: &Run, json: bool) -> Result<()> {
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
            return Ok(());
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

pub(super) fn print_raw(runs: &[Run]) -> Result<()> {
    for run in runs {
        for line in run.lines().act(RECORDS)? {
            raw(&line).act(STDOUT)?;
        }
    }
    Ok(())
}

/// What is no line of ours is not printed as one.
fn raw(line: &[u8]) -> io::Result<()> {
    match (journal::parse(line), std::str::from_utf8(line)) {
        (Some(_), Ok(line)) => output::line(line),
        _ => Ok(()),
    }
}

/// One thing that happened, on one line.
fn event(line: &Line) -> Option<String> {
    let (unix_ms, text) = match line {
        Line::Start(start) => (start.started_unix_ms, format!("session {} starts", start.session)),
        Line::Policy(policy) => (policy.unix_ms, policy_line(&policy.policy)),
        Line::Note(note) => (note.unix_ms, console::one_line(&note.note)),
        Line::Entry(entry) => (entry.record.unix_ms, entry_line(entry)?),
        // The page has them.
        Line::Total(_) => return None,
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
    let what = what(&Subject::of(&entry.record));
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
            rule,
            address,
            count,
        } => {
            let at = address.map_or_else(String::new, |address| format!(" at {address}"));
            let why = words::why(reason.text(), words::denying(*reason, rule.as_deref(), *address));
            format!("refused {what}{at}: {why}{}", times(*count))
        }
        What::Dropped { reason, count } => format!("dropped {what}: {}{}", reason.text(), times(*count)),
    };
    if let Some(by) = &entry.by {
        text.push_str(" by ");
        text.push_str(&by.text());
    }
    Some(text)
}

fn times(count: u64) -> String {
    match count {
        0 | 1 => String::new(),
        count => format!(", {count} times"),
    }
}
