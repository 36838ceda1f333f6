//! The thread that moves frames.

use user_net::Offloads;
use virtio_bindings::virtio_net::VIRTIO_NET_F_GUEST_CSUM;

use super::{Cable, rx::RxRing, tx::TxRing};
use crate::{DeviceQueue, Poll, Readiness, Worker, WorkerError};

const RX: u64 = 0;
const TX: u64 = 1;
const WAKE: u64 = 2;

#[derive(Debug)]
pub(super) struct NetWorker {
    cable: Cable,
    rx: RxRing,
    tx: TxRing,
    offloads: Offloads,
}

impl NetWorker {
    pub(super) fn new(cable: Cable, rx: DeviceQueue, tx: DeviceQueue, features: u64) -> Self {
        NetWorker {
            cable,
            rx: RxRing::new(rx, features),
            tx: TxRing::new(tx),
            offloads: Offloads {
                receives_without_checksum: features & (1 << VIRTIO_NET_F_GUEST_CSUM) != 0,
            },
        }
    }
}

impl Worker for NetWorker {
    fn start(&mut self, poll: &Poll) -> Result<(), WorkerError> {
        let mut network = self.cable.hold();
        network.connect(self.offloads);
        poll.add(network.wake(), WAKE, true, false)?;
        poll.add(self.rx.stock.queue.kick(), RX, true, false)?;
        poll.add(self.tx.queue.kick(), TX, true, false)
    }

    fn ready(&mut self, _poll: &Poll, token: u64, _readiness: Readiness) -> Result<(), WorkerError> {
        match token {
            RX => self.rx.rung()?,
            TX => self.tx.carry(self.cable.hold().as_mut())?,
            _ => self.cable.hold().turn(),
        }
        Ok(())
    }

    /// Whatever happened, the network may have frames for the guest now.
    fn settle(&mut self, _poll: &Poll) -> Result<(), WorkerError> {
        self.rx.deliver(self.cable.hold().as_mut())?;
        self.rx.stock.signal()?;
        Ok(())
    }
}

#[cfg(test)]
impl NetWorker {
    /// One round without events.
    pub(super) fn turn(&mut self) -> Result<(), crate::QueueError> {
        self.rx.rung()?;
        let mut network = self.cable.hold();
        network.turn();
        self.tx.carry(network.as_mut())?;
        self.rx.deliver(network.as_mut())?;
        self.rx.stock.signal()
    }
}
