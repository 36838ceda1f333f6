//! What is to be said beyond [`Reason::text`].

use std::net::IpAddr;

use egress_policy::{Reason, control::End};

use crate::console;

/// Whether a rule for the name would let it through.
pub(crate) fn a_rule_helps(reason: Reason) -> bool {
    matches!(reason, Reason::NoRule | Reason::Denied | Reason::NobodyToAsk)
}

/// The rule that denies what was refused. A record may also name one that allowed it before something else did not.
pub(crate) fn denying(reason: Reason, rule: Option<&str>, address: Option<IpAddr>) -> Option<&str> {
    rule.filter(|_| reason == Reason::Denied && address.is_none())
}

/// Why something was refused, with the rule where one denies it.
pub(crate) fn why(text: &str, rule: Option<&str>) -> String {
    match rule {
        Some(rule) => format!("{text} ({})", console::one_line(rule)),
        None => text.to_owned(),
    }
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
