//! Running a command for the host.

mod cgroup;
mod input;
mod plan;
mod pump;
mod spawn;
pub(crate) mod terminal;

use std::{
    io,
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use agent_protocol::{Channel, Exec, Failure, FailureKind, Reply, TerminalSize};
use rustix::{
    fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl},
    io::{Errno, fcntl_dupfd_cloexec},
    pipe::{PipeFlags, fcntl_setpipe_size, pipe_with},
};

pub use self::cgroup::Cgroups;
pub(crate) use self::cgroup::group_of;
use self::{
    cgroup::Leaf,
    input::Input,
    plan::Plan,
    pump::{Ending, Output, Pump},
    spawn::{Child, Failed, Stdio, Step},
};
use crate::{
    agent::Session,
    failure::{cannot, failure, kind_of, quoted, reason},
    jobs::Slot,
    stream::Stream,
};

/// Room in a command's output pipes: four packets to the host, so that neither waits for the other at
/// every one. The kernel takes the pages only when they fill.
const PIPE_SIZE: usize = 256 * 1024;

pub(crate) fn run(
    root: &Path,
    session: &Session,
    cgroups: Option<&Cgroups>,
    exec: &Exec,
    (stream, slot): (Stream, &Slot),
) {
    let leaf = cgroups.and_then(Cgroups::take);
    let done = match start(root, session, exec, leaf.as_ref()) {
        Err(failed) => Some((stream, Reply::Failed(failed))),
        Ok(running) => {
            slot.running(running.child.pid, leaf.as_ref().map(Leaf::name), running.resized);
            let pump = Pump {
                stream,
                child: running.child,
                started: running.started,
                timeout: exec.timeout_ms.map(Duration::from_millis),
                leaf: leaf.as_ref(),
                input: running.ours.input,
                outputs: running.ours.outputs,
                ending: Ending::No,
                timed_out: false,
            };
            pump.run().map(|(stream, exit)| (stream, Reply::Exited(exit)))
        }
    };
    if let (Some(cgroups), Some(leaf)) = (cgroups, leaf) {
        cgroups.give_back(leaf);
    }
    if let Some((stream, last)) = done {
        stream.finish(&last);
    }
}

struct Running {
    child: Child,
    started: Instant,
    ours: Ours,
    /// Another handle to the terminal, for who resizes it.
    resized: Option<OwnedFd>,
}

/// Our ends of what a command reads and writes.
struct Ours {
    input: Option<Input>,
    outputs: Vec<Output>,
}

fn start(root: &Path, session: &Session, exec: &Exec, leaf: Option<&Leaf>) -> Result<Running, Failure> {
    let plan = Plan::new(root, session, exec)?;
    let owner = plan.identity.as_ref().map(|account| account.uid);
    let connected = match exec.terminal {
        Some(size) => connect_terminal(size, owner, exec.stdin),
        None => connect_pipes(exec.stdin),
    };
    let (theirs, ours) = connected.map_err(|error| cannot("connect", first(exec), &error))?;
    let resized = match ours.outputs.first() {
        Some(output) if output.is_terminal => fcntl_dupfd_cloexec(&output.fd, 0).ok(),
        _ => None,
    };
    let started = Instant::now();
    let child = spawn::spawn(&plan, &theirs, leaf.map(Leaf::directory));
    let child = child.map_err(|failed| explain(exec, &plan, &failed))?;
    Ok(Running {
        child,
        started,
        ours,
        resized,
    })
}

fn connect_pipes(with_input: bool) -> io::Result<(Stdio, Ours)> {
    let (input, our_input) = if with_input {
        let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
        set_nonblocking(&ours)?;
        (theirs, Some(Input::pipe(ours)))
    } else {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        (rustix::fs::open(c"/dev/null", flags, Mode::empty())?, None)
    };
    let (our_output, output) = output_pipe(Channel::Stdout)?;
    let (our_errors, errors) = output_pipe(Channel::Stderr)?;
    let theirs = Stdio {
        input,
        output,
        errors,
        is_terminal: false,
    };
    let ours = Ours {
        input: our_input,
        outputs: vec![our_output, our_errors],
    };
    Ok((theirs, ours))
}

fn output_pipe(channel: Channel) -> io::Result<(Output, OwnedFd)> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    set_nonblocking(&ours)?;
    // Refused beyond an unprivileged user's share; the default does then.
    let _ = fcntl_setpipe_size(&ours, PIPE_SIZE);
    let output = Output {
        fd: ours,
        channel,
        is_terminal: false,
        left: 0,
    };
    Ok((output, theirs))
}

fn connect_terminal(size: TerminalSize, owner: Option<u32>, with_input: bool) -> io::Result<(Stdio, Ours)> {
    let terminal = terminal::open(size, owner)?;
    let our_input = match with_input {
        true => Some(Input::terminal(fcntl_dupfd_cloexec(&terminal.master, 0)?)),
        false => None,
    };
    let theirs = Stdio {
        input: fcntl_dupfd_cloexec(&terminal.slave, 0)?,
        output: fcntl_dupfd_cloexec(&terminal.slave, 0)?,
        errors: terminal.slave,
        is_terminal: true,
    };
    let output = Output {
        fd: terminal.master,
        channel: Channel::Stdout,
        is_terminal: true,
        left: 0,
    };
    let ours = Ours {
        input: our_input,
        outputs: vec![output],
    };
    Ok((theirs, ours))
}

fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    Ok(fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?)
}

fn first(exec: &Exec) -> &[u8] {
    exec.argv.first().map_or(b"", Vec::as_slice)
}

/// What did not work, in the words of who asked for it.
fn explain(exec: &Exec, plan: &Plan, failed: &Failed) -> Failure {
    let error = &failed.error;
    match failed.step {
        Step::Execute => explain_exec(first(exec), error),
        Step::Directory => failure(
            FailureKind::Invalid,
            format!(
                "cannot use working directory {}: {}",
                quoted(plan.cwd.as_bytes()),
                reason(error)
            ),
        ),
        Step::User => {
            let user = exec.user.as_deref().unwrap_or(crate::users::AGENT_NAME);
            cannot("become user", user.as_bytes(), error)
        }
        Step::Terminal => cannot("give a terminal to", first(exec), error),
        Step::Start => cannot("start", first(exec), error),
    }
}

fn explain_exec(command: &[u8], error: &io::Error) -> Failure {
    let name = quoted(command);
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT | Errno::NOTDIR) if command.contains(&b'/') => failure(
            FailureKind::NotFound,
            format!("no command {name}, or not the interpreter it names"),
        ),
        Some(Errno::NOENT | Errno::NOTDIR) => failure(
            FailureKind::NotFound,
            format!("no command {name} in the search path"),
        ),
        Some(Errno::NOEXEC) => failure(
            FailureKind::NotPermitted,
            format!("cannot execute {name}: neither a program nor a script that names its interpreter"),
        ),
        _ => failure(
            kind_of(error),
            format!("cannot execute {name}: {}", reason(error)),
        ),
    }
}
