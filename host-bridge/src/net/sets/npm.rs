//! `@npm`: the registries npm is configured to use, those of scopes included.

use serde_json::{Map, Value};

use super::{
    Tools,
    learned::{Found, Missed},
};

const ASK: [&str; 3] = ["config", "list", "--json"];
/// What it would be if nobody had configured any. Npm refuses to read one file as both.
const ASK_USUAL: [&str; 7] = [
    "config",
    "get",
    "registry",
    "--userconfig",
    "/dev/null",
    "--globalconfig",
    "/nonexistent",
];
/// As npm shows what may be a secret.
const PROTECTED: &str = "(protected)";

pub(super) fn learn(tools: &Tools) -> Result<Found, Missed> {
    let said = tools.ask("npm", &ASK)?;
    let settings: Map<String, Value> =
        serde_json::from_str(&said).map_err(|_| Missed("npm's answer makes no sense".to_owned()))?;
    let mut found = Found::default();
    for (name, value) in &settings {
        let scoped = name.starts_with('@') && name.ends_with(":registry");
        let Some(url) = value.as_str().filter(|_| scoped || name == "registry") else {
            continue;
        };
        if url == PROTECTED {
            found.notes.push(format!(
                "npm does not tell what its {name} is: --allow it by its name"
            ));
            continue;
        }
        found.reach(url);
        // A scope has characters that no variable's name has. A variable is stronger than a project's own settings, so
        // there is none for what goes without saying.
        if !scoped && usual(tools).is_ok_and(|usual| usual != url) {
            found.tell("npm_config_registry", &[url]);
        }
    }
    Ok(found)
}

fn usual(tools: &Tools) -> Result<String, Missed> {
    let said = tools.without("npm_config_registry").ask("npm", &ASK_USUAL)?;
    Ok(said.trim().to_owned())
}
