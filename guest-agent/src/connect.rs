//! A connection of the host to a server in the machine, by way of loopback: `coffer --publish` ends here.
//!
//! Each direction ends on its own: the host's end of input closes the socket for writing, the server's end is an
//! empty Stdout frame. When both have ended, or the socket is broken, the last word is said.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use agent_protocol::{Channel, Failure, FailureKind, Reply};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::{SendFlags, Shutdown, send, shutdown},
};

use crate::{
    failure::{failure, kind_of, reason},
    log,
    stream::{Piece, Stream},
};

/// Loopback answers at once, unless the server's queue is full: then it lets the kernel's first second attempts pass.
const CONNECT: Duration = Duration::from_secs(5);

const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

pub(crate) fn run(port: u16, stream: Stream) {
    match connect(port) {
        Err(failed) => stream.finish(&Reply::Failed(failed)),
        Ok(socket) => {
            let pipe = Pipe {
                stream,
                socket,
                reading: true,
                writing: true,
            };
            if let Ok(stream) = pipe.run() {
                stream.finish(&Reply::Done);
            }
        }
    }
}

/// The first address that somebody listens at.
fn connect(port: u16) -> Result<OwnedFd, Failure> {
    let mut last = None;
    for address in LOOPBACK {
        match TcpStream::connect_timeout(&SocketAddr::new(address, port), CONNECT) {
            Ok(socket) => return prepared(socket).map_err(|error| explain(port, &error)),
            // What IPv6 has to say matters less than that there is no server at the usual address.
            Err(error) => last = last.or(Some(error)),
        }
    }
    let error = last.unwrap_or_else(|| io::ErrorKind::NotFound.into());
    Err(explain(port, &error))
}

fn prepared(socket: TcpStream) -> io::Result<OwnedFd> {
    // What the host has sent is on its way already; waiting for more of it would only be late.
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn explain(port: u16, error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        let message = format!("nothing listens on port {port} of the sandbox");
        return failure(FailureKind::NotFound, message);
    }
    failure(
        kind_of(error),
        format!("cannot connect to port {port} of the sandbox: {}", reason(error)),
    )
}

struct Pipe {
    stream: Stream,
    socket: OwnedFd,
    /// The server may have more to say.
    reading: bool,
    /// The host may, and the server still listens.
    writing: bool,
}

/// The connection to the host is of no more use.
struct HostGone;

impl From<io::Error> for HostGone {
    fn from(_: io::Error) -> Self {
        HostGone
    }
}

impl Pipe {
    /// Returns when both directions have ended.
    fn run(mut self) -> Result<Stream, HostGone> {
        self.stream.queue(&Reply::Started { pid: 0 })?;
        self.stream.try_flush()?;
        while self.reading || self.writing {
            self.wait()?;
            self.feed()?;
            self.collect();
            self.stream.try_flush()?;
        }
        Ok(self.stream)
    }

    /// Until there is something to do; takes what the host has sent.
    fn wait(&mut self) -> Result<(), HostGone> {
        let mut from_host = PollFlags::RDHUP;
        from_host.set(PollFlags::IN, !self.stream.incoming.is_pending());
        from_host.set(PollFlags::OUT, self.stream.has_output());
        let mut from_server = PollFlags::empty();
        from_server.set(PollFlags::IN, self.reading && self.stream.has_room());
        from_server.set(PollFlags::OUT, self.writing && self.stream.incoming.is_pending());
        let mut fds = vec![PollFd::new(&self.stream, from_host)];
        // A broken socket says so unasked, again and again: it is asked when its end can be passed on.
        if !from_server.is_empty() || !self.reading {
            fds.push(PollFd::new(&self.socket, from_server));
        }
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(errno) => {
                log::warn(format_args!("cannot watch a connection: {errno}"));
                return Err(HostGone);
            }
        }
        let host = fds[0].revents();
        let broken = PollFlags::HUP | PollFlags::ERR;
        if !self.reading
            && fds
                .get(1)
                .is_some_and(|server| server.revents().intersects(broken))
        {
            self.writing = false;
        }
        if host.intersects(PollFlags::RDHUP | broken) {
            return Err(HostGone);
        }
        if host.contains(PollFlags::IN) {
            self.receive()?;
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<(), HostGone> {
        match self.stream.try_receive() {
            Ok(0) => Err(HostGone),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(HostGone),
            _ => Ok(()),
        }
    }

    /// Hands the server what has come for it, as much as it takes now.
    fn feed(&mut self) -> Result<(), HostGone> {
        loop {
            let written = match self.stream.incoming.next() {
                Err(violation) => {
                    log::warn(format_args!("host broke the protocol on a stream: {violation}"));
                    return Err(HostGone);
                }
                Ok(Piece::Nothing) => return Ok(()),
                Ok(Piece::End) => {
                    if self.writing {
                        let _ = shutdown(&self.socket, Shutdown::Write);
                    }
                    self.writing = false;
                    return Ok(());
                }
                Ok(Piece::Data(data)) if !self.writing => Ok(data.len()),
                Ok(Piece::Data(data)) => send(&self.socket, data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            };
            match written {
                Ok(count) => self.stream.incoming.consume(count),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                // The server is gone; what it still had to say comes, or the error does, on the other way.
                Err(_) => self.writing = false,
            }
        }
    }

    /// Queues what the server has sent, up to one packet full.
    fn collect(&mut self) {
        if !self.reading || !self.stream.has_room() {
            return;
        }
        match self
            .stream
            .queue_from(Channel::Stdout, self.socket.as_fd(), usize::MAX)
        {
            Ok(1..) => return,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Ok(0) => {}
            Err(_) => self.writing = false,
        }
        self.reading = false;
        self.stream.queue_end(Channel::Stdout);
    }
}
