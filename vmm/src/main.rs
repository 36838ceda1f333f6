//! `coffer-vmm`: one process, one machine.
//!
//! It reads a configuration, boots the machine, says what happens on standard output, answers on its control
//! socket, and ends with the machine.

mod boot;
mod bus;
mod coalesced;
mod console;
mod control;
mod cpu;
mod deadline;
mod exit;
mod layout;
mod machine;
mod memory;
mod msi;
mod pci_bus;
mod report;
mod shares;
mod signals;
mod supervise;
mod vcpus;

use std::{
    env, fs,
    io::{self, Read, Write},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vmm_api::{Event, ExitReason, MachineConfig};

use crate::{
    control::ControlSocket,
    exit::Exit,
    machine::Machine,
    shares::Shares,
    signals::Signals,
    supervise::{Lifeline, Supervisor},
};

const USAGE: &str = "\
usage: coffer-vmm --config FILE
       coffer-vmm --config -     one line on standard input, which stays open while the owner lives
       coffer-vmm --version

Runs one machine. `coffer` starts it; by hand it is of use to whoever works on it.
";

/// Longer than any path can make a configuration.
const MAX_CONFIG: u64 = 256 * 1024;

/// What the machine's end means to who started the process.
const EXIT_FAILED: u8 = 125;
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        // A full disk under the log would otherwise be told by a print that panics, and a guest can cause both.
        .log_internal_errors(false)
        .init();
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--config", path] => match run(path) {
            Ok(reason) => exit_code(&reason),
            Err(error) => {
                report::event(&Event::Failed {
                    why: format!("{error:#}"),
                });
                // The event says it too, and a log that cannot be written must not change the exit code.
                let _ = writeln!(io::stderr(), "coffer-vmm: {error:#}");
                ExitCode::from(EXIT_FAILED)
            }
        },
        ["--version"] => {
            println!("coffer-vmm {}", env!("CARGO_PKG_VERSION"));
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

fn run(path: &str) -> anyhow::Result<ExitReason> {
    let signals = Signals::take().context("cannot take signals")?;
    allow_descriptors();
    leave_untouched_memory_to_the_kernel();
    let (text, lifeline) = match path {
        "-" => (first_line()?, Lifeline::StandardInput),
        path => (
            fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?,
            Lifeline::None,
        ),
    };
    let config = MachineConfig::parse(&text)?;
    let control = ControlSocket::bind(&config.control)
        .with_context(|| format!("cannot make control socket {}", config.control.display()))?;
    // A guest's files in a shared folder have the permissions the guest gave them. What the VMM makes for itself, it
    // makes with permissions of its own, and the control socket, which cannot be, is there already.
    rustix::process::umask(rustix::fs::Mode::empty());
    let exit = Arc::new(Exit::new().context("cannot make an event")?);
    let shares = Shares::new().context("cannot serve folders")?;
    let machine = Machine::start(&config, shares.exports(), &exit)?;
    report::event(&Event::Started {
        pid: std::process::id(),
    });
    let reason = Supervisor::new(machine, shares, exit, signals, control, &lifeline)?.run()?;
    report::event(&Event::Exited {
        reason: reason.clone(),
    });
    Ok(reason)
}

/// A guest may hold a thousand connections, each a descriptor; the usual soft limit would leave none for us.
fn allow_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    // Not being allowed what the hard limit allows is no reason not to start.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    );
}

/// The buffers of network flows are asked for zeroed and mostly never touched. Left to itself the allocator moves its
/// threshold after the first ones are freed, takes the next ones from its heap, and touches them to zero them.
#[allow(unsafe_code, reason = "the allocator's setting has no safe wrapper")]
fn leave_untouched_memory_to_the_kernel() {
    const THRESHOLD: libc::c_int = 128 * 1024;
    // SAFETY: called with numbers only, before there are other threads. Failing changes nothing.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, THRESHOLD) };
}

/// The owner says nothing after the line, so nothing is lost in the reader's buffer; the end of the lifeline is
/// seen at the descriptor itself.
fn first_line() -> anyhow::Result<String> {
    let mut line = Vec::new();
    for byte in std::io::stdin().lock().take(MAX_CONFIG).bytes() {
        match byte.context("cannot read the configuration")? {
            b'\n' => return String::from_utf8(line).context("configuration is not UTF-8"),
            byte => line.push(byte),
        }
    }
    bail!("configuration ends before its line does")
}

fn exit_code(reason: &ExitReason) -> ExitCode {
    match reason {
        ExitReason::PowerOff | ExitReason::Reset | ExitReason::Stopped | ExitReason::OwnerGone => {
            ExitCode::SUCCESS
        }
        ExitReason::TripleFault | ExitReason::KvmError { .. } | ExitReason::DeviceError { .. } => {
            ExitCode::from(EXIT_FAILED)
        }
    }
}
