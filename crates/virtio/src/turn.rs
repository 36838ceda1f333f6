//! A device's turn at its queue: answer what waits, up to a bound, with one interrupt for all of it.

use std::sync::Arc;

use vm_memory::GuestMemoryMmap;

use crate::{Chain, DeviceQueue, QueueError};

/// Requests answered before the thread looks at its other events again. A driver that never stops asking
/// can thus not keep the thread from being told to end, and a full queue does not wait for its last
/// request before the driver hears of its first.
const REQUESTS_PER_TURN: usize = 16;

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The queue is empty, or its doorbell has been rung again for the rest.
    Over,
    /// `answer` put a request off: take another turn when it can be answered. The doorbell stays mute.
    PutOff,
}

/// Answers the requests that wait in `queue`. `answer` returns how many bytes it wrote, or `None` to leave
/// the request, and all behind it, for later.
pub(crate) fn take_turn(
    queue: &mut DeviceQueue,
    chain: &mut Chain,
    mut answer: impl FnMut(&GuestMemoryMmap, &Chain) -> Option<u32>,
) -> Result<Turn, QueueError> {
    let memory = Arc::clone(queue.memory());
    queue.kick().hush();
    queue.mute()?;
    let mut unheard = false;
    for _ in 0..REQUESTS_PER_TURN {
        if !queue.pop(chain)? {
            signal(queue, &mut unheard)?;
            if !queue.unmute()? {
                return Ok(Turn::Over);
            }
            queue.mute()?;
            continue;
        }
        let Some(written) = answer(&memory, chain) else {
            queue.unpop();
            signal(queue, &mut unheard)?;
            return Ok(Turn::PutOff);
        };
        queue.push(chain.head(), written)?;
        unheard = true;
    }
    signal(queue, &mut unheard)?;
    queue.kick().ring();
    Ok(Turn::Over)
}

fn signal(queue: &mut DeviceQueue, unheard: &mut bool) -> Result<(), QueueError> {
    if std::mem::take(unheard) {
        queue.signal()?;
    }
    Ok(())
}
