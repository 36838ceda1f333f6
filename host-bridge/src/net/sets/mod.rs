//! Named sets of rules: `@name`, many rules under one word.
//!
//! A set is a file that anyone can read and write, `sets/NAME` in the configuration directory: a rule a line, `#`
//! before what is for people, `@other` for all that another set has. Four more are learned from this host's own tools
//! when they are named, unless there is a file of that name: see [`learned`].

mod apt;
mod cargo;
mod file;
mod learned;
mod npm;
mod pip;
mod tool;
mod url;

use std::{fmt, path::Path, str::FromStr};

use egress_policy::{Effect, Rule};
use serde::{Deserialize, Serialize};

use crate::Result;
pub(crate) use tool::Tools;

/// The name of a set, without its `@`. Safe as one path component.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct SetName(String);

/// Longer than any name that somebody would type.
const MAX_NAME: usize = 64;

impl SetName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// As it is typed, and as rules name where they come from.
    pub(crate) fn tag(&self) -> String {
        format!("@{}", self.0)
    }
}

impl FromStr for SetName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let good = !text.is_empty()
            && text.len() <= MAX_NAME
            && text.bytes().next().is_some_and(plain)
            && text.bytes().all(|b| plain(b) || b == b'-' || b == b'_');
        match good {
            true => Ok(SetName(text.to_owned())),
            false => Err(format!(
                "the name of a set is lower-case letters, digits, dashes and underscores, at most {MAX_NAME}"
            )),
        }
    }
}

impl TryFrom<String> for SetName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<SetName> for String {
    fn from(name: SetName) -> String {
        name.0
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}

/// What a set has at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) rules: Vec<Rule>,
    /// Variables with which tools in the guest use what this host's tools use.
    pub(crate) env: Vec<(String, String)>,
    /// For a person.
    pub(crate) notes: Vec<String>,
}

/// Finds what a set has now. `sets` is the directory of those that are files.
pub(crate) fn expand(sets: &Path, tools: &Tools, name: &SetName, effect: Effect) -> Result<Set> {
    let mut set = file::read(sets, tools, name, effect)?;
    if effect == Effect::Deny {
        set.env.clear();
    }
    Ok(set)
}

#[cfg(test)]
mod tests;
