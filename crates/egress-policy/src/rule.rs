//! One rule: what it is about, and whether that is allowed.

mod parse;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{AddressRange, HostName};

/// Bytes of what a rule says of where it comes from: the name of a set, for a list in a terminal.
pub const MAX_FROM: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub effect: Effect,
    pub pattern: Pattern,
    pub ports: Ports,
    /// Where it comes from, for a person: empty for one that was typed, `@pip` for one of a set.
    #[serde(default)]
    pub from: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    Allow,
    Deny,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pattern {
    /// `example.com`
    Host(HostName),
    /// `*.example.com`: every name below it, not itself.
    Below(HostName),
    /// `*`: every name. No address.
    AnyName,
    Range(AddressRange),
}

/// Ports of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ports {
    All,
    /// Both ends included.
    Range {
        first: u16,
        last: u16,
    },
}

impl Ports {
    pub fn one(port: u16) -> Self {
        Ports::Range {
            first: port,
            last: port,
        }
    }

    pub fn contains(self, port: u16) -> bool {
        match self {
            Ports::All => true,
            Ports::Range { first, last } => (first..=last).contains(&port),
        }
    }

    /// More for fewer ports; 0 for all that go without saying.
    pub(crate) fn narrowness(self) -> u32 {
        match self {
            Ports::All => 0,
            Ports::Range { first, last } => 1 + u32::from(u16::MAX) - u32::from(last.saturating_sub(first)),
        }
    }
}

impl Rule {
    /// Reads a rule as people write it: `example.com`, `*.example.com:443`, `10.0.0.0/8`, `[::1]:8080`, `host:1-1024`.
    ///
    /// A range of IPv6 with ports is in brackets as a whole: `[2001:db8::/32]:443`.
    pub fn parse(effect: Effect, text: &str) -> Result<Self, RuleError> {
        let (pattern, ports) = parse::read(text)?;
        Ok(Rule {
            effect,
            pattern,
            ports,
            from: String::new(),
        })
    }

    /// As [`Rule::parse`] reads it.
    pub fn without_origin(&self) -> String {
        format!("{}{}", Bracketed(self), self.ports)
    }

    pub(crate) fn check(&self) -> Result<(), RuleFault> {
        if let Ports::Range { first, last } = self.ports
            && (first == 0 || last < first)
        {
            return Err(RuleFault::Ports { first, last });
        }
        if self.from.len() > MAX_FROM || self.from.contains(char::is_control) {
            return Err(RuleFault::From);
        }
        Ok(())
    }
}

/// As it is written, with where it comes from behind it: `*.example.com:443 (@pip)`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Bracketed(self), self.ports)?;
        if !self.from.is_empty() {
            write!(f, " ({})", self.from)?;
        }
        Ok(())
    }
}

/// The pattern of a rule, in brackets where a colon for ports follows those of IPv6.
struct Bracketed<'a>(&'a Rule);

impl fmt::Display for Bracketed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.pattern {
            Pattern::Range(range) if range.first().is_ipv6() && self.0.ports != Ports::All => {
                write!(f, "[{range}]")
            }
            pattern => pattern.fmt(f),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Host(name) => name.fmt(f),
            Pattern::Below(name) => write!(f, "*.{name}"),
            Pattern::AnyName => f.write_str("*"),
            Pattern::Range(range) => range.fmt(f),
        }
    }
}

/// With the colon; nothing for all.
impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ports::All => Ok(()),
            Ports::Range { first, last } if first == last => write!(f, ":{first}"),
            Ports::Range { first, last } => write!(f, ":{first}-{last}"),
        }
    }
}

/// A rule that cannot be read: which character, and what was probably meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rule {text:?} cannot be read at character {at}: {why}")]
pub struct RuleError {
    /// Cut off when it is much longer than a rule can be.
    pub text: String,
    /// Counted from 1.
    pub at: usize,
    pub why: String,
    /// Reads as a rule.
    pub meant: Option<String>,
}

/// What is wrong with a rule that nobody wrote as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleFault {
    #[error("no port is from {first} to {last}")]
    Ports { first: u16, last: u16 },
    #[error("where it comes from is longer than {MAX_FROM} bytes, or has control characters")]
    From,
}

#[cfg(test)]
pub(crate) mod tests;
