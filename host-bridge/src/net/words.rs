//! What is to be said beyond [`Reason::text`].

use egress_policy::{Reason, control::End};

/// Whether a rule for the name would let it through.
pub(crate) fn a_rule_helps(reason: Reason) -> bool {
    matches!(reason, Reason::NoRule | Reason::Denied | Reason::NobodyToAsk)
}

/// How a connection ended.
pub(crate) fn end(end: End) -> &'static str {
    match end {
        End::Done => "done",
        End::Remote => "broken by the far end",
        End::Guest => "broken by the sandbox",
        End::Refused => "refused",
        End::Cut => "cut by a rule",
        End::Budget => "ended by the budget",
        End::Idle => "idle for too long",
    }
}
