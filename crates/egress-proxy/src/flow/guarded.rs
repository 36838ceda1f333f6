//! What the guest says, while somebody looks at it.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{
    carry::{Flow, Stop},
    pump::{self, read_within_budget, say, write_all},
};
use crate::{
    inspect::{Guard, Pass},
    limits::UNDECIDED_DEADLINE,
    upstream::WholeUrls,
};

/// Ports on which the guest speaks first, or it is not what the port is for.
const SPOKEN_FIRST: [u16; 2] = [80, 443];

/// Carries all that the guest says.
pub(crate) async fn guarded(flow: &Flow<'_>) -> Result<(), Stop> {
    let mut held = Held::new(flow);
    loop {
        let Pass::Some(count) = held.judge(flow)? else {
            held.release(flow, usize::MAX).await?;
            return match held.finished {
                true => Ok(()),
                false => pump::up(flow).await,
            };
        };
        held.release(flow, count).await?;
        if count > 0 {
            continue;
        }
        if held.finished && held.bytes.is_empty() {
            return Ok(());
        }
        held.wait(flow).await?;
    }
}

/// What has been read and may not go yet.
struct Held {
    bytes: Vec<u8>,
    /// The guest has said all.
    finished: bool,
    deadline: Option<Instant>,
}

impl Held {
    fn new(flow: &Flow<'_>) -> Self {
        let first = SPOKEN_FIRST
            .contains(&flow.live.port)
            .then_some(UNDECIDED_DEADLINE);
        Held {
            bytes: Vec::new(),
            finished: false,
            deadline: first.map(after),
        }
    }

    fn judge(&self, flow: &Flow<'_>) -> Result<Pass, Stop> {
        let verdict = flow.guard.borrow_mut().from_guest(&self.bytes);
        verdict.map_err(Stop::Refused)
    }

    async fn release(&mut self, flow: &Flow<'_>, count: usize) -> Result<(), Stop> {
        let count = count.min(self.bytes.len());
        if count > 0 {
            let free = self.bytes.get(..count).unwrap_or_default();
            match flow.urls {
                Some(urls) => say_with_urls(flow, urls, free).await?,
                None => say_all(flow, free).await?,
            }
            self.bytes.drain(..count);
            self.deadline = None;
        }
        if !self.bytes.is_empty() && self.deadline.is_none() {
            self.deadline = Some(after(UNDECIDED_DEADLINE));
        }
        Ok(())
    }

    /// Until there is something new to judge.
    async fn wait(&mut self, flow: &Flow<'_>) -> Result<(), Stop> {
        loop {
            match self.read(flow)? {
                Some(0) => {
                    self.finished = true;
                    return flow.guard.borrow_mut().guest_finished().map_err(Stop::Refused);
                }
                Some(_) => return Ok(()),
                None => {}
            }
            let full = self.bytes.len() >= Guard::MAX_HELD;
            tokio::select! {
                ready = flow.guest.readable(), if !full && !self.finished => ready.map_err(|_| Stop::Guest)?,
                () = flow.heard.notified() => return Ok(()),
                () = expire(self.deadline) => return Err(Stop::Idle),
            }
        }
    }

    fn read(&mut self, flow: &Flow<'_>) -> Result<Option<usize>, Stop> {
        let room = Guard::MAX_HELD.saturating_sub(self.bytes.len());
        if room == 0 || self.finished {
            return Ok(None);
        }
        let mut buffer = flow.session.buffer.borrow_mut();
        let most = room.min(buffer.len());
        let space = buffer.get_mut(..most).unwrap_or_default();
        let read = read_within_budget(flow, flow.guest, space)?;
        if let Some(bytes) = read {
            self.bytes.extend_from_slice(bytes);
        }
        Ok(read.map(<[u8]>::len))
    }
}

/// One request at a time: what is added to many short ones would be a multiple of them.
async fn say_with_urls(flow: &Flow<'_>, urls: &WholeUrls, free: &[u8]) -> Result<(), Stop> {
    let heads = flow.guard.borrow().heads().to_vec();
    let first = heads.first().copied().unwrap_or(free.len());
    say_all(flow, free.get(..first).unwrap_or_default()).await?;
    let ends = heads.iter().skip(1).copied().chain([free.len()]);
    for (head, end) in heads.iter().zip(ends) {
        let request = free.get(*head..end).unwrap_or_default();
        say_all(flow, &urls.put_into(request)).await?;
    }
    Ok(())
}

async fn say_all(flow: &Flow<'_>, bytes: &[u8]) -> Result<(), Stop> {
    write_all(flow.server, bytes, |bytes: &[u8]| say(flow, bytes)).await
}

fn after(duration: Duration) -> Instant {
    Instant::now() + duration
}

async fn expire(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
