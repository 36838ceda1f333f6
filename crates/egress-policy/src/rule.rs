//! One rule: what it is about, and whether that is allowed.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{AddressRange, HostName};

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
    Range { first: u16, last: u16 },
}

impl Rule {
    /// Reads a rule as people write it: `example.com`, `*.example.com:443`, `10.0.0.0/8`, `[::1]:8080`, `host:1-1024`.
    pub fn parse(_effect: Effect, _text: &str) -> Result<Self, RuleError> {
        Err(RuleError {
            text: String::new(),
            at: 0,
            why: String::new(),
            meant: None,
        })
    }
}

/// As it is written, with where it comes from behind it: `*.example.com:443 (@pip)`.
impl fmt::Display for Rule {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// A rule that cannot be read: which character, and what was probably meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rule {text:?} cannot be read at character {at}: {why}")]
pub struct RuleError {
    pub text: String,
    /// Counted from 1.
    pub at: usize,
    pub why: String,
    pub meant: Option<String>,
}
