//! `coffer-egress`: the one process of a session that has sockets to the network. It has no files.

mod descriptors;

use std::{
    env,
    io::{self, BufReader, Write},
    process::ExitCode,
};

use anyhow::Context;
use egress_policy::control::Event;
use egress_proxy::{Events, read_config, read_requests, serve};
use tokio::runtime::Builder;

const USAGE: &str = "\
usage: coffer-egress            the link on descriptor 3; a configuration and requests, a line each, on standard input
       coffer-egress --version

Decides what one machine may reach, and carries it there. `coffer` starts it; by hand it is of use to whoever works
on it.
";

const EXIT_FAILED: u8 = 125;
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => run(),
        ["--version"] => {
            println!("coffer-egress {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        ["--help" | "-h"] => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => {
            eprint!("{USAGE}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn run() -> ExitCode {
    log_to_stderr();
    let events = match Events::write_to(io::stdout()) {
        Ok(events) => events,
        Err(error) => return failed(&error.into()),
    };
    match work(&events) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            events.push(Event::Failed {
                why: format!("{error:#}"),
            });
            events.flush_last();
            failed(&error)
        }
    }
}

fn work(events: &Events) -> anyhow::Result<()> {
    descriptors::allow_all();
    let link = descriptors::link().context("cannot use the link")?;
    let mut input = BufReader::new(io::stdin());
    let config = read_config(&mut input)?;
    let requests = read_requests(input).context("cannot start a thread")?;
    // Descriptors that are ready are looked for after so many steps of tasks, however busy those are.
    let runtime = Builder::new_current_thread()
        .enable_all()
        .event_interval(16)
        .build()
        .context("cannot start")?;
    runtime.block_on(serve(link, config, requests, events.clone()))?;
    Ok(())
}

/// Only what we say ourselves, which is little: what a library says, a guest could make it say.
fn log_to_stderr() {
    tracing_subscriber::fmt()
        .with_env_filter("off,egress_proxy=info,coffer_egress=info")
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_target(false)
        .log_internal_errors(false)
        .init();
}

fn failed(error: &anyhow::Error) -> ExitCode {
    // The event says it too, and a log that cannot be written must not change the exit code.
    let _ = writeln!(io::stderr(), "coffer-egress: {error:#}");
    ExitCode::from(EXIT_FAILED)
}
