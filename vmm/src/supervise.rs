//! The main thread once the machine runs: it waits for whatever ends or changes it.

use std::{
    collections::HashMap,
    error::Error,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{buffer::spare_capacity, event::epoll};
use vmm_api::{Event, ExitReason, Request, Response};

use crate::{
    control::{Connection, ControlSocket},
    exit::Exit,
    machine::Machine,
    report,
    shares::{ShareError, Shares},
    signals::Signals,
};

/// How long a guest has to shut down after SIGTERM before the machine ends anyway.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(10);

const EXIT: u64 = 0;
const SIGNALS: u64 = 1;
const LIFELINE: u64 = 2;
const CONTROL: u64 = 3;
/// Connections count from here and no number is used twice.
const FIRST_CONNECTION: u64 = 4;

const BATCH: usize = 16;

/// Whose end is the machine's end.
#[derive(Debug)]
pub(crate) enum Lifeline {
    /// The owner holds the other end of standard input.
    StandardInput,
    /// The machine was started by hand.
    None,
}

pub(crate) struct Supervisor {
    machine: Machine,
    shares: Shares,
    exit: Arc<Exit>,
    signals: Signals,
    control: ControlSocket,
    connections: HashMap<u64, Connection>,
    next: u64,
    epoll: OwnedFd,
    deadline: Option<Instant>,
}

impl Supervisor {
    pub(crate) fn new(
        machine: Machine,
        shares: Shares,
        exit: Arc<Exit>,
        signals: Signals,
        control: ControlSocket,
        lifeline: &Lifeline,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        watch(&epoll, control.as_fd(), CONTROL)?;
        watch(&epoll, signals.as_fd(), SIGNALS)?;
        watch(&epoll, exit.as_fd(), EXIT)?;
        if matches!(lifeline, Lifeline::StandardInput) {
            watch(&epoll, rustix::stdio::stdin(), LIFELINE)?;
        }
        let connections = HashMap::new();
        Ok(Supervisor {
            machine,
            shares,
            exit,
            signals,
            control,
            connections,
            next: FIRST_CONNECTION,
            epoll,
            deadline: None,
        })
    }

    /// Until there is a reason to end. The machine is taken apart before this returns.
    pub(crate) fn run(mut self) -> io::Result<ExitReason> {
        let mut events = Vec::with_capacity(BATCH);
        let reason = loop {
            if let Some(reason) = self.exit.reason() {
                break reason;
            }
            let timeout = self
                .deadline
                .map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if timeout == Some(Duration::ZERO) {
                break ExitReason::Stopped;
            }
            events.clear();
            let timeout = timeout.map(|left| rustix::time::Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: left.subsec_nanos().into(),
            });
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                self.handle(event.data.u64())?;
            }
        };
        self.machine.stop();
        Ok(reason)
    }

    fn handle(&mut self, token: u64) -> io::Result<()> {
        match token {
            EXIT => {}
            SIGNALS => self.terminate(),
            LIFELINE => self.look_after_owner(),
            CONTROL => self.accept()?,
            connection => self.serve(connection),
        }
        Ok(())
    }

    /// The first time the guest is given a while, the second time not.
    fn terminate(&mut self) {
        if !self.signals.came() {
            return;
        }
        if self.deadline.is_some() {
            return self.exit.because(ExitReason::Stopped);
        }
        self.machine.resume();
        self.deadline = Some(Instant::now() + SHUTDOWN_DEADLINE);
        report::event(&Event::ShutdownRequested {
            deadline_ms: SHUTDOWN_DEADLINE.as_millis() as u64,
        });
    }

    /// The owner has nothing to say after the configuration: what it says is dropped, and only its end counts.
    fn look_after_owner(&self) {
        let mut byte = [0; 64];
        if !rustix::io::read(rustix::stdio::stdin(), &mut byte).is_ok_and(|n| n > 0) {
            self.exit.because(ExitReason::OwnerGone);
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        if let Some(connection) = self.control.accept(self.connections.len()) {
            watch(&self.epoll, connection.as_fd(), self.next)?;
            self.connections.insert(self.next, connection);
            self.next += 1;
        }
        Ok(())
    }

    fn serve(&mut self, token: u64) {
        let Some(mut connection) = self.connections.remove(&token) else {
            return;
        };
        if connection.serve(|request, descriptor| self.answer(request, descriptor)) {
            self.connections.insert(token, connection);
        }
    }

    fn answer(&mut self, request: Request, descriptor: Option<OwnedFd>) -> Response {
        match request {
            Request::Status => Response::Status {
                state: self.machine.state(),
                statistics: self.machine.statistics(),
            },
            Request::Pause if self.machine.pause() => Response::Done,
            Request::Pause => Response::Refused {
                why: "a virtual CPU does not answer".into(),
            },
            Request::Resume => {
                self.machine.resume();
                Response::Done
            }
            Request::Balloon { mib } => {
                self.machine.set_balloon(mib);
                Response::Done
            }
            Request::ShareAdd { share } => done(self.shares.add(&share, descriptor)),
            Request::ShareRemove { name } => done(self.shares.remove(&name)),
            Request::Shares => match self.shares.status() {
                Ok(shares) => Response::Shares { shares },
                Err(error) => refused(&error),
            },
            Request::NetLink => match descriptor.map(|link| self.machine.link(link)) {
                Some(true) => Response::Done,
                Some(false) => Response::Refused {
                    why: "this machine has no network card".into(),
                },
                None => Response::Refused {
                    why: "no descriptor came with the request".into(),
                },
            },
            Request::Stop => {
                self.exit.because(ExitReason::Stopped);
                Response::Done
            }
        }
    }
}

fn done(result: Result<(), ShareError>) -> Response {
    match result {
        Ok(()) => Response::Done,
        Err(error) => refused(&error),
    }
}

/// With all its causes, in one line.
fn refused(error: &ShareError) -> Response {
    let mut why = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        why = format!("{why}: {deeper}");
        cause = deeper.source();
    }
    Response::Refused { why }
}

fn watch(epoll: &OwnedFd, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
    Ok(epoll::add(
        epoll,
        fd,
        epoll::EventData::new_u64(token),
        epoll::EventFlags::IN,
    )?)
}
