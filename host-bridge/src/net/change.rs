//! How a policy changes: rules come, in place of those they contradict, and go.

use egress_policy::{Effect, EgressPolicy, MAX_RULES, Ports, Rule, control::MAX_LINE};
use serde::{Deserialize, Serialize};

use super::sets::SetName;
use crate::{Error, Result};

/// As JSON. The other half of a message is for the host's own lists of names.
const MAX_POLICY: usize = MAX_LINE / 2;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NetChange {
    Add(Vec<Rule>),
    Forget(Vec<Forgotten>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Forgotten {
    Set(SetName),
    /// Its effect does not matter.
    Rule(Rule),
}

impl NetChange {
    /// The policy after this change. All of it is done or nothing.
    pub(crate) fn applied(&self, policy: &EgressPolicy) -> Result<EgressPolicy> {
        let mut policy = policy.clone();
        match self {
            NetChange::Add(rules) => rules.iter().for_each(|rule| add(&mut policy.rules, rule)),
            NetChange::Forget(gone) => gone.iter().try_for_each(|gone| forget(&mut policy.rules, gone))?,
        }
        let bytes = serde_json::to_vec(&policy).map_or(usize::MAX, |text| text.len());
        if bytes > MAX_POLICY {
            return Err(Error::PolicyTooLong {
                bytes,
                max: MAX_POLICY,
            });
        }
        if policy.rules.len() > MAX_RULES {
            return Err(Error::TooManyRules {
                found: policy.rules.len(),
                max: MAX_RULES,
            });
        }
        Ok(policy)
    }
}

/// What is typed takes the place of whatever was said of the same pattern. What comes with a set takes the place of
/// that set's only: a typed deny stands beside it, and at a tie a deny wins. A set names ports where a person does not
/// see them, so a typed deny is about those ports too: what the set has of them would win as the narrower rule.
fn add(rules: &mut Vec<Rule>, rule: &Rule) {
    if rules.iter().any(|there| denies_of_set(there, rule)) {
        return;
    }
    rules.retain(|there| {
        let replaced = same_pattern(there, rule) && (there.from == rule.from || rule.from.is_empty());
        !replaced && !denies_of_set(rule, there)
    });
    rules.push(rule.clone());
}

/// Does a typed deny mean all that a set allows with this rule, of a pattern that is the same and of fewer ports?
fn denies_of_set(deny: &Rule, of_set: &Rule) -> bool {
    deny.effect == Effect::Deny
        && deny.from.is_empty()
        && of_set.effect == Effect::Allow
        && !of_set.from.is_empty()
        && deny.pattern == of_set.pattern
        && deny.ports != of_set.ports
        && covers(deny.ports, of_set.ports)
}

fn covers(wide: Ports, narrow: Ports) -> bool {
    match (wide, narrow) {
        (Ports::All, _) => true,
        (Ports::Range { .. }, Ports::All) => false,
        (Ports::Range { .. }, Ports::Range { first, last }) => wide.contains(first) && wide.contains(last),
    }
}

fn forget(rules: &mut Vec<Rule>, gone: &Forgotten) -> Result<()> {
    let before = rules.len();
    let goes = |rule: &Rule| match gone {
        Forgotten::Set(set) => rule.from == set.tag(),
        Forgotten::Rule(gone) => same_pattern(rule, gone),
    };
    let mut kept = rules.clone();
    kept.retain(|rule| !goes(rule));
    if kept.len() == before {
        return Err(Error::UnknownRule {
            text: gone.text(),
            there: names(rules),
        });
    }
    *rules = kept;
    Ok(())
}

fn same_pattern(a: &Rule, b: &Rule) -> bool {
    a.pattern == b.pattern && a.ports == b.ports
}

impl Forgotten {
    fn text(&self) -> String {
        match self {
            Forgotten::Set(set) => set.tag(),
            Forgotten::Rule(rule) => rule.without_origin(),
        }
    }
}

/// A few of the rules there are, sets by their names.
fn names(rules: &[Rule]) -> String {
    /// They stand on one line.
    const SHOWN: usize = 8;
    let mut names: Vec<String> = Vec::new();
    for rule in rules {
        let name = match rule.from.is_empty() {
            true => rule.to_string(),
            false => rule.from.clone(),
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let more = names.len().saturating_sub(SHOWN);
    names.truncate(SHOWN);
    let names = names.join(", ");
    match more {
        0 => names,
        more => format!("{names} and {more} more"),
    }
}

/// A rule with its effect, as a person reads it.
pub(crate) fn shown(rule: &Rule) -> String {
    match rule.effect {
        Effect::Allow => format!("allow {rule}"),
        Effect::Deny => format!("deny {rule}"),
    }
}

#[cfg(test)]
mod tests;
