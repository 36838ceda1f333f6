//! Names that reach a path or a command line: checked once, then trusted.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A file name holds 255 bytes; staging directories put a prefix and a number around an image's name.
const MAX_IMAGE_NAME: usize = 63;
/// Debian's longest suite name so far has 25 characters.
const MAX_SUITE_NAME: usize = 40;
/// Longer than any name in Debian.
const MAX_PACKAGE_NAME: usize = 128;

/// The name of an image in a store: also the name of its directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName(String);

impl ImageName {
    pub fn parse(name: &str) -> Result<Self> {
        let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        let continues_well = name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
        if starts_well && continues_well && name.len() <= MAX_IMAGE_NAME {
            Ok(Self(name.to_owned()))
        } else {
            Err(Error::BadName {
                name: name.to_owned(),
            })
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The image used when none is named.
impl Default for ImageName {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ImageName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::parse(name)
    }
}

impl TryFrom<String> for ImageName {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        Self::parse(&name)
    }
}

impl From<ImageName> for String {
    fn from(name: ImageName) -> Self {
        name.0
    }
}

/// A Debian suite, for instance `trixie`: it becomes an argument of mmdebstrap, so it cannot look like an option.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Suite(String);

impl Suite {
    pub fn parse(suite: &str) -> Result<Self> {
        let starts_well = suite.starts_with(|c: char| c.is_ascii_lowercase());
        let continues_well = suite
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if starts_well && continues_well && suite.len() <= MAX_SUITE_NAME {
            Ok(Self(suite.to_owned()))
        } else {
            Err(Error::BadSuite {
                suite: suite.to_owned(),
            })
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Suite {
    fn default() -> Self {
        Self("trixie".to_owned())
    }
}

/// The name of a Debian package beyond those every image has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PackageName(String);

impl PackageName {
    pub fn parse(name: &str) -> Result<Self> {
        let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b);
        if starts_well && name.bytes().all(allowed) && name.len() <= MAX_PACKAGE_NAME {
            Ok(Self(name.to_owned()))
        } else {
            Err(Error::BadPackage {
                package: name.to_owned(),
            })
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PackageName {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        Self::parse(&name)
    }
}

impl From<PackageName> for String {
    fn from(name: PackageName) -> Self {
        name.0
    }
}

/// What a build takes from Debian.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    pub suite: Suite,
    /// Beside those that every image has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<PackageName>,
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Suite {
    type Err = Error;

    fn from_str(suite: &str) -> Result<Self> {
        Self::parse(suite)
    }
}

impl TryFrom<String> for Suite {
    type Error = Error;

    fn try_from(suite: String) -> Result<Self> {
        Self::parse(&suite)
    }
}

impl From<Suite> for String {
    fn from(suite: Suite) -> Self {
        suite.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_are_accepted() {
        for name in ["default", "a", "0", "my-image_2.1", &"x".repeat(63)] {
            assert_eq!(ImageName::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn names_that_could_leave_the_store_or_hide_in_it_are_refused() {
        for name in [
            "",
            ".",
            "..",
            ".partial",
            "a/b",
            "-x",
            "A",
            "a b",
            "a\0",
            "é",
            &"x".repeat(64),
        ] {
            assert!(ImageName::parse(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_suite_cannot_look_like_an_option_or_a_path() {
        assert!(Suite::parse("trixie").is_ok());
        assert!(Suite::parse("bookworm-backports").is_ok());
        for suite in ["", "--help", "-x", "a/b", "a b", "Trixie"] {
            assert!(Suite::parse(suite).is_err(), "{suite:?}");
        }
    }
}
