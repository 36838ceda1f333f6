//! The life of one running command: its pipes, its connection, its end.
//!
//! One loop over `poll`, in which nothing blocks: a host that does not read its output, or a command that
//! does not read its input, stops that direction alone and never the clock or the end.
//!
//! ```text
//! running ──timeout──▶ asked to end (SIGTERM) ──grace──▶ killed ──┐
//!    │ ────host gone─▶ asked to end (SIGHUP too) ──grace─▶ killed ─┤
//!    └──────────────── main process ends ◀─────────────────────────┘
//!                        │  what is in the pipes now still goes out; whoever else holds
//!                        ▼  them open is not waited for
//!                      Exited
//! ```

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use agent_protocol::{Channel, Exit, Reply};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::{Errno, ioctl_fionread},
};

use super::{cgroup::Leaf, input::Input, spawn::Child};
use crate::{
    jobs, log,
    reap::{self, Ended},
    stream::{Piece, Stream, timespec},
};

/// Between asking a command to end and killing it: enough to remove a lock file, not to finish the work.
const GRACE: Duration = Duration::from_secs(2);

/// Output of a terminal read after its command ended. The kernel holds less than this for one; a
/// daemon that goes on writing does not keep the command's end from being told.
const TERMINAL_REST: usize = 256 * 1024;

pub(super) struct Pump<'a> {
    pub(super) stream: Stream,
    pub(super) child: Child,
    pub(super) started: Instant,
    pub(super) timeout: Option<Duration>,
    pub(super) leaf: Option<&'a Leaf>,
    /// `None`: not asked for, or closed. Frames that still come are dropped.
    pub(super) input: Option<Input>,
    pub(super) outputs: Vec<Output>,
    pub(super) ending: Ending,
    pub(super) timed_out: bool,
}

pub(super) struct Output {
    pub(super) fd: OwnedFd,
    pub(super) channel: Channel,
    pub(super) is_terminal: bool,
    /// How much may still be read, once the command has ended.
    pub(super) left: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    No,
    Asked { kill_at: Instant },
    Killed,
}

struct Ready {
    stream: PollFlags,
    ended: bool,
}

/// The connection is of no more use.
struct HostGone;

impl Pump<'_> {
    /// Returns when the command has ended; with the stream, unless the host has gone before.
    pub(super) fn run(mut self) -> Option<(Stream, Exit)> {
        let mut host_here = self.serve_until_end();
        if host_here.is_err() {
            self.hang_up();
        }
        let ended = self.wait_for_end()?;
        let wall = self.started.elapsed();
        if self.ending != Ending::No {
            // Its main process has had its grace; what it left running has no one to answer to.
            self.kill_all();
        }
        if host_here.is_ok() {
            host_here = self.send_rest();
        }
        let mut usage = ended.usage;
        usage.wall_us = u64::try_from(wall.as_micros()).unwrap_or(u64::MAX);
        let exit = Exit {
            status: ended.status,
            timed_out: self.timed_out,
            out_of_memory: self.leaf.is_some_and(Leaf::ran_out_of_memory),
            usage,
        };
        host_here.is_ok().then_some((self.stream, exit))
    }

    fn serve_until_end(&mut self) -> Result<(), HostGone> {
        let pid = u32::try_from(self.child.pid).unwrap_or_default();
        self.stream.queue(&Reply::Started { pid }).map_err(|_| HostGone)?;
        self.stream.try_flush().map_err(|_| HostGone)?;
        loop {
            let ready = self.wait()?;
            if ready
                .stream
                .intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
            {
                return Err(HostGone);
            }
            if ready.stream.contains(PollFlags::IN) {
                self.receive()?;
            }
            self.feed()?;
            self.collect();
            self.stream.try_flush().map_err(|_| HostGone)?;
            if ready.ended {
                return Ok(());
            }
            self.keep_time();
        }
    }

    fn wait(&self) -> Result<Ready, HostGone> {
        let mut wanted = PollFlags::RDHUP;
        wanted.set(PollFlags::IN, !self.stream.incoming.is_pending());
        wanted.set(PollFlags::OUT, self.stream.has_output());
        let mut fds = vec![
            PollFd::new(&self.stream, wanted),
            PollFd::new(&self.child.pidfd, PollFlags::IN),
        ];
        if self.stream.has_room() {
            fds.extend(
                self.outputs
                    .iter()
                    .map(|output| PollFd::new(&output.fd, PollFlags::IN)),
            );
        }
        if let Some(input) = &self.input
            && self.stream.incoming.is_pending()
        {
            fds.push(PollFd::new(input.fd(), PollFlags::OUT));
        }
        let left = self
            .deadline()
            .map(|at| timespec(at.saturating_duration_since(Instant::now())));
        match poll(&mut fds, left.as_ref()) {
            Ok(_) => Ok(Ready {
                stream: fds[0].revents(),
                ended: !fds[1].revents().is_empty(),
            }),
            Err(Errno::INTR) => Ok(Ready {
                stream: PollFlags::empty(),
                ended: false,
            }),
            Err(errno) => {
                log::warn(format_args!("cannot watch a command: {errno}"));
                Err(HostGone)
            }
        }
    }

    fn receive(&mut self) -> Result<(), HostGone> {
        match self.stream.try_receive() {
            Ok(0) => Err(HostGone),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(HostGone),
        }
    }

    /// Hands the command what has come for it, as much as it takes now.
    fn feed(&mut self) -> Result<(), HostGone> {
        loop {
            let written = match self.stream.incoming.next() {
                Err(violation) => {
                    log::warn(format_args!("host broke the protocol on a stream: {violation}"));
                    return Err(HostGone);
                }
                Ok(Piece::Nothing) => return Ok(()),
                Ok(Piece::End) => match &self.input {
                    None => return Ok(()),
                    Some(input) => input.end().and(Err(Errno::PIPE)),
                },
                Ok(Piece::Data(data)) => match &mut self.input {
                    None => Ok(data.len()),
                    Some(input) => input.write(data),
                },
            };
            match written {
                Ok(count) => self.stream.incoming.consume(count),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                // The host has ended the input, or the command has closed it, as it is free to.
                Err(_) => self.input = None,
            }
        }
    }

    /// Queues what the command has written, up to one packet full.
    fn collect(&mut self) {
        let stream = &mut self.stream;
        self.outputs.retain(|output| {
            if !stream.has_room() {
                return true;
            }
            match stream.queue_from(output.channel, output.fd.as_fd(), usize::MAX) {
                Ok(count) => count > 0,
                Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            }
        });
    }

    fn deadline(&self) -> Option<Instant> {
        match self.ending {
            Ending::No => self.started.checked_add(self.timeout?),
            Ending::Asked { kill_at } => Some(kill_at),
            Ending::Killed => None,
        }
    }

    fn keep_time(&mut self) {
        if self.deadline().is_none_or(|at| Instant::now() < at) {
            return;
        }
        if self.ending == Ending::No {
            self.timed_out = true;
            self.ask_to_end(&[libc::SIGTERM]);
        } else {
            self.kill_all();
        }
    }

    /// The host closed the connection: to the command that is a terminal hung up, or a pipe broken.
    fn hang_up(&mut self) {
        if self.ending == Ending::No {
            self.ask_to_end(&[libc::SIGHUP, libc::SIGTERM]);
        }
        self.input = None;
        self.outputs.clear();
    }

    fn ask_to_end(&mut self, signals: &[i32]) {
        for signal in signals.iter().chain(&[libc::SIGCONT]) {
            self.signal_all(*signal);
        }
        self.ending = Ending::Asked {
            kill_at: Instant::now() + GRACE,
        };
    }

    fn kill_all(&mut self) {
        if let Some(leaf) = self.leaf {
            leaf.kill();
        }
        self.signal_all(libc::SIGKILL);
        self.ending = Ending::Killed;
    }

    /// Its process group, its terminal's foreground group, and whatever else it started.
    fn signal_all(&self, signal: i32) {
        let terminal = self.outputs.iter().find(|output| output.is_terminal);
        jobs::signal_command(self.child.pid, terminal.map(|output| &output.fd), signal);
        for process in self.leaf.map(Leaf::processes).unwrap_or_default() {
            reap::signal_raw(process, signal);
        }
    }

    fn wait_for_end(&mut self) -> Option<Ended> {
        loop {
            let left = self
                .deadline()
                .map(|at| timespec(at.saturating_duration_since(Instant::now())));
            let mut fds = [PollFd::new(&self.child.pidfd, PollFlags::IN)];
            match poll(&mut fds, left.as_ref()) {
                Ok(1..) => return self.child.ended.recv().ok(),
                _ => self.keep_time(),
            }
        }
    }

    fn send_rest(&mut self) -> Result<(), HostGone> {
        for output in &mut self.outputs {
            output.left = match output.is_terminal {
                true => TERMINAL_REST,
                false => ioctl_fionread(&output.fd).map_or(0, |count| usize::try_from(count).unwrap_or(0)),
            };
        }
        let stream = &mut self.stream;
        for mut output in self.outputs.drain(..) {
            while output.left > 0 {
                if !stream.has_room() {
                    stream.flush().map_err(|_| HostGone)?;
                }
                match stream.queue_from(output.channel, output.fd.as_fd(), output.left) {
                    Ok(count @ 1..) => output.left = output.left.saturating_sub(count),
                    _ => break,
                }
            }
        }
        Ok(())
    }
}
