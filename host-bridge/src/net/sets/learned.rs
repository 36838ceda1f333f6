//! Sets that this host's own tools know: what they are configured to use, mirrors included.
//!
//! They are asked each time a set is named. Nothing here knows the name of a registry.

use egress_policy::{Effect, Ports, Rule};

use super::{Set, SetName, Tools, apt, cargo, npm, pip, url::Origin};
use crate::{Error, Result, console};

const LEARNED: [(&str, Learn); 4] = [
    ("apt", apt::learn),
    ("cargo", cargo::learn),
    ("npm", npm::learn),
    ("pip", pip::learn),
];

type Learn = fn(&Tools) -> Result<Found, Missed>;

/// What a tool uses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) origins: Vec<Origin>,
    pub(super) env: Vec<(String, String)>,
    pub(super) notes: Vec<String>,
}

/// Why nothing is known.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missed(pub(super) String);

impl Found {
    /// Takes what can be reached over the network; a folder, say, is not for the guest.
    pub(super) fn reach(&mut self, url: &str) {
        self.origins.extend(Origin::of(url));
    }

    /// A variable of URLs for the guest, which is told no password.
    pub(super) fn tell(&mut self, variable: &str, urls: &[&str]) {
        if urls.is_empty() {
            return;
        }
        if urls
            .iter()
            .any(|url| url.contains('@') || url.chars().any(char::is_control))
        {
            self.notes.push(format!(
                "{variable} is not passed on, as there may be a password in it: --env {variable}=… sets it"
            ));
            return;
        }
        self.env.push((variable.to_owned(), urls.join(" ")));
    }
}

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    LEARNED.iter().map(|(name, _)| *name)
}

pub(super) fn is_learned(name: &SetName) -> bool {
    names().any(|known| known == name.as_str())
}

/// `None` for a name that no tool of ours stands behind.
pub(super) fn find(tools: &Tools, name: &SetName, effect: Effect) -> Option<Result<Set>> {
    let (_, learn) = LEARNED.iter().find(|(known, _)| *known == name.as_str())?;
    Some(match learn(tools) {
        Ok(found) => set_of(found, name, effect),
        Err(Missed(why)) => Err(nothing(name, &why)),
    })
}

fn set_of(found: Found, name: &SetName, effect: Effect) -> Result<Set> {
    let mut rules: Vec<Rule> = Vec::new();
    for origin in found.origins {
        let rule = Rule {
            effect,
            pattern: origin.pattern,
            ports: Ports::one(origin.port),
            from: name.tag(),
        };
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    if rules.is_empty() {
        return Err(nothing(
            name,
            &format!("{} uses nothing on the network here", name.as_str()),
        ));
    }
    let said = |note| console::one_line(&format!("{name}: {note}"));
    let mut notes: Vec<String> = found.notes.iter().map(said).collect();
    notes.dedup();
    Ok(Set {
        rules,
        env: found.env,
        notes,
    })
}

fn nothing(name: &SetName, why: &str) -> Error {
    Error::SetUnlearned {
        name: name.tag(),
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests;
