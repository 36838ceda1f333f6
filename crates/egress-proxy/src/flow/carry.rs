//! Carries a flow that stands, both ways, until it ends.
//!
//! ```text
//! guest ──▶ guarded ──(nothing more to look at)──▶ pump ──▶ server
//! guest ◀────────────── pump, seen by the guard while it wants to ─── server
//! ```
//!
//! Each way ends on its own: what one side does not say any more is told to the other as just that. What breaks one
//! side breaks the other.

use std::{cell::RefCell, convert::Infallible, net::IpAddr};

use egress_policy::{Reason, Target, control::End};
use rustix::event::{PollFd, PollFlags, poll};
use tokio::{
    net::{TcpStream, UnixStream},
    sync::Notify,
    time::sleep,
};

use super::{Live, guarded::guarded, half::Half, pump};
use crate::{inspect::Guard, limits::RESET_INTERVAL, session::Session, upstream::WholeUrls};

/// The far end of a flow.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) stream: TcpStream,
    /// Its address, or the proxy's.
    pub(crate) address: IpAddr,
    pub(crate) through_proxy: bool,
    /// What the server said behind the proxy's answer.
    pub(crate) early: Vec<u8>,
    /// How a proxy wants requests that it makes no tunnel for.
    pub(crate) urls: Option<WholeUrls>,
}

/// Why a flow cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Remote,
    Guest,
    Refused(Reason),
    Cut,
    Budget,
    Idle,
}

impl Stop {
    pub(crate) fn end(self) -> End {
        match self {
            Stop::Remote => End::Remote,
            Stop::Guest => End::Guest,
            Stop::Refused(_) => End::Refused,
            Stop::Cut => End::Cut,
            Stop::Budget => End::Budget,
            Stop::Idle => End::Idle,
        }
    }
}

/// What both directions of a flow share.
pub(crate) struct Flow<'a> {
    pub(crate) session: &'a Session,
    pub(crate) live: &'a Live,
    pub(crate) guest: &'a UnixStream,
    pub(crate) server: &'a TcpStream,
    pub(crate) urls: Option<&'a WholeUrls>,
    pub(crate) guard: RefCell<Guard>,
    /// The guard has heard the server and may think otherwise of what it held back.
    pub(crate) heard: Notify,
    pub(crate) half_closed: Notify,
}

/// Returns when both sides have said all they had to say.
pub(crate) async fn carry(
    session: &Session,
    live: &Live,
    guest: &UnixStream,
    connected: &Connected,
) -> Result<(), Stop> {
    let name = match &live.target {
        Target::Name(name) => Some(name),
        Target::Address(_) => None,
    };
    let flow = Flow {
        session,
        live,
        guest,
        server: &connected.stream,
        urls: connected.urls.as_ref(),
        guard: RefCell::new(Guard::new(name, live.port)),
        heard: Notify::new(),
        half_closed: Notify::new(),
    };
    tokio::select! {
        biased;
        ended = live.until_cut() => Err(stop(ended.end)),
        carried = both_ways(&flow, &connected.early) => carried,
        stopped = resets(&flow) => stopped.map(|never| match never {}),
    }
}

fn stop(end: End) -> Stop {
    match end {
        End::Idle => Stop::Idle,
        End::Budget => Stop::Budget,
        End::Guest => Stop::Guest,
        End::Done | End::Remote | End::Refused | End::Cut => Stop::Cut,
    }
}

async fn both_ways(flow: &Flow<'_>, early: &[u8]) -> Result<(), Stop> {
    let up = async {
        guarded(flow).await?;
        flow.guest_is_there()?;
        flow.finish(flow.server)
    };
    let down = async {
        pump::down(flow, early).await?;
        flow.finish(flow.guest)
    };
    tokio::try_join!(up, down).map(|_| ())
}

impl Flow<'_> {
    /// A machine that closes its end, and does not just say that it has said all, has broken the flow: the server is
    /// not to think that all was well.
    fn guest_is_there(&self) -> Result<(), Stop> {
        match !self.live.half_closed.get() && hung_up(self.guest) {
            true => Err(Stop::Guest),
            false => Ok(()),
        }
    }

    fn finish<S: Half>(&self, side: &S) -> Result<(), Stop> {
        side.finish()?;
        self.live.half_closed.set(true);
        self.half_closed.notify_one();
        Ok(())
    }
}

/// Nobody reads from a side that has said all, so nobody would notice that it breaks.
async fn resets(flow: &Flow<'_>) -> Result<Infallible, Stop> {
    flow.half_closed.notified().await;
    loop {
        sleep(RESET_INTERVAL).await;
        if hung_up(flow.guest) {
            return Err(Stop::Guest);
        }
        if hung_up(flow.server) {
            return Err(Stop::Remote);
        }
    }
}

fn hung_up<S: Half>(side: &S) -> bool {
    let mut polled = [PollFd::new(side, PollFlags::empty())];
    let now = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let found = poll(&mut polled, Some(&now));
    let [polled] = polled;
    found.is_ok_and(|count| count > 0) && polled.revents().intersects(PollFlags::HUP | PollFlags::ERR)
}
