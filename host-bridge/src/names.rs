//! The names of sessions: what a person types, a directory on the host, the guest's host name.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Keeps a socket's path under the kernel's limit and a host name under its own.
pub const MAX_NAME: usize = 40;

/// `[a-z0-9][a-z0-9-]{0,39}`: safe as one path component, as a host name, and in a shell.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionName(String);

impl SessionName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name nobody chose: friendly to read, and drawn from enough of them that two rarely meet.
    pub fn generate() -> Self {
        let [a, b, c, d] = random_bytes();
        let adjective = ADJECTIVES[usize::from(a) % ADJECTIVES.len()];
        let noun = NOUNS[usize::from(b) % NOUNS.len()];
        SessionName(format!("{adjective}-{noun}-{c:02x}{d:02x}"))
    }

    /// The one of `names` that was most likely meant.
    pub fn closest<'a>(&self, names: impl IntoIterator<Item = &'a SessionName>) -> Option<&'a SessionName> {
        /// More edits than this and it is another word.
        const MAX_EDITS: usize = 3;
        names
            .into_iter()
            .map(|name| (edits(&self.0, &name.0), name))
            .filter(|(edits, name)| *edits <= MAX_EDITS || name.0.starts_with(&self.0))
            .min_by_key(|(edits, _)| *edits)
            .map(|(_, name)| name)
    }
}

impl FromStr for SessionName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let valid = text.len() <= MAX_NAME
            && text.bytes().next().is_some_and(good)
            && text.bytes().all(|b| good(b) || b == b'-');
        if !valid {
            return Err(Error::SessionName {
                name: text.to_owned(),
            });
        }
        Ok(SessionName(text.to_owned()))
    }
}

impl TryFrom<String> for SessionName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<SessionName> for String {
    fn from(name: SessionName) -> String {
        name.0
    }
}

impl fmt::Display for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Levenshtein's distance, one row at a time.
pub(crate) fn edits(a: &str, b: &str) -> usize {
    let b = b.as_bytes();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Names need to differ, not to be secret: without a random source the clock will do.
fn random_bytes() -> [u8; 4] {
    let mut bytes = [0; 4];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK) {
        Ok(4) => bytes,
        _ => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or([0; 4], |now| now.subsec_nanos().to_be_bytes()),
    }
}

const ADJECTIVES: [&str; 32] = [
    "amber", "bold", "brisk", "calm", "clear", "crisp", "dry", "early", "fair", "fleet", "gentle", "glad",
    "keen", "kind", "level", "light", "lucky", "mellow", "neat", "noble", "plain", "quick", "quiet", "ready",
    "silver", "snug", "solid", "steady", "still", "swift", "tidy", "warm",
];

const NOUNS: [&str; 32] = [
    "anchor", "bay", "beacon", "bridge", "buoy", "canal", "cape", "cove", "delta", "dock", "dune", "ferry",
    "fjord", "harbour", "heron", "inlet", "island", "jetty", "keel", "lagoon", "lock", "marsh", "mole",
    "otter", "pier", "quay", "reef", "river", "shoal", "sluice", "tide", "weir",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_name_is_a_valid_name() {
        for _ in 0..200 {
            let name = SessionName::generate();
            assert_eq!(name.as_str().parse::<SessionName>().unwrap(), name);
        }
    }

    #[test]
    fn a_name_that_is_no_single_component_is_refused() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "-a",
            "A",
            "a_b",
            "a b",
            "é",
            &"a".repeat(41),
        ] {
            assert!(bad.parse::<SessionName>().is_err(), "{bad:?}");
        }
        assert!("a".repeat(40).parse::<SessionName>().is_ok());
    }

    #[test]
    fn a_slip_of_the_finger_finds_the_name_that_was_meant() {
        let names: Vec<SessionName> = ["build", "web-server", "calm-otter-01"]
            .map(|n| n.parse().unwrap())
            .into();
        let closest = |typed: &str| {
            typed
                .parse::<SessionName>()
                .unwrap()
                .closest(&names)
                .map(|n| n.as_str().to_owned())
        };
        assert_eq!(closest("biuld").as_deref(), Some("build"));
        assert_eq!(closest("calm").as_deref(), Some("calm-otter-01"));
        assert_eq!(closest("something-else"), None);
    }
}
