//! `coffer run`: a fresh sandbox, one command, its output and exit code, and the sandbox is gone.

use std::path::PathBuf;

use clap::Args;
use egress_policy::{EgressPolicy, Reason};

use super::machine::{CommandArguments, FolderArguments, MachineArguments, NetArguments};
use crate::{
    Error, Paths, Result, Session, SessionName, command, console,
    net::{Refusal, account::place, words::a_rule_helps},
    output,
    progress::watched,
    signals::Signals,
    state::{Table, outputs_of},
};

/// More than this is for `coffer net`.
const MAX_REFUSED_TOLD: usize = 3;

/// Run a command in a fresh sandbox
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of the session [default: one is made up]
    #[arg(long)]
    name: Option<String>,
    /// Keep the session's disk and logs; `coffer up NAME` starts it again
    #[arg(long)]
    keep: bool,
    /// Say nothing but what the command says
    #[arg(long, short)]
    quiet: bool,
    /// After the command, print how it ended as JSON on standard error
    #[arg(long)]
    json: bool,
    #[command(flatten, next_help_heading = "Folders")]
    folders: FolderArguments,
    #[command(flatten, next_help_heading = "Network")]
    net: NetArguments,
    #[command(flatten, next_help_heading = "Machine")]
    machine: MachineArguments,
    #[command(flatten, next_help_heading = "Command")]
    command: CommandArguments,
}

pub(super) async fn run(paths: &Paths, arguments: Arguments) -> Result<u8> {
    let exec = arguments.command.exec()?;
    let name: Option<SessionName> = arguments.name.as_deref().map(str::parse).transpose()?;
    let folders = arguments.folders.settle(paths, Vec::new(), arguments.quiet)?;
    let (policy, env) = arguments
        .net
        .settle(paths, &EgressPolicy::default(), arguments.quiet)?;
    let publish = arguments.net.publish(Vec::new(), arguments.quiet)?;
    let mut plan = arguments.machine.plan(paths, env, folders, policy)?;
    plan.publish = publish;
    let mut signals = Signals::catch()?;
    let directory = Table::open(paths)?.create(name)?;
    let starting = Session::start(directory, plan, true);
    let mut session = tokio::select! {
        started = watched("starting sandbox", arguments.quiet, starting) => started?,
        // The half-started machine and all its files go with the future that was starting them.
        signal = signals.next_ending() => return Err(Error::Interrupted { signal }),
    };
    super::net::tell_published(&session.published(), arguments.quiet || arguments.json);
    let outcome = command::run(&session, exec, &mut signals).await;
    let (outputs, refused) = finish(&mut session, &arguments).await;
    let outcome = outcome?;
    let shown = super::shown(&arguments.command.command);
    if arguments.json {
        let mut report = outcome.report();
        report["outputs"] = serde_json::json!(outputs);
        output::note_json(&report);
    } else {
        outcome.explain(&shown);
        if outcome.code() != 0 && !arguments.quiet {
            tell_refused(&refused);
        }
    }
    Ok(outcome.code())
}

/// Ends the machine. Says, also to a person, where what the command left in its outputs is.
async fn finish(session: &mut Session, arguments: &Arguments) -> (Option<PathBuf>, Vec<Refusal>) {
    let silent = arguments.quiet || arguments.json;
    if !arguments.keep {
        session.kill().await;
        let refused = session.end_network().await;
        let kept = session.directory().keep_outputs();
        // They are tried again when the session is removed, and after that at the next start.
        let kept = kept.inspect_err(output::error).ok().flatten();
        if let Some(path) = kept.as_ref().filter(|_| !silent) {
            let path = console::one_line(&path.display().to_string());
            output::note(&format!("outputs kept: {path}"));
        }
        return (kept, refused);
    }
    session.keep();
    session.shut_down(crate::session::STOP_GRACE).await;
    let refused = session.end_network().await;
    session.record_end("its command ended");
    if !arguments.quiet {
        let name = session.directory().name();
        output::note(&format!(
            "session kept: {name}\nhint: coffer up {name} starts it again, coffer rm {name} removes it"
        ));
    }
    let outputs = outputs_of(session.directory().path());
    let left = std::fs::read_dir(&outputs).is_ok_and(|mut entries| entries.next().is_some());
    (left.then_some(outputs), refused)
}

/// A command that failed may have failed for this.
fn tell_refused(refused: &[Refusal]) {
    for refusal in refused.iter().take(MAX_REFUSED_TOLD) {
        let place = console::one_line(&place(&refusal.target, refusal.port));
        let why = refusal.reason.text();
        // A rule for it would not change what a deny rule says of the same.
        let hint = match refusal.reason {
            Reason::Denied => String::new(),
            reason if a_rule_helps(reason) => format!("; --allow {place} lets it"),
            _ => String::new(),
        };
        output::note(&format!("network: {place} refused ({why}){hint}"));
    }
    if let more @ 1.. = refused.len().saturating_sub(MAX_REFUSED_TOLD) {
        output::note(&format!("network: and {more} more: coffer net"));
    }
}
