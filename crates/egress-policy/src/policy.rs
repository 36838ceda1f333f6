//! The decision.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{
    AddressRange, Effect, HostName, Pattern, Ports, Reason, Rule, Target,
    port_set::PortSet,
    range::canonical,
    rule::RuleFault,
    special::{block, looked_through},
};

/// Rules of one policy. Every decision looks at each rule; this many take it some tens of microseconds, and the sets
/// of all package managers together have some hundred.
pub const MAX_RULES: usize = 10_000;

/// What a session may reach. Nothing, by default.
///
/// Of the rules that are about something, the most specific decides: a host before what is below a longer name, that
/// before a shorter, before any name; a longer prefix before a shorter; then fewer ports before more, and all ports
/// last. Among equals a deny rule decides. So a deny rule more never opens anything, and an allow rule more never
/// closes anything.
///
/// Names and addresses are apart: `*` is no address, and a range has no names in it. Where an allowed name leads is
/// held against the rules for ranges in [`Self::decide_address`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressPolicy {
    #[serde(deserialize_with = "checked_rules")]
    pub rules: Vec<Rule>,
    #[serde(default)]
    pub unknown: Unknown,
    /// Bytes, both ways together, and connections, that the session may use up.
    #[serde(default)]
    pub max_bytes: Option<u64>,
    #[serde(default)]
    pub max_connections: Option<u64>,
}

/// What happens to what no rule is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unknown {
    #[default]
    Refuse,
    /// Somebody is to be asked.
    Ask,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    Allow(&'a Rule),
    /// With the rule that says so, if one does.
    Refuse(Reason, Option<&'a Rule>),
    Ask,
}

/// Rules that no policy may have. Those from [`Rule::parse`] have no fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("{count} rules; a policy has at most {MAX_RULES}")]
    TooManyRules { count: usize },
    #[error("rule {rule}: {fault}")]
    Rule { rule: String, fault: RuleFault },
}

impl EgressPolicy {
    /// Is it within what a policy may be? What is read from bytes always is.
    pub fn check(&self) -> Result<(), PolicyError> {
        check(&self.rules)
    }

    /// May this name be known to the guest? Yes when some port of it is allowed.
    pub fn decide_name(&self, name: &HostName) -> Verdict<'_> {
        let mut ranked: Vec<_> = self
            .rules
            .iter()
            .filter_map(|rule| Some((name_rank(rule, name)?, rule)))
            .map(|(pattern, rule)| (rank(pattern, rule), rule))
            .collect();
        ranked.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));

        // A rule that allows counts when those before it, all of them denying, leave it a port.
        let mut denied = PortSet::default();
        for (_, rule) in &ranked {
            match rule.effect {
                Effect::Allow if denied.has_all(rule.ports) => (),
                Effect::Allow => return Verdict::Allow(rule),
                Effect::Deny => denied.add(rule.ports),
            }
        }
        match (self.unknown, ranked.first()) {
            (Unknown::Ask, _) if !denied.has_all(Ports::All) => Verdict::Ask,
            (_, Some((_, rule))) => Verdict::Refuse(Reason::Denied, Some(rule)),
            (_, None) => Verdict::Refuse(Reason::NoRule, None),
        }
    }

    /// May the guest connect there? For a name, [`Self::decide_address`] has the last word on each of its addresses.
    ///
    /// A special address that no rule gives itself is refused without asking anybody: who asks for one is looking
    /// around.
    pub fn decide(&self, target: &Target, port: u16) -> Verdict<'_> {
        let rule = match target {
            Target::Name(name) => self.most_specific(port, |rule| name_rank(rule, name)),
            Target::Address(address) => match self.standing(*address, port, &[]) {
                Standing::Closed(reason) => return Verdict::Refuse(reason, None),
                Standing::Denied(rule) => Some(rule),
                Standing::Open(rule) => rule,
            },
        };
        match (rule, self.unknown) {
            (Some(rule), _) if rule.effect == Effect::Allow => Verdict::Allow(rule),
            (Some(rule), _) => Verdict::Refuse(Reason::Denied, Some(rule)),
            (None, Unknown::Ask) => Verdict::Ask,
            (None, Unknown::Refuse) => Verdict::Refuse(Reason::NoRule, None),
        }
    }

    /// May a connection that is allowed go to this address? `own` are the addresses of this host.
    ///
    /// - What a rule for a range denies is out of reach, also for a name that is allowed, and in every spelling.
    /// - A special address is reached when a rule gives it itself: one for a range that lies within the range that
    ///   makes the address special. `10.0.0.0/8` and `10.1.0.0/16` open `10.1.2.3`, `0.0.0.0/0` and `8.0.0.0/5` do
    ///   not. So a metadata service, one address within another range, is opened by nothing but its address.
    /// - An address of this host likewise: by its address, unless loopback is given, since `192.168.0.0/16` means
    ///   the neighbours.
    /// - Everything else is as the name is.
    pub fn decide_address(&self, address: IpAddr, port: u16, own: &[IpAddr]) -> Result<(), Reason> {
        match self.standing(address, port, own) {
            Standing::Denied(_) => Err(Reason::Denied),
            Standing::Closed(reason) => Err(reason),
            Standing::Open(_) => Ok(()),
        }
    }

    fn standing(&self, address: IpAddr, port: u16, own: &[IpAddr]) -> Standing<'_> {
        let rule = self.most_specific_range(address, port);
        let translated = looked_through(address).filter_map(|v4| self.most_specific_range(v4, port));
        if let Some(denying) = rule
            .into_iter()
            .chain(translated)
            .find(|rule| rule.effect == Effect::Deny)
        {
            return Standing::Denied(denying);
        }
        match closed(address, own) {
            Some((range, reason)) if !rule.is_some_and(|rule| is_within(rule, &range)) => {
                Standing::Closed(reason)
            }
            _ => Standing::Open(rule),
        }
    }

    fn most_specific_range(&self, address: IpAddr, port: u16) -> Option<&Rule> {
        let address = canonical(address);
        self.most_specific(port, |rule| match &rule.pattern {
            Pattern::Range(range) if range.contains(address) => Some(u32::from(range.bits())),
            _ => None,
        })
    }

    fn most_specific(&self, port: u16, pattern_rank: impl Fn(&Rule) -> Option<u32>) -> Option<&Rule> {
        self.rules
            .iter()
            .filter(|rule| rule.ports.contains(port))
            .filter_map(|rule| Some((rank(pattern_rank(rule)?, rule), rule)))
            .max_by_key(|(rank, _)| *rank)
            .map(|(_, rule)| rule)
    }
}

/// How the rules for ranges see an address.
enum Standing<'a> {
    Denied(&'a Rule),
    /// Special or of this host, and not given itself.
    Closed(Reason),
    /// With the rule that allows it, if one does.
    Open(Option<&'a Rule>),
}

/// What decides among rules that are about the same: greater wins.
type Rank = (u32, u32, bool);

fn rank(pattern: u32, rule: &Rule) -> Rank {
    (pattern, rule.ports.narrowness(), rule.effect == Effect::Deny)
}

/// How closely the rule names this name, if it does.
fn name_rank(rule: &Rule, name: &HostName) -> Option<u32> {
    match &rule.pattern {
        Pattern::Host(host) if host == name => Some(u32::MAX),
        Pattern::Below(parent) if name.is_below(parent) => u32::try_from(parent.as_str().len()).ok(),
        Pattern::AnyName => Some(0),
        _ => None,
    }
}

/// Why the address is closed unless a rule gives it itself, and the range in which such a rule lies.
fn closed(address: IpAddr, own: &[IpAddr]) -> Option<(AddressRange, Reason)> {
    let special = block(address).map(|(range, special)| (range, Reason::from(special)));
    if let Some((_, Reason::Loopback | Reason::Metadata)) = special {
        return special;
    }
    let is_own = |address: IpAddr| own.iter().any(|own| canonical(*own) == canonical(address));
    if is_own(address) || looked_through(address).any(is_own) {
        return Some((AddressRange::one(address), Reason::ThisHost));
    }
    special
}

fn is_within(rule: &Rule, outer: &AddressRange) -> bool {
    matches!(&rule.pattern, Pattern::Range(range) if outer.covers(range))
}

fn check(rules: &[Rule]) -> Result<(), PolicyError> {
    if rules.len() > MAX_RULES {
        return Err(PolicyError::TooManyRules { count: rules.len() });
    }
    rules.iter().try_for_each(|rule| {
        rule.check().map_err(|fault| PolicyError::Rule {
            rule: rule.without_origin(),
            fault,
        })
    })
}

fn checked_rules<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Rule>, D::Error> {
    let rules = Vec::deserialize(deserializer)?;
    check(&rules).map_err(serde::de::Error::custom)?;
    Ok(rules)
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
