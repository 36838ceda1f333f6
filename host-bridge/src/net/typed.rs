//! What a person types for a rule: `example.com`, `*.example.com:443`, `10.0.0.0/8`, or `@set`.

use std::path::Path;

use egress_policy::{Effect, Rule};

use super::{
    change::Forgotten,
    sets::{self, Set, SetName, Tools},
};
use crate::{Error, Result};

/// The rules of one `--allow` or `--deny`; a set may have many.
pub(crate) fn rules_of(sets: &Path, option: &'static str, effect: Effect, text: &str) -> Result<Set> {
    match text.strip_prefix('@') {
        Some(name) => sets::expand(
            sets,
            &Tools::of_this_host(),
            &set_name(option, text, name)?,
            effect,
        ),
        None => Ok(Set {
            rules: vec![rule(option, effect, text)?],
            ..Set::default()
        }),
    }
}

/// What is to be forgotten: a set with all its rules, or the rule of this pattern, whatever it said.
pub(crate) fn forgotten_of(option: &'static str, text: &str) -> Result<Forgotten> {
    match text.strip_prefix('@') {
        Some(name) => Ok(Forgotten::Set(set_name(option, text, name)?)),
        None => Ok(Forgotten::Rule(rule(option, Effect::Allow, text)?)),
    }
}

fn rule(option: &'static str, effect: Effect, text: &str) -> Result<Rule> {
    Rule::parse(effect, text).map_err(|error| Error::Rule { option, error })
}

fn set_name(option: &'static str, text: &str, name: &str) -> Result<SetName> {
    name.parse().map_err(|why| Error::Value {
        option,
        value: text.to_owned(),
        why,
    })
}
