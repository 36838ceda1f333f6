//! `@apt`: the package sources of this host, as its apt reads them.

use super::{
    Tools,
    learned::{Found, Missed},
};

/// Also those whose lists were never fetched.
const ASK: [&str; 4] = ["indextargets", "--no-release-info", "--format", "$(SITE)"];

pub(super) fn learn(tools: &Tools) -> Result<Found, Missed> {
    let said = tools.ask("apt-get", &ASK)?;
    let mut found = Found::default();
    said.lines().for_each(|url| found.reach(url));
    Ok(found)
}
