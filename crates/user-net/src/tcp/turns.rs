//! Whose turn it is, whose time has come, and how flows end.

use std::time::Instant;

use super::{FlowEvent, Flows, Stage, connection::Over, segment::Segment};
use crate::{FlowId, limits::MAX_FLOWS};

impl Flows {
    /// When [`Self::expire`] has something to do next. It may turn out to be nothing.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|&(at, _)| at)
    }

    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some(&(at, id)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            self.expire_one(id, now);
        }
    }

    fn expire_one(&mut self, id: FlowId, now: Instant) {
        let Some(flow) = self.flows.get_mut(&id) else {
            return;
        };
        flow.timer = None;
        let is_late = flow.opening.is_some_and(|deadline| deadline <= now);
        let is_forsaken = matches!(&flow.stage, Stage::Standing(it) if it.is_forsaken(now));
        if is_late || is_forsaken {
            self.cut(id, now);
            return;
        }
        if let Some(deadline) = flow.opening {
            self.set_timer(id, deadline);
        }
        self.make_ready(id);
    }
}

impl Flows {
    pub(super) fn end_if_over(&mut self, id: FlowId) {
        if let Some(over) = self.standing(id).and_then(|connection| connection.over()) {
            self.end(id, over == Over::Broken);
        }
    }

    /// A RST, and the end.
    pub(super) fn cut(&mut self, id: FlowId, now: Instant) {
        let reset = match self.flows.get_mut(&id).map(|flow| &mut flow.stage) {
            Some(Stage::Waiting(syn)) => Segment::parse(syn).and_then(|syn| syn.reset(self.offloads)),
            Some(Stage::Standing(connection)) => {
                connection.abort(now);
                None
            }
            _ => return,
        };
        if let Some(reset) = reset {
            self.say(reset);
        }
        self.end(id, true);
    }

    /// Everything the flow holds is given back; what is left waits to be told.
    pub(super) fn end(&mut self, id: FlowId, broken: bool) {
        let Some(flow) = self.flows.get_mut(&id) else {
            return;
        };
        let stage = std::mem::replace(&mut flow.stage, Stage::Gone { broken });
        if flow.opening.take().is_some() {
            self.opening -= 1;
        }
        if let Some(at) = flow.timer.take() {
            self.timers.remove(&(at, id));
        }
        if self.ids.get(&flow.ends) == Some(&id) {
            self.ids.remove(&flow.ends);
        }
        if let Stage::Standing(connection) = stage {
            self.buffers.give_back(connection.buffer());
            connection.last_words().for_each(|words| self.say(words));
        }
        self.push_event(FlowEvent::Closed { flow: id, broken });
    }

    pub(super) fn make_ready(&mut self, id: FlowId) {
        if let Some(flow) = self.flows.get_mut(&id)
            && !flow.is_ready
        {
            flow.is_ready = true;
            self.ready.push_back(id);
        }
        // Flows that ended with their place in the queue; for a guest that takes nothing and goes on.
        if self.ready.len() > 2 * MAX_FLOWS {
            self.ready
                .retain(|id| self.flows.get(id).is_some_and(|flow| flow.is_ready));
        }
    }

    /// A flow has at most one of each kind, but those that were refused leave theirs behind.
    pub(super) fn push_event(&mut self, event: FlowEvent) {
        self.events.push_back(event);
        if self.events.len() > 4 * MAX_FLOWS {
            self.events.retain(|event| self.flows.contains_key(&event.flow()));
        }
    }

    /// Keeps the earlier of two times; a flow that is asked too early says the later one again.
    pub(super) fn set_timer(&mut self, id: FlowId, at: Instant) {
        let Some(flow) = self.flows.get_mut(&id) else {
            return;
        };
        match flow.timer {
            Some(earlier) if earlier <= at => {}
            later => {
                if let Some(later) = later {
                    self.timers.remove(&(later, id));
                }
                flow.timer = Some(at);
                self.timers.insert((at, id));
            }
        }
    }
}
