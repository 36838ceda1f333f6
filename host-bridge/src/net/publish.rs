//! Ports of this host that lead to servers in a guest.
//!
//! ```text
//! client on this host ── TCP ──▶ listener here ── one agent operation (Connect) ──▶ 127.0.0.1:PORT in the guest
//! ```
//!
//! Whoever owns the machine listens: from before it starts, so that a port that is taken is told at once, until the
//! session ends. Clients that come early wait in the kernel's queue.

mod carry;
mod typed;

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
};

use crate::{Error, Result, agent::Link, error::Context};

pub(crate) use typed::{published_of, wide_open};

/// More than anybody types; each is a descriptor and a task.
pub(crate) const MAX_PUBLISHED: usize = 64;
/// Connections of a session at once. Each costs two descriptors here and one in the machine, and two buffers; one more
/// is reset.
const MAX_CONNECTIONS: usize = 256;
/// Out of descriptors, most likely; the backlog keeps what waits.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// One port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    pub address: IpAddr,
    /// 0 for any that is free.
    pub host: u16,
    pub guest: u16,
    /// The one that it is, while the session runs.
    #[serde(default)]
    pub bound: Option<u16>,
}

impl Publish {
    fn place(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.bound.unwrap_or(self.host))
    }
}

/// For a person: where on this host, and what is behind it.
impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place() {
            place if place.port() == 0 => write!(f, "{} at any free port", place.ip()),
            place => place.fmt(f),
        }?;
        write!(f, " leads to port {} of the sandbox", self.guest)
    }
}

/// Listens, and answers nobody yet.
#[derive(Debug, Default)]
pub(crate) struct Listening(Vec<(TcpListener, Publish)>);

impl Listening {
    /// All of them or none.
    pub(crate) async fn at(wanted: &[Publish]) -> Result<Self> {
        let mut listening = Vec::with_capacity(wanted.len());
        for publish in wanted {
            listening.push(listen(publish).await?);
        }
        Ok(Listening(listening))
    }

    pub(crate) fn places(&self) -> Vec<Publish> {
        self.0.iter().map(|(_, publish)| publish.clone()).collect()
    }

    /// From now on clients are led into the guest.
    pub(crate) fn serve(self, link: &Arc<Link>) -> Serving {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let serve = |(listener, publish): (TcpListener, Publish)| {
            tokio::spawn(accept(
                listener,
                publish.guest,
                Arc::clone(link),
                Arc::clone(&room),
            ))
        };
        Serving(self.0.into_iter().map(serve).collect())
    }
}

async fn listen(publish: &Publish) -> Result<(TcpListener, Publish)> {
    let place = SocketAddr::new(publish.address, publish.host);
    let listener = TcpListener::bind(place)
        .await
        .map_err(|source| Error::Publish { place, source })?;
    let bound = listener.local_addr().act("own port cannot be found")?.port();
    let publish = Publish {
        bound: Some(bound),
        ..publish.clone()
    };
    Ok((listener, publish))
}

/// Dropped, nobody listens any more and every connection is reset.
#[derive(Debug)]
pub(crate) struct Serving(Vec<JoinHandle<()>>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

async fn accept(listener: TcpListener, port: u16, link: Arc<Link>, room: Arc<Semaphore>) {
    // They end with this task.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((client, _)) = accepted else {
            tokio::time::sleep(ACCEPT_AGAIN).await;
            continue;
        };
        // Until it has ended in order, being dropped is being reset.
        if reset_when_dropped(&client, true).is_err() {
            continue;
        }
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            continue;
        };
        let link = Arc::clone(&link);
        connections.spawn(async move {
            if let Ok(stream) = carry::dial(&link, port).await
                && let Ok(client) = carry::both_ways(client, stream).await
            {
                let _ = reset_when_dropped(&client, false);
            }
            drop(permit);
        });
    }
}

fn reset_when_dropped(client: &TcpStream, reset: bool) -> io::Result<()> {
    let linger = reset.then_some(Duration::ZERO);
    Ok(rustix::net::sockopt::set_socket_linger(client, linger)?)
}
