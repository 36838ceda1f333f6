//! `coffer doctor`, and the trials it runs in processes of their own.

use std::io::Write;

use clap::Args;
use serde_json::json;

use crate::{
    Paths, Result,
    doctor::{Check, Level, Trial, examine, probe},
    error::Context,
    output,
};

/// Say what this host can do, and what to type where it cannot
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only whether guests run here: exit code 0, or 1 and the reason on one line
    #[arg(long)]
    probe: bool,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn doctor(paths: &Paths, arguments: &Arguments) -> Result<u8> {
    let act = "standard output cannot be written";
    if arguments.probe && !arguments.json {
        let check = probe();
        if check.level != Level::Ok {
            output::line(&check.found).act(act)?;
        }
        return Ok(u8::from(check.level != Level::Ok));
    }
    let checks = if arguments.probe {
        vec![probe()]
    } else {
        examine(paths)
    };
    let able = checks.iter().all(|check| check.level != Level::Missing);
    if arguments.json {
        output::json(&json!({ "able": able, "checks": checks })).act(act)?;
    } else {
        checks
            .iter()
            .try_for_each(|check| output::line(&text(check)))
            .act(act)?;
    }
    Ok(u8::from(!able))
}

fn text(check: &Check) -> String {
    let Check {
        what,
        level,
        found,
        hint,
    } = check;
    let line = format!("{:7}  {what:10}  {found}", level.word());
    if hint.is_empty() {
        line
    } else {
        format!("{line}\n{:21}hint: {hint}", "")
    }
}

/// Try one thing and end
#[derive(Debug, Args)]
pub(super) struct TrialArguments {
    what: Trial,
}

/// Runs before there is an event loop or a second thread.
pub(super) fn trial(arguments: &TrialArguments) -> u8 {
    match arguments.what.run() {
        Ok(()) => 0,
        Err(error) => {
            // Read by the doctor, and by nobody else.
            let _ = writeln!(std::io::stderr(), "{error}");
            1
        }
    }
}
