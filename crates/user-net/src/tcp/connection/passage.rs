//! The way through smoltcp, and back.

use std::time::Instant;

use super::Connection;
use crate::{
    limits::MAX_FLOW_REPLIES,
    tcp::{
        port::Port,
        segment::{self, Ends},
    },
};

impl Connection {
    pub(super) fn ingress(&mut self, packet: &[u8], now: Instant) {
        let mut reply = Vec::new();
        let mut port = Port {
            incoming: Some(packet),
            outgoing: &mut reply,
        };
        let at = self.clock.at(now);
        self.interface
            .poll_ingress_single(at, &mut port, &mut self.sockets);
        if !reply.is_empty() {
            self.seal(&mut reply);
            self.push_reply(reply);
        }
    }

    pub(super) fn egress(&mut self, packet: &mut Vec<u8>, now: Instant) -> bool {
        let start = packet.len();
        let mut port = Port {
            incoming: None,
            outgoing: packet,
        };
        let at = self.clock.at(now);
        self.interface.poll_egress(at, &mut port, &mut self.sockets);
        match packet.get_mut(start..) {
            Some(new) if !new.is_empty() => {
                self.seal(new);
                true
            }
            _ => false,
        }
    }

    /// What smoltcp would send next, made now.
    pub(super) fn reply(&mut self, now: Instant) {
        let mut packet = Vec::new();
        if self.egress(&mut packet, now) {
            self.push_reply(packet);
        }
    }

    pub(super) fn push_reply(&mut self, packet: Vec<u8>) {
        // The newest says all that the oldest said.
        if self.replies.len() >= MAX_FLOW_REPLIES {
            self.replies.pop_front();
        }
        self.replies.push_back(packet);
    }

    pub(super) fn seal(&mut self, packet: &mut [u8]) {
        if let Some(sent) = segment::seal(packet, self.offloads) {
            self.window_said |= sent.says_window;
            if sent.end.wrapping_sub(self.sent).cast_signed() > 0 || self.sent == 0 {
                self.sent = sent.end;
            }
        }
    }

    /// smoltcp forgets its timer when it is told three times that its FIN did not come, since it has no data then to
    /// send again.
    pub(super) fn repeat_fin(&mut self) {
        self.fin_at = None;
        if self.owes() && self.socket().send_queue() == 0 {
            let Ends { guest, far } = self.ends;
            let at = self.sent.wrapping_sub(1);
            let packet = segment::end(far, guest, (at, self.expected()), self.offloads);
            self.push_reply(packet);
        }
    }
}
