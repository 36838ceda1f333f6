//! Sets that are files.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use egress_policy::{Effect, Rule};

use super::{Set, SetName, Tools, learned};
use crate::{Error, Result, console, error::Context};

/// Some thousand rules with comments.
const MAX_FILE: u64 = 256 * 1024;
/// Of one set, with all that it includes.
const MAX_RULES: usize = 4096;

pub(super) fn read(sets: &Path, tools: &Tools, name: &SetName, effect: Effect) -> Result<Set> {
    let mut reader = Reader {
        sets,
        tools,
        effect,
        from: name.tag(),
        open: Vec::new(),
        done: Vec::new(),
        set: Set::default(),
    };
    reader.include(name, None)?;
    Ok(reader.set)
}

struct Reader<'a> {
    sets: &'a Path,
    tools: &'a Tools,
    effect: Effect,
    /// The set that was asked for, which is where all of them come from.
    from: String,
    /// Sets that are being read, the outermost first.
    open: Vec<SetName>,
    done: Vec<SetName>,
    set: Set,
}

/// Where in a file something stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    path: &'a Path,
    line: usize,
}

impl Place<'_> {
    fn error(self, what: String, hint: Option<String>) -> Error {
        Error::SetLine {
            path: self.path.to_owned(),
            line: self.line,
            what,
            hint,
        }
    }
}

impl Reader<'_> {
    fn include(&mut self, name: &SetName, from: Option<Place<'_>>) -> Result<()> {
        if self.done.contains(name) {
            return Ok(());
        }
        if let (true, Some(place)) = (self.open.contains(name), from) {
            let way: Vec<String> = self.open.iter().chain([name]).map(SetName::tag).collect();
            return Err(place.error(
                format!("the set includes itself: {}", way.join(" → ")),
                Some("take one of these lines away".to_owned()),
            ));
        }
        let path = self.sets.join(name.as_str());
        let text = match text_of(&path) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return self.learned(name, from);
            }
            text => text?,
        };
        if learned::is_learned(name) {
            let path = console::one_line(&path.display().to_string());
            let note = format!("{name} is what the file says, not learned from this host: {path}");
            self.set.notes.push(note);
        }
        self.open.push(name.clone());
        for (index, line) in text.lines().enumerate() {
            let place = Place {
                path: &path,
                line: index + 1,
            };
            self.line(line, place)?;
        }
        self.open.pop();
        self.done.push(name.clone());
        Ok(())
    }

    fn line(&mut self, line: &str, place: Place<'_>) -> Result<()> {
        let text = line.split('#').next().unwrap_or_default();
        let indent = text.len() - text.trim_start().len();
        let text = text.trim();
        if text.is_empty() {
            return Ok(());
        }
        if let Some(name) = text.strip_prefix('@') {
            let name = name.parse().map_err(|why| place.error(why, None))?;
            return self.include(&name, Some(place));
        }
        let rule = Rule::parse(self.effect, text).map_err(|error| {
            let indent = line.get(..indent).unwrap_or_default().chars().count();
            let meant = error.meant.map(|meant| format!("did you mean {meant}?"));
            place.error(
                format!("rule {text:?}, character {}: {}", indent + error.at, error.why),
                meant,
            )
        })?;
        self.push(rule, Some(place))
    }

    fn push(&mut self, rule: Rule, place: Option<Place<'_>>) -> Result<()> {
        if let (true, Some(place)) = (self.set.rules.len() >= MAX_RULES, place) {
            return Err(place.error(format!("more than {MAX_RULES} rules in {}", self.from), None));
        }
        self.set.rules.push(Rule {
            from: self.from.clone(),
            ..rule
        });
        Ok(())
    }

    /// A set without a file.
    fn learned(&mut self, name: &SetName, from: Option<Place<'_>>) -> Result<()> {
        let Some(learned) = learned::find(self.tools, name, self.effect) else {
            return Err(self.unknown(name, from));
        };
        let learned = learned?;
        self.set.env.extend(learned.env);
        self.set.notes.extend(learned.notes);
        self.done.push(name.clone());
        learned
            .rules
            .into_iter()
            .try_for_each(|rule| self.push(rule, from))
    }

    fn unknown(&self, name: &SetName, from: Option<Place<'_>>) -> Error {
        match from {
            Some(place) => place.error(format!("there is no set {name}"), None),
            None => Error::UnknownSet {
                name: name.tag(),
                path: self.sets.join(name.as_str()),
                there: there(self.sets),
            },
        }
    }
}

fn text_of(path: &Path) -> Result<String> {
    let act = "set of rules cannot be read";
    let mut text = String::new();
    let file = File::open(path).context(act, path)?;
    let read = file.take(MAX_FILE + 1).read_to_string(&mut text);
    if read.context(act, path)? as u64 > MAX_FILE {
        let why = io::Error::other(format!("longer than {MAX_FILE} bytes"));
        return Err(why).context(act, path);
    }
    Ok(text)
}

/// The sets there are, for a person who asked for another.
fn there(sets: &Path) -> String {
    let listed = std::fs::read_dir(sets).into_iter().flatten();
    let mut names: Vec<String> = listed
        .filter_map(|entry| {
            entry
                .ok()?
                .file_name()
                .into_string()
                .ok()?
                .parse::<SetName>()
                .ok()
        })
        .map(|name| console::one_line(&name.tag()))
        .chain(learned::names().map(|name| format!("@{name}")))
        .collect();
    names.sort();
    names.dedup();
    names.join(", ")
}
