//! The life of a connection.
//!
//! ```text
//!   REQUEST
//!      │
//!   Dialing ───────────────────────────┐
//!      │ Connected (RESPONSE)          │
//!    Open ─────────────┬───────────────┤
//!      │ DownEnded     │ UpEnded       │
//!   UpOnly         DownOnly ───────────┤
//!      │ UpEnded       │ DownEnded     │ GuestGone (RST, or SHUTDOWN of both)
//!      ├───────────────┘               │
//!   Closing  (SHUTDOWN of both, timer) ┤
//!                                      │
//!                                  Draining: what the guest sent last is still
//!                                      │     being written to the host
//!                                    gone
//! ```
//!
//! Up is guest to host, down is host to guest. HostGone leads from Open, UpOnly and DownOnly to Closing.
//! What repeats changes nothing.

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Dialing,
    Open,
    UpOnly,
    DownOnly,
    Closing,
    Draining,
}

/// What can happen to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Connected,
    /// The host wrote its last byte, or the guest wants no more of them.
    DownEnded,
    /// The guest sent its last byte, or the host wants no more of them.
    UpEnded,
    HostGone,
    GuestGone,
}

/// An event that cannot happen where the connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} while {from:?}")]
pub struct IllegalEvent {
    pub from: State,
    pub event: Event,
}

impl State {
    pub(crate) fn after(self, event: Event) -> Result<State, IllegalEvent> {
        match (self, event) {
            (State::Dialing, Event::Connected) => Ok(State::Open),
            (State::Open | State::UpOnly, Event::DownEnded) => Ok(State::UpOnly),
            (State::Open | State::DownOnly, Event::UpEnded) => Ok(State::DownOnly),
            (State::UpOnly, Event::UpEnded)
            | (State::DownOnly, Event::DownEnded)
            | (State::Open | State::UpOnly | State::DownOnly, Event::HostGone)
            | (State::Closing, Event::UpEnded | Event::DownEnded | Event::HostGone) => Ok(State::Closing),
            (_, Event::GuestGone) => Ok(State::Draining),
            (State::Draining, Event::UpEnded | Event::DownEnded | Event::HostGone) => Ok(State::Draining),
            (from, event) => Err(IllegalEvent { from, event }),
        }
    }

    /// Host bytes may still go to the guest.
    pub(crate) fn is_down_open(self) -> bool {
        matches!(self, State::Open | State::DownOnly)
    }

    /// Guest bytes may still come.
    pub(crate) fn is_up_open(self) -> bool {
        matches!(self, State::Open | State::UpOnly)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_end_in_either_order() {
        let down_first = State::Open.after(Event::DownEnded).unwrap();
        assert_eq!(down_first, State::UpOnly);
        assert_eq!(down_first.after(Event::UpEnded), Ok(State::Closing));
        let up_first = State::Open.after(Event::UpEnded).unwrap();
        assert_eq!(up_first, State::DownOnly);
        assert_eq!(up_first.after(Event::DownEnded), Ok(State::Closing));
    }

    #[test]
    fn a_guest_may_leave_at_any_time() {
        for state in [
            State::Dialing,
            State::Open,
            State::UpOnly,
            State::DownOnly,
            State::Closing,
            State::Draining,
        ] {
            assert_eq!(state.after(Event::GuestGone), Ok(State::Draining));
        }
    }

    #[test]
    fn a_half_close_before_the_connection_is_made_is_refused() {
        let error = State::Dialing.after(Event::UpEnded).unwrap_err();
        assert_eq!(error.from, State::Dialing);
    }
}
