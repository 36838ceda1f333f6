//! What is known of one session's network, on a page: what it may reach, reached, and tried.

use std::io;

use egress_policy::{EgressPolicy, Unknown, control::Spent};

use super::clock;
use crate::{
    SessionName,
    cli::list::age,
    console,
    net::{
        account::{Account, helping_rule, what},
        journal::{
            By,
            total::{Others, Reached, Refused},
        },
        publish::Publish,
        shown, words,
    },
    output,
    shape::Bytes,
    state::{Record, unix_ms},
};

/// Rows of one table. A guest can ask for any number of names.
const MAX_ROWS: usize = 100;
/// Rules that are suggested.
const MAX_HINTS: usize = 3;
/// What the records have no longer one by one.
const OTHERS: &str = "(others)";

/// All that is known of one session's network.
pub(super) struct Page<'a> {
    pub(super) name: &'a SessionName,
    /// None of a session that is no more.
    pub(super) record: Option<&'a Record>,
    pub(super) running: bool,
    pub(super) account: Account,
}

impl Page<'_> {
    pub(super) fn print(&self) -> io::Result<()> {
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

    /// The record is written when a run ends, the network's records while it runs; where either is lost the other has it.
    fn spent(&self) -> Spent {
        let recorded = self.record.map_or_else(Spent::default, |record| record.net_spent);
        let counted = self.account.spent();
        Spent {
            bytes: recorded.bytes.max(counted.bytes),
            connections: recorded.connections.max(counted.connections),
        }
    }

    fn print_reached(&self) -> io::Result<()> {
        let mut reached: Vec<&Reached> = self.account.reached().iter().collect();
        let others = self.account.others();
        if reached.is_empty() && others.connections == 0 {
            return output::line("\nreached: nothing");
        }
        output::line("\nreached:")?;
        // However many there are, what carried most is shown.
        let found = reached.len();
        reached.sort_by_key(|row| std::cmp::Reverse(row.sent.saturating_add(row.received)));
        reached.truncate(MAX_ROWS);
        reached.sort_by_key(|row| std::cmp::Reverse(row.unix_ms));
        let others = Some(others).filter(|others| others.connections > 0);
        let rows = reached.into_iter().map(reached_cells);
        let rows: Vec<_> = rows.chain(others.map(other_reached_cells)).collect();
        let headings = ["WHAT", "ADDRESS", "TIMES", "SENT", "RECEIVED", "LAST", "BY"];
        output::table(&headings, &rows)?;
        and_more(found, ", which carried less")
    }

    fn print_refused(&self) -> io::Result<()> {
        let mut refused: Vec<&Refused> = self.account.refused().iter().collect();
        let others = Some(self.account.others()).filter(|others| others.refused > 0);
        if refused.is_empty() && others.is_none() {
            return Ok(());
        }
        output::line("\ntried, and was refused:")?;
        refused.sort_by_key(|row| std::cmp::Reverse(row.unix_ms));
        let rows = refused.iter().take(MAX_ROWS).map(|row| refused_cells(row));
        let rows: Vec<_> = rows.chain(others.map(other_refused_cells)).collect();
        output::table(&["WHAT", "TIMES", "WHY", "LAST", "BY"], &rows)?;
        and_more(refused.len(), "")?;
        self.print_hints(&refused)
    }

    fn print_hints(&self, refused: &[&Refused]) -> io::Result<()> {
        let mut hints: Vec<String> = Vec::new();
        for rule in refused.iter().filter_map(|row| helping_rule(row)) {
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

fn reached_cells(row: &Reached) -> Vec<String> {
    vec![
        what(&row.subject),
        row.address.map_or_else(|| "-".to_owned(), |at| at.to_string()),
        row.connections.to_string(),
        Bytes(row.sent).to_string(),
        Bytes(row.received).to_string(),
        ago(row.unix_ms),
        row.by.as_ref().map(By::text).unwrap_or_default(),
    ]
}

fn other_reached_cells(others: &Others) -> Vec<String> {
    vec![
        OTHERS.to_owned(),
        "-".to_owned(),
        others.connections.to_string(),
        Bytes(others.sent).to_string(),
        Bytes(others.received).to_string(),
        ago(others.unix_ms),
    ]
}

fn refused_cells(row: &Refused) -> Vec<String> {
    let address = row.address.map_or_else(String::new, |at| format!("{at}: "));
    let why = words::why(row.why.text(), row.rule.as_deref());
    vec![
        what(&row.subject),
        row.count.to_string(),
        format!("{address}{why}"),
        ago(row.unix_ms),
        row.by.as_ref().map(By::text).unwrap_or_default(),
    ]
}

fn other_refused_cells(others: &Others) -> Vec<String> {
    vec![
        OTHERS.to_owned(),
        others.refused.to_string(),
        "for more reasons than are kept apart".to_owned(),
        ago(others.unix_ms),
    ]
}

fn and_more(found: usize, which: &str) -> io::Result<()> {
    match found.saturating_sub(MAX_ROWS) {
        0 => Ok(()),
        more => output::line(&format!("and {more} more{which}: coffer net --json has all")),
    }
}

/// Nothing where nothing is published.
pub(in crate::cli) fn print_published(published: &[Publish]) -> io::Result<()> {
    if published.is_empty() {
        return Ok(());
    }
    output::line("\npublished:")?;
    published
        .iter()
        .try_for_each(|publish| output::line(&format!("  {publish}")))
}

/// The rules, and what becomes of the rest.
pub(in crate::cli) fn policy_lines(policy: &EgressPolicy) -> Vec<String> {
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
