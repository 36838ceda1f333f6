//! A connection to the first of some addresses that answers. The addresses have been checked; no name is looked at
//! any more.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use egress_policy::Reason;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

use crate::limits::{KEEP_ALIVE_AFTER, KEEP_ALIVE_EVERY, KEEP_ALIVE_TRIES, STAGGER};

/// Begins with the next address when the one before fails or does not answer soon (RFC 8305).
pub(crate) async fn connect(addresses: &[IpAddr], port: u16) -> Result<(TcpStream, IpAddr), Reason> {
    let mut attempts = JoinSet::new();
    let mut addresses = addresses.iter();
    let mut worst = Reason::Unreachable;
    loop {
        let more = match addresses.next() {
            Some(address) => {
                attempts.spawn_local(attempt(*address, port));
                addresses.len() > 0
            }
            None => false,
        };
        let ended = match more {
            true => timeout(STAGGER, attempts.join_next()).await.ok(),
            false => Some(attempts.join_next().await),
        };
        match ended.flatten() {
            Some(Ok(Ok(connected))) => return Ok(connected),
            Some(Ok(Err(reason))) => worst = telling(worst, reason),
            Some(Err(_)) => {}
            None if more => {}
            None => return Err(worst),
        }
    }
}

async fn attempt(address: IpAddr, port: u16) -> Result<(TcpStream, IpAddr), Reason> {
    let wanted = SocketAddr::new(address, port);
    let stream = TcpStream::connect(wanted).await.map_err(|error| why(&error))?;
    let (peer, own) = (stream.peer_addr(), stream.local_addr());
    match (peer, own) {
        // What was checked is what it leads to, and not a port of ours that met itself.
        (Ok(peer), Ok(own)) if peer == wanted && own != wanted => {}
        _ => return Err(Reason::ConnectionRefused),
    }
    prepare(&stream).map_err(|error| why(&error))?;
    Ok((stream, address))
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEP_ALIVE_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, KEEP_ALIVE_EVERY)?;
    sockopt::set_tcp_keepcnt(stream, KEEP_ALIVE_TRIES)?;
    Ok(())
}

fn why(error: &io::Error) -> Reason {
    use io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Reason::ConnectionRefused,
        ErrorKind::TimedOut => Reason::TimedOut,
        _ if matches!(
            error.raw_os_error(),
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS)
        ) =>
        {
            Reason::TooManyFlows
        }
        _ => Reason::Unreachable,
    }
}

/// Of two failures the one that says more: a host that refuses is there, a family without a route is nothing new.
fn telling(one: Reason, other: Reason) -> Reason {
    let weight = |reason| match reason {
        Reason::ConnectionRefused => 3,
        Reason::TimedOut => 2,
        Reason::TooManyFlows => 1,
        _ => 0,
    };
    if weight(other) > weight(one) { other } else { one }
}
