//! What was typed, and what it means: each command's file has both, in that order.

mod copy;
mod doctor;
mod exec;
mod image;
mod list;
mod logs;
mod machine;
mod net;
mod run;
mod share;
mod stop;
mod up;

use std::{ffi::OsStr, io, process::ExitCode};

use clap::{Parser, Subcommand, error::ErrorKind};

use crate::{Error, Paths, Result, error::code, output};

/// A Linux machine of its own for every agent session.
#[derive(Debug, Parser)]
#[command(
    name = "coffer",
    version,
    disable_help_subcommand = true,
    max_term_width = 110
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Arguments),
    Up(up::Arguments),
    Exec(exec::ExecArguments),
    Shell(exec::ShellArguments),
    Cp(copy::Arguments),
    Share(share::Arguments),
    Net(net::Arguments),
    Ls(list::ListArguments),
    Inspect(list::InspectArguments),
    Logs(list::LogsArguments),
    Stop(stop::StopArguments),
    Rm(stop::RemoveArguments),
    Image(image::Arguments),
    Doctor(doctor::Arguments),
    #[command(hide = true)]
    Probe(doctor::TrialArguments),
    /// Own a session; started by `coffer up`
    #[command(hide = true)]
    Keep,
}

pub fn main() -> ExitCode {
    crate::process::keep_descriptors_to_ourselves();
    crate::process::raise_descriptor_limit();
    let code = match Arguments::try_parse() {
        Ok(Arguments {
            command: Command::Probe(trial),
        }) => doctor::trial(&trial),
        Ok(arguments) => start(arguments.command),
        Err(error) => usage(&error),
    };
    ExitCode::from(code)
}

fn start(command: Command) -> u8 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(dispatch(command)),
        Err(source) => Err(Error::System {
            act: "event loop cannot be made",
            source,
        }),
    };
    match done {
        Ok(code) => code,
        // Whoever read our output has what they wanted.
        Err(Error::System { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {
            code::SIGNAL_BASE + rustix::process::Signal::PIPE.as_raw().to_le_bytes()[0]
        }
        Err(error) => {
            output::error(&error);
            error.code()
        }
    }
}

async fn dispatch(command: Command) -> Result<u8> {
    let paths = Paths::from_environment()?;
    match command {
        Command::Run(arguments) => run::run(&paths, arguments).await,
        Command::Up(arguments) => up::up(&paths, arguments).await,
        Command::Exec(arguments) => exec::exec(&paths, arguments).await,
        Command::Shell(arguments) => exec::shell(&paths, arguments).await,
        Command::Share(arguments) => share::share(&paths, arguments).await,
        Command::Net(arguments) => net::net(&paths, arguments).await,
        Command::Cp(arguments) => copy::copy(&paths, arguments).await,
        Command::Ls(arguments) => list::list(&paths, &arguments),
        Command::Inspect(arguments) => list::inspect(&paths, &arguments).await,
        Command::Logs(arguments) => list::logs(&paths, &arguments).await,
        Command::Stop(arguments) => stop::stop(&paths, &arguments).await,
        Command::Rm(arguments) => stop::remove(&paths, &arguments),
        Command::Image(arguments) => image::image(&paths, arguments),
        Command::Doctor(arguments) => doctor::doctor(&paths, &arguments),
        Command::Probe(arguments) => Ok(doctor::trial(&arguments)),
        Command::Keep => up::keep(&paths).await,
    }
}

/// clap's own errors, said the way ours are.
fn usage(error: &clap::Error) -> u8 {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A reader that went away has read enough.
        let _ = error.print();
        return 0;
    }
    let text = error.render().to_string();
    let said: Vec<&str> = text
        .trim_start_matches("error: ")
        .split("\n\n")
        .next()
        .unwrap_or_default()
        .lines()
        .collect();
    let said: Vec<&str> = said.iter().map(|line| line.trim()).collect();
    let usage = text.lines().find_map(|line| line.strip_prefix("Usage: "));
    let hint = usage.unwrap_or("coffer --help").to_owned();
    let error = Error::Usage {
        what: said.join(" ").trim_end_matches('.').to_owned(),
        hint,
    };
    output::error(&error);
    error.code()
}

/// Words of a command as a person would recognise them in a message.
fn shown(words: &[impl AsRef<OsStr>]) -> String {
    const MAX_SHOWN: usize = 80;
    let words: Vec<_> = words.iter().map(|word| word.as_ref().to_string_lossy()).collect();
    let line = words.join(" ");
    match line.char_indices().nth(MAX_SHOWN) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
