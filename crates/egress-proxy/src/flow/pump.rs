//! Bytes from one side to the other, as fast as they go.
//!
//! All flows read into one buffer, or move what they carry through one pipe; a flow keeps bytes of its own only while
//! the other side does not take them, and reads no more until then.

use std::io;

use super::{
    carry::{Flow, Stop},
    half::{Half, read_now, write_now},
};
use crate::limits::BYTES_A_TURN;

/// From the guest to the server, unseen.
pub(crate) async fn up(flow: &Flow<'_>) -> Result<(), Stop> {
    let say = |bytes: &[u8]| say(flow, bytes);
    let step = || copy(flow, flow.guest, say);
    pump(flow.guest, flow.server, step, say).await
}

/// From the server to the guest; the guard hears it first while it wants to.
pub(crate) async fn down(flow: &Flow<'_>, early: &[u8]) -> Result<(), Stop> {
    let give = |bytes: &[u8]| give(flow, bytes);
    hear(flow, early)?;
    write_all(flow.guest, early, give).await?;
    let heard = |bytes: &[u8]| {
        hear(flow, bytes)?;
        give(bytes)
    };
    let step = || {
        let wants = flow.guard.borrow().wants_server();
        match wants {
            true => copy(flow, flow.server, heard),
            false => move_down(flow),
        }
    };
    pump(flow.server, flow.guest, step, give).await
}

/// To the server.
pub(crate) fn say(flow: &Flow<'_>, bytes: &[u8]) -> Result<usize, Stop> {
    let written = write_now(flow.server, bytes)?;
    flow.live.count_sent(written);
    Ok(written)
}

/// To the guest.
fn give(flow: &Flow<'_>, bytes: &[u8]) -> Result<usize, Stop> {
    let written = write_now(flow.guest, bytes)?;
    flow.live.count_received(written);
    Ok(written)
}

fn hear(flow: &Flow<'_>, bytes: &[u8]) -> Result<(), Stop> {
    let mut guard = flow.guard.borrow_mut();
    if !bytes.is_empty() && guard.wants_server() {
        guard.from_server(bytes).map_err(Stop::Refused)?;
        flow.heard.notify_one();
    }
    Ok(())
}

enum Step {
    Nothing,
    Carried(usize),
    /// The other side takes no more; these are left.
    Stuck(Vec<u8>),
    End,
}

async fn pump<F: Half, T: Half>(
    from: &F,
    to: &T,
    step: impl Fn() -> Result<Step, Stop>,
    rest: impl Fn(&[u8]) -> Result<usize, Stop>,
) -> Result<(), Stop> {
    let mut turn: usize = 0;
    loop {
        match step()? {
            Step::Nothing => {
                turn = 0;
                from.readable().await.map_err(|_| F::BROKEN)?;
            }
            Step::Carried(count) => turn = turn.saturating_add(count),
            Step::Stuck(left) => {
                turn = 0;
                write_all(to, &left, &rest).await?;
            }
            Step::End => return Ok(()),
        }
        if turn >= BYTES_A_TURN {
            turn = 0;
            tokio::task::yield_now().await;
        }
    }
}

fn copy<F: Half>(
    flow: &Flow<'_>,
    from: &F,
    write: impl Fn(&[u8]) -> Result<usize, Stop>,
) -> Result<Step, Stop> {
    let mut buffer = flow.session.buffer.borrow_mut();
    let Some(bytes) = read_within_budget(flow, from, &mut buffer)? else {
        return Ok(Step::Nothing);
    };
    if bytes.is_empty() {
        return Ok(Step::End);
    }
    let written = write(bytes)?;
    match bytes.get(written..) {
        None | Some([]) => Ok(Step::Carried(written)),
        Some(left) => Ok(Step::Stuck(left.to_vec())),
    }
}

fn move_down(flow: &Flow<'_>) -> Result<Step, Stop> {
    let (left, most) = allowance(flow);
    // The pipe takes whatever comes; with nothing left nothing may.
    let carried = match left {
        0 => None,
        _ => flow.session.pipe.carry(flow.server, flow.guest, most),
    };
    let Some(carried) = carried else {
        return copy(flow, flow.server, |bytes| give(flow, bytes));
    };
    let moved = match carried {
        Ok(moved) => moved,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Nothing),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Step::Carried(0)),
        Err(_) => return Err(Stop::Remote),
    };
    flow.session.budget.take_bytes(moved.read);
    flow.live.count_received(moved.written);
    match moved {
        moved if moved.broken => Err(Stop::Guest),
        moved if moved.read == 0 => Ok(Step::End),
        moved if moved.left.is_empty() => Ok(Step::Carried(moved.written)),
        moved => Ok(Step::Stuck(moved.left)),
    }
}

/// What the session may still carry, and what a flow may read of it at once.
fn allowance(flow: &Flow<'_>) -> (usize, usize) {
    let left = usize::try_from(flow.session.budget.bytes_left()).unwrap_or(usize::MAX);
    // With nothing left, one byte more tells whether there was anything to say.
    (left, flow.session.flows.chunk().min(left.max(1)))
}

/// Nothing at the end, `None` when there is nothing yet.
pub(crate) fn read_within_budget<'b, F: Half>(
    flow: &Flow<'_>,
    from: &F,
    buffer: &'b mut [u8],
) -> Result<Option<&'b [u8]>, Stop> {
    let (left, most) = allowance(flow);
    let most = most.min(buffer.len());
    let Some(count) = read_now(from, buffer.get_mut(..most).unwrap_or_default())? else {
        return Ok(None);
    };
    if count > left {
        return Err(Stop::Budget);
    }
    flow.session.budget.take_bytes(count);
    Ok(Some(buffer.get(..count).unwrap_or_default()))
}

/// Waits for the other side.
pub(crate) async fn write_all<T: Half>(
    to: &T,
    mut bytes: &[u8],
    write: impl Fn(&[u8]) -> Result<usize, Stop>,
) -> Result<(), Stop> {
    while !bytes.is_empty() {
        let written = write(bytes)?;
        bytes = bytes.get(written..).unwrap_or_default();
        if !bytes.is_empty() {
            to.writable().await.map_err(|_| T::BROKEN)?;
        }
    }
    Ok(())
}
