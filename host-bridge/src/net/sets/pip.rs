//! `@pip`: pip's own constants and its configuration, by its own modules.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    Tools,
    learned::{Found, Missed},
    url::Origin,
};

/// The first index that pip knows is the one it uses; another is for trying things out. Newer versions keep the settings of each file apart, in the order in which they count.
const ASK: &str = r#"
import json
try:
    from pip._internal.configuration import Configuration
    from pip._internal.models import index
except ImportError:
    print("null")
else:
    read = Configuration(isolated=False)
    read.load()
    settings = {}
    for key, value in read.items():
        settings.update(value if isinstance(value, dict) else {key: value})
    own = next(known for known in vars(index).values() if isinstance(known, index.PackageIndex))
    print(json.dumps({"index": own.simple_url, "files": own.file_storage_domain, "settings": settings}))
"#;

/// The sections that count for what downloads, the strongest first.
const SECTIONS: [&str; 4] = [":env:", "install", "download", "global"];

#[derive(Deserialize)]
struct Said {
    /// Where pip looks when nothing else is configured.
    index: String,
    /// Where the files of that are.
    files: String,
    settings: BTreeMap<String, serde_json::Value>,
}

pub(super) fn learn(tools: &Tools) -> Result<Found, Missed> {
    let said = tools.ask("python3", &["-c", ASK])?;
    let said: Option<Said> =
        serde_json::from_str(&said).map_err(|_| Missed("pip's answer makes no sense".to_owned()))?;
    match said {
        Some(said) => Ok(found(&said)),
        None => Err(Missed("pip is not installed here".to_owned())),
    }
}

fn found(said: &Said) -> Found {
    let mut found = Found::default();
    let (index, extra) = (said.setting("index-url"), said.words("extra-index-url"));
    let own = Origin::of(&said.index);
    if !said.is_set("no-index") {
        found.reach(index.unwrap_or(&said.index));
        extra.iter().for_each(|url| found.reach(url));
        // Also when the index is configured, as what it would be anyway.
        if own.is_some_and(|own| found.origins.contains(&own)) {
            found.origins.extend(Origin::host(&said.files));
        }
        found.tell("PIP_INDEX_URL", index.as_slice());
        found.tell("PIP_EXTRA_INDEX_URL", &extra);
        found.tell("PIP_TRUSTED_HOST", &said.words("trusted-host"));
    }
    said.words("find-links").iter().for_each(|url| found.reach(url));
    found
}

impl Said {
    /// The strongest.
    fn setting(&self, name: &str) -> Option<&str> {
        let set = SECTIONS
            .iter()
            .find_map(|section| self.settings.get(&format!("{section}.{name}"))?.as_str());
        set.map(str::trim).filter(|set| !set.is_empty())
    }

    /// A setting that is a list, with spaces or line ends between.
    fn words(&self, name: &str) -> Vec<&str> {
        self.setting(name)
            .unwrap_or_default()
            .split_whitespace()
            .collect()
    }

    fn is_set(&self, name: &str) -> bool {
        self.setting(name)
            .is_some_and(|word| ["1", "true", "yes", "on"].contains(&word.to_ascii_lowercase().as_str()))
    }
}
