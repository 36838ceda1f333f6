//! A command in the guest, connected to our own standard streams.
//!
//! Two threads carry the bytes and may block as they like; this side waits for the exit, for signals,
//! and for the machine to break under the command.

use std::{
    io,
    time::{Duration, Instant},
};

use agent_protocol::{Exec, Exit, Failure, FailureKind, Reply, Request, Status, StreamId};
use rustix::{
    process::Signal,
    stdio::{stderr, stdin, stdout},
};
use tokio::sync::oneshot;

use crate::{
    Error, Host, Result,
    agent::{Incoming, OperationReader, OperationWriter},
    console,
    error::code,
    output,
    signals::{Arrival, Signals},
    terminal,
};

/// A second Ctrl-C this soon after the first means the sandbox, not the command.
const TWICE: Duration = Duration::from_secs(2);
/// The guest ends a command at its time limit, then kills it. One that does not is ended from here.
const TIMEOUT_BACKSTOP: Duration = Duration::from_secs(15);

/// How a command ended, for the exit code.
#[derive(Debug)]
pub enum Outcome {
    Exited(Exit),
    /// It never ran.
    Failed(Failure),
    /// Nobody reads our standard output any more.
    OutputClosed,
    /// Ended by a signal to us that the command did not heed.
    Interrupted(i32),
    /// The guest did not end it in time.
    Overdue,
}

impl Outcome {
    /// The exit code that tells it, as shells and timeout(1) do.
    pub fn code(&self) -> u8 {
        match self {
            Outcome::Exited(exit) if exit.timed_out => code::TIMED_OUT,
            Outcome::Exited(exit) => status_code(exit.status),
            Outcome::Failed(failure) => match failure.kind {
                FailureKind::NotFound => code::NOT_FOUND,
                FailureKind::NotPermitted => code::NOT_EXECUTABLE,
                FailureKind::Invalid | FailureKind::Exhausted | FailureKind::Busy | FailureKind::Other => {
                    code::OURS
                }
            },
            Outcome::OutputClosed => signal_code(Signal::PIPE.as_raw()),
            Outcome::Interrupted(signal) => signal_code(*signal),
            Outcome::Overdue => code::TIMED_OUT,
        }
    }

    /// The same for a program, as `--json` prints it.
    pub fn report(&self) -> serde_json::Value {
        let mut report = serde_json::json!({ "exit_code": self.code() });
        let more = match self {
            Outcome::Exited(exit) => serde_json::json!({
                "timed_out": exit.timed_out,
                "out_of_memory": exit.out_of_memory,
                "signal": match exit.status { Status::Signal(signal) => Some(signal), Status::Code(_) => None },
                "wall_us": exit.usage.wall_us,
                "user_us": exit.usage.user_us,
                "system_us": exit.usage.system_us,
                "max_rss_kib": exit.usage.max_rss_kib,
            }),
            Outcome::Failed(failure) => {
                serde_json::json!({ "failed": console::safe(failure.message.as_bytes()) })
            }
            Outcome::OutputClosed => serde_json::json!({ "output_closed": true }),
            Outcome::Interrupted(signal) => serde_json::json!({ "interrupted": signal }),
            Outcome::Overdue => serde_json::json!({ "timed_out": true }),
        };
        if let (Some(report), serde_json::Value::Object(mut more)) = (report.as_object_mut(), more) {
            report.append(&mut more);
        }
        report
    }

    /// What a person cannot see from the exit code alone.
    pub fn explain(&self, command: &str) {
        match self {
            Outcome::Failed(failure) => output::error(&Error::Guest {
                what: format!("command did not run: {command}"),
                kind: failure.kind,
                message: console::safe(failure.message.as_bytes()),
            }),
            Outcome::Exited(Exit { timed_out: true, .. }) | Outcome::Overdue => {
                output::note(&format!("command ran longer than --timeout allows: {command}"));
            }
            Outcome::Exited(Exit {
                out_of_memory: true, ..
            }) => {
                output::note(&format!(
                    "the sandbox ran out of memory during: {command}\nhint: a larger --memory"
                ));
            }
            Outcome::Exited(_) | Outcome::OutputClosed | Outcome::Interrupted(_) => {}
        }
    }
}

fn status_code(status: Status) -> u8 {
    match status {
        // An exit code is eight bits; a guest that says more is cut like the kernel cuts it.
        Status::Code(code) => code.to_le_bytes()[0],
        Status::Signal(signal) => signal_code(signal),
    }
}

fn signal_code(signal: i32) -> u8 {
    code::SIGNAL_BASE | (signal.to_le_bytes()[0] & 0x7f)
}

/// Runs `exec` and stays until it ended. With a terminal, ours is raw meanwhile.
pub(crate) async fn run(host: &impl Host, exec: Exec, signals: &mut Signals) -> Result<Outcome> {
    let (stdin, tty) = (exec.stdin, exec.terminal.is_some());
    let limit = exec.timeout_ms.map(Duration::from_millis);
    let operation = match host.start(Request::Exec(exec)).await {
        // The machine under the agent knows why.
        Err(Error::AgentGone) => return Err(host.fate().await),
        operation => operation?,
    };
    let id = operation.id();
    let (reader, writer) = operation.split()?;
    let aborter = writer.aborter()?;
    let raw = if tty { Some(terminal::Raw::enter()?) } else { None };
    let done = spawn_output(reader)?;
    if stdin {
        spawn_input(writer)?;
    }
    let outcome = attend(host, id, done, signals, raw.as_ref(), limit).await;
    drop(raw);
    aborter.abort();
    match outcome? {
        Ended::Outcome(outcome) => Ok(outcome),
        Ended::Broken => Err(host.fate().await),
    }
}

/// What the output thread found at the end of the stream.
enum Ended {
    Outcome(Outcome),
    /// The stream ended with no word of the command.
    Broken,
}

async fn attend(
    host: &impl Host,
    id: StreamId,
    mut done: oneshot::Receiver<Result<Ended>>,
    signals: &mut Signals,
    raw: Option<&terminal::Raw>,
    limit: Option<Duration>,
) -> Result<Ended> {
    let overdue = tokio::time::sleep(limit.unwrap_or(Duration::MAX).saturating_add(TIMEOUT_BACKSTOP));
    tokio::pin!(overdue);
    let mut interrupts = Interrupts::default();
    loop {
        let arrival = tokio::select! {
            ended = &mut done => return ended.unwrap_or(Ok(Ended::Broken)),
            () = &mut overdue => return Ok(Ended::Outcome(Outcome::Overdue)),
            arrival = signals.next() => arrival,
        };
        match arrival {
            Arrival::Forward(signal) if interrupts.again(signal) => {
                return Ok(Ended::Outcome(Outcome::Interrupted(signal)));
            }
            // A link that is gone ends the stream too, and that is waited for above.
            Arrival::Forward(signal) => drop(host.signal(id, signal).await),
            Arrival::Resized if raw.is_some() => drop(host.resize(id, terminal::size()).await),
            Arrival::Continued => {
                if let Some(raw) = raw {
                    raw.enter_again();
                    drop(host.resize(id, terminal::size()).await);
                }
            }
            Arrival::Resized => {}
        }
    }
}

/// Tells the second Ctrl-C, or the second SIGTERM, that comes soon after the first.
#[derive(Debug, Default)]
struct Interrupts {
    last: Option<(i32, Instant)>,
}

impl Interrupts {
    fn again(&mut self, signal: i32) -> bool {
        let ends = [Signal::INT, Signal::TERM].iter().any(|s| s.as_raw() == signal);
        let now = Instant::now();
        let former = self.last.replace((signal, now));
        ends && former.is_some_and(|(last, at)| last == signal && now.duration_since(at) < TWICE)
    }
}

fn spawn_output(mut reader: OperationReader) -> Result<oneshot::Receiver<Result<Ended>>> {
    let (tell, done) = oneshot::channel();
    thread("output", move || {
        let _ = tell.send(pump_output(&mut reader));
    })?;
    Ok(done)
}

fn pump_output(reader: &mut OperationReader) -> Result<Ended> {
    let act = "standard output cannot be written";
    loop {
        let ended = match reader.receive()? {
            None => Ended::Broken,
            Some(Incoming::Stdout(data)) => match output::write_all(stdout(), data) {
                Ok(()) => continue,
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    Ended::Outcome(Outcome::OutputClosed)
                }
                Err(source) => return Err(Error::System { act, source }),
            },
            Some(Incoming::Stderr(data)) => {
                // A reader of errors that went away is no reason to end the command.
                let _ = output::write_all(stderr(), data);
                continue;
            }
            Some(Incoming::Reply(Reply::Started { .. })) => continue,
            Some(Incoming::Reply(Reply::Exited(exit))) => Ended::Outcome(Outcome::Exited(exit)),
            Some(Incoming::Reply(Reply::Failed(failure))) => Ended::Outcome(Outcome::Failed(failure)),
            Some(Incoming::Reply(_)) => {
                return Err(Error::Unexpected {
                    what: "a reply no command gives",
                });
            }
        };
        return Ok(ended);
    }
}

/// This thread may wait for input when the program is done; it ends with the process.
fn spawn_input(mut writer: OperationWriter) -> Result<()> {
    thread("input", move || {
        // The command need not read what we send: it may have ended, and its output says how.
        let _ = writer.send_all(|room| output::read(stdin(), room));
    })
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map(drop).map_err(|source| Error::System {
        act: "thread cannot be started",
        source,
    })
}

#[cfg(test)]
mod tests {
    use agent_protocol::Usage;

    use super::*;

    fn exit(status: Status, timed_out: bool) -> Outcome {
        Outcome::Exited(Exit {
            status,
            timed_out,
            out_of_memory: false,
            usage: Usage::default(),
        })
    }

    #[test]
    fn exit_codes_are_those_shells_use() {
        let failed = |kind| {
            Outcome::Failed(Failure {
                kind,
                message: String::new(),
            })
        };
        for (outcome, code) in [
            (exit(Status::Code(0), false), 0),
            (exit(Status::Code(7), false), 7),
            (exit(Status::Code(-1), false), 255),
            (exit(Status::Code(i32::MIN), false), 0),
            (exit(Status::Signal(9), false), 137),
            (exit(Status::Signal(i32::MAX), false), 255),
            (exit(Status::Signal(15), true), 124),
            (failed(FailureKind::NotFound), 127),
            (failed(FailureKind::NotPermitted), 126),
            (failed(FailureKind::Exhausted), 125),
            (Outcome::OutputClosed, 141),
            (Outcome::Interrupted(2), 130),
        ] {
            assert_eq!(outcome.code(), code, "{outcome:?}");
        }
    }

    #[test]
    fn only_the_second_interrupt_soon_after_the_first_ends_the_session() {
        let mut interrupts = Interrupts::default();
        let (int, hup) = (Signal::INT.as_raw(), Signal::HUP.as_raw());
        assert!(!interrupts.again(int));
        assert!(interrupts.again(int));
        assert!(!interrupts.again(hup));
        assert!(!interrupts.again(hup));
        interrupts.last = Some((int, Instant::now() - TWICE));
        assert!(!interrupts.again(int));
    }
}
