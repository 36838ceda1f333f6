//! `@cargo`: the registries that cargo here is configured to use or has used.
//!
//! Cargo has no command that tells them. What there is: its configuration in `$CARGO_HOME`, and the index of each
//! registry it has used, kept there in a folder with the host's name, with the registry's own word for where the
//! packages are. Where packages are published is left out: nobody fetches from there.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned};

use super::{
    Tools,
    learned::{Found, Missed},
    url::Origin,
};

/// Of a configuration or an index, both written by hand.
const MAX_FILE: u64 = 256 * 1024;
/// Sources that stand in for one another; longer is a circle.
const MAX_REPLACED: usize = 8;

#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    source: BTreeMap<String, Source>,
    #[serde(default)]
    registries: BTreeMap<String, Registry>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Source {
    replace_with: Option<String>,
    registry: Option<String>,
    /// One of a single package, which its own repository replaces.
    git: Option<String>,
}

#[derive(Deserialize)]
struct Registry {
    index: Option<String>,
}

/// `config.json` of an index.
#[derive(Deserialize)]
struct Index {
    dl: String,
}

pub(super) fn learn(tools: &Tools) -> Result<Found, Missed> {
    let home = home(tools).ok_or_else(|| Missed("cargo has no home here".to_owned()))?;
    if !home.is_dir() {
        return Err(Missed("cargo is not installed here".to_owned()));
    }
    let config = config(&home)?;
    let used = used(&home);
    let mut found = Found::default();
    for (name, registry) in &config.registries {
        let Some(index) = &registry.index else { continue };
        add(&mut found, index, &used);
        found.tell(&variable(name), &[index]);
    }
    let replaced: Vec<&str> = config.replaced().collect();
    if replaced.is_empty() {
        use_all(&mut found, &used)?;
    }
    for name in replaced {
        if let Some(url) = config.in_place_of(name)? {
            add(&mut found, url, &used);
            found.notes.push(
                "cargo here uses another registry in place of its own: in the sandbox it needs the same [source] lines"
                    .to_owned(),
            );
        }
    }
    Ok(found)
}

fn home(tools: &Tools) -> Option<PathBuf> {
    match tools.variable("CARGO_HOME") {
        Some(home) => Some(PathBuf::from(home)),
        None => Some(Path::new(tools.variable("HOME")?).join(".cargo")),
    }
}

/// The older name is the one that counts when there are both.
fn config(home: &Path) -> Result<Config, Missed> {
    let files = ["config", "config.toml"].map(|name| home.join(name));
    let Some(text) = files.iter().find_map(|path| text_of(path)) else {
        return Ok(Config::default());
    };
    toml::from_str(&text).map_err(|_| Missed("cargo's configuration cannot be read".to_owned()))
}

impl Config {
    /// Registries that others stand in for: cargo's own, as people rarely write of another.
    fn replaced(&self) -> impl Iterator<Item = &str> {
        let registries = self.source.iter().filter(|(_, source)| source.git.is_none());
        registries
            .filter(|(_, source)| source.replace_with.is_some())
            .map(|(name, _)| name.as_str())
    }

    /// Where the one at the end of the chain is; `None` when it is a folder.
    fn in_place_of<'a>(&'a self, name: &'a str) -> Result<Option<&'a str>, Missed> {
        let mut name = name;
        for _ in 0..MAX_REPLACED {
            let source = self.source.get(name);
            match source.and_then(|source| source.replace_with.as_deref()) {
                Some(next) => name = next,
                None => {
                    let url = source.and_then(|source| source.registry.as_deref());
                    let known = self.registries.get(name).and_then(|known| known.index.as_deref());
                    return Ok(url.or(known));
                }
            }
        }
        Err(Missed(
            "cargo's configuration replaces sources in a circle".to_owned(),
        ))
    }
}

/// Which of them is cargo's own is not written anywhere.
fn use_all(found: &mut Found, used: &[(String, Index)]) -> Result<(), Missed> {
    if used.is_empty() {
        return Err(Missed(
            "cargo has not used a registry here: cargo fetch in a project does".to_owned(),
        ));
    }
    for (host, index) in used {
        found.origins.extend(Origin::host(host));
        add_downloads(found, host, index);
    }
    Ok(())
}

fn add(found: &mut Found, index: &str, used: &[(String, Index)]) {
    let Some(origin) = Origin::of(index) else { return };
    let host = origin.pattern.to_string();
    let before = found.origins.len();
    for (_, index) in used.iter().filter(|(there, _)| *there == host) {
        add_downloads(found, &host, index);
    }
    if found.origins.len() == before {
        found.notes.push(format!(
            "cargo has not used {host} here, so where its packages are is not known: --allow that too"
        ));
    }
    found.origins.push(origin);
}

fn add_downloads(found: &mut Found, host: &str, index: &Index) {
    match Origin::of(&index.dl) {
        Some(origin) => found.origins.push(origin),
        None => found
            .notes
            .push(format!("where the packages of {host} are is not a host")),
    }
}

/// Hosts of the registries that were used, each with what its index says. Those from the time when an index was a git
/// repository say nothing.
fn used(home: &Path) -> Vec<(String, Index)> {
    let listed = std::fs::read_dir(home.join("registry/index"))
        .into_iter()
        .flatten();
    let mut used: Vec<(String, Index)> = listed
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let index = json_of(&entry.path().join("config.json"))?;
            Some((host_of(&name)?.to_owned(), index))
        })
        .collect();
    used.sort_by(|(a, _), (b, _)| a.cmp(b));
    used
}

/// `HOST-HASH`.
fn host_of(folder: &str) -> Option<&str> {
    let (host, hash) = folder.rsplit_once('-')?;
    let is_hash = !hash.is_empty() && hash.bytes().all(|b| b.is_ascii_hexdigit());
    (is_hash && !host.is_empty()).then_some(host)
}

/// `CARGO_REGISTRIES_<NAME>_INDEX`, as cargo spells it.
fn variable(name: &str) -> String {
    format!(
        "CARGO_REGISTRIES_{}_INDEX",
        name.to_ascii_uppercase().replace('-', "_")
    )
}

fn json_of<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_str(&text_of(path)?).ok()
}

fn text_of(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = File::open(path).ok()?;
    let read = file.take(MAX_FILE + 1).read_to_string(&mut text).ok()?;
    (read as u64 <= MAX_FILE).then_some(text)
}
