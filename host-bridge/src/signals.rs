//! The signals a person or a supervisor sends us, as a stream of what they mean.

use rustix::process::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use crate::{Result, error::Context};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// For the command: SIGINT, SIGTERM, SIGQUIT, SIGHUP.
    Forward(i32),
    /// The terminal has another size.
    Resized,
    /// We were stopped and go on; the terminal may have other modes now.
    Continued,
}

#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Stream,
    terminate: Stream,
    quit: Stream,
    hang_up: Stream,
    resized: Stream,
    continued: Stream,
}

impl Signals {
    /// From here on these signals no longer end the process by themselves.
    pub(crate) fn catch() -> Result<Self> {
        let catch = |kind| signal(kind).act("signals cannot be caught");
        Ok(Signals {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
            quit: catch(SignalKind::quit())?,
            hang_up: catch(SignalKind::hangup())?,
            resized: catch(SignalKind::window_change())?,
            continued: catch(SignalKind::from_raw(Signal::CONT.as_raw()))?,
        })
    }

    pub(crate) async fn next(&mut self) -> Arrival {
        tokio::select! {
            _ = self.interrupt.recv() => Arrival::Forward(Signal::INT.as_raw()),
            _ = self.terminate.recv() => Arrival::Forward(Signal::TERM.as_raw()),
            _ = self.quit.recv() => Arrival::Forward(Signal::QUIT.as_raw()),
            _ = self.hang_up.recv() => Arrival::Forward(Signal::HUP.as_raw()),
            _ = self.resized.recv() => Arrival::Resized,
            _ = self.continued.recv() => Arrival::Continued,
        }
    }

    /// The next signal that asks us to end.
    pub(crate) async fn next_ending(&mut self) -> i32 {
        loop {
            if let Arrival::Forward(signal) = self.next().await {
                return signal;
            }
        }
    }
}
