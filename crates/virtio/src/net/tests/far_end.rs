//! A network under a test's control: keeps what the guest sends, sends what it is told to.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use rustix::event::{EventfdFlags, eventfd};
use user_net::{Network, Offloads};

/// Far longer than any device takes.
const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub(super) struct FarEnd(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
    wake: OwnedFd,
    /// What the guest sends goes back to it, and is not kept.
    echo: bool,
}

#[derive(Debug, Default)]
struct State {
    connects: Vec<Offloads>,
    received: Vec<Vec<u8>>,
    /// What [`Network::turn`] makes ready to go.
    arrived: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

impl FarEnd {
    pub(super) fn new() -> Self {
        FarEnd::with(false)
    }

    /// One that sends everything back.
    pub(super) fn echo() -> Self {
        FarEnd::with(true)
    }

    fn with(echo: bool) -> Self {
        FarEnd(Arc::new(Inner {
            state: Mutex::default(),
            changed: Condvar::new(),
            wake: eventfd(0, EventfdFlags::NONBLOCK).unwrap(),
            echo,
        }))
    }

    pub(super) fn network(&self) -> Box<dyn Network> {
        Box::new(self.clone())
    }

    /// A frame for the guest; the device is woken for it.
    pub(super) fn send(&self, frame: Vec<u8>) {
        self.0.state.lock().unwrap().arrived.push_back(frame);
        rustix::io::write(&self.0.wake, &1u64.to_ne_bytes()).unwrap();
    }

    /// Frames the device has not taken.
    pub(super) fn waiting(&self) -> usize {
        let state = self.0.state.lock().unwrap();
        state.arrived.len() + state.outgoing.len()
    }

    pub(super) fn connects(&self) -> Vec<Offloads> {
        self.0.state.lock().unwrap().connects.clone()
    }

    pub(super) fn received(&self) -> Vec<Vec<u8>> {
        self.0.state.lock().unwrap().received.clone()
    }

    /// Waits until the guest has sent `count` frames in all.
    pub(super) fn wait_received(&self, count: usize) -> Vec<Vec<u8>> {
        let lacks = |state: &mut State| state.received.len() < count;
        let state = self.0.state.lock().unwrap();
        let (state, waited) = self.0.changed.wait_timeout_while(state, DEADLINE, lacks).unwrap();
        assert!(!waited.timed_out(), "no frame number {count}");
        state.received.clone()
    }
}

impl Network for FarEnd {
    fn connect(&mut self, offloads: Offloads) {
        self.0.state.lock().unwrap().connects.push(offloads);
    }

    fn wake(&self) -> BorrowedFd<'_> {
        self.0.wake.as_fd()
    }

    fn turn(&mut self) {
        // Fails when nothing has arrived since.
        let _ = rustix::io::read(&self.0.wake, &mut [0; 8]);
        let state = &mut *self.0.state.lock().unwrap();
        state.outgoing.append(&mut state.arrived);
    }

    fn receive(&mut self, frame: &[u8]) {
        let mut state = self.0.state.lock().unwrap();
        if self.0.echo {
            state.outgoing.push_back(frame.to_vec());
        } else {
            state.received.push(frame.to_vec());
        }
        self.0.changed.notify_all();
    }

    fn transmit(&mut self, frame: &mut Vec<u8>) -> bool {
        match self.0.state.lock().unwrap().outgoing.pop_front() {
            Some(next) => {
                frame.extend_from_slice(&next);
                true
            }
            None => false,
        }
    }
}
