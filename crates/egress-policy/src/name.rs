//! The name of a host, as a type that cannot be wrong.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What fits the 255 bytes of a name in DNS, written with dots.
pub const MAX_NAME: usize = 253;
/// What DNS has room for.
pub const MAX_LABEL: usize = 63;

/// Lower case, without the dot at the end; letters, digits, hyphens and underscores; never an address, in whatever
/// way a C library reads addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

impl HostName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `a.example.com` is below `example.com`; `example.com` and `anexample.com` are not.
    pub fn is_below(&self, parent: &HostName) -> bool {
        self.0
            .strip_suffix(&parent.0)
            .is_some_and(|rest| rest.ends_with('.'))
    }
}

impl TryFrom<&str> for HostName {
    type Error = HostNameError;

    fn try_from(text: &str) -> Result<Self, HostNameError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        check(name)?;
        Ok(HostName(name.to_ascii_lowercase()))
    }
}

impl TryFrom<String> for HostName {
    type Error = HostNameError;

    fn try_from(name: String) -> Result<Self, HostNameError> {
        name.as_str().try_into()
    }
}

impl FromStr for HostName {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<Self, HostNameError> {
        text.try_into()
    }
}

impl From<HostName> for String {
    fn from(name: HostName) -> String {
        name.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not the name of a host; `at` counts characters from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostNameError {
    #[error("a host name is not empty")]
    Empty,
    #[error("a host name has at most {MAX_NAME} characters")]
    TooLong,
    #[error("no host name has {character:?}")]
    Character { character: char, at: usize },
    #[error("{character:?} is not ASCII; write the name in its ASCII form, which begins with xn--")]
    NotAscii { character: char, at: usize },
    #[error("nothing between two dots")]
    EmptyLabel { at: usize },
    #[error("more than {MAX_LABEL} characters between two dots")]
    LongLabel { at: usize },
    #[error("a hyphen at the beginning or end of what is between two dots")]
    OuterHyphen { at: usize },
    #[error("an address, or what could be read as one, and not a name")]
    Address,
}

impl HostNameError {
    /// The first character that is wrong, counted from 1.
    pub fn at(self) -> usize {
        match self {
            HostNameError::Empty | HostNameError::Address => 1,
            HostNameError::TooLong => MAX_NAME + 1,
            HostNameError::Character { at, .. }
            | HostNameError::NotAscii { at, .. }
            | HostNameError::EmptyLabel { at }
            | HostNameError::LongLabel { at }
            | HostNameError::OuterHyphen { at } => at,
        }
    }
}

fn check(name: &str) -> Result<(), HostNameError> {
    if name.is_empty() {
        return Err(HostNameError::Empty);
    }
    if name.len() > MAX_NAME * 4 {
        // Not even in characters of four bytes; what is longer is not looked through.
        return Err(HostNameError::TooLong);
    }
    if name.parse::<std::net::Ipv6Addr>().is_ok() || name.starts_with('[') {
        return Err(HostNameError::Address);
    }
    check_characters(name)?;
    if name.len() > MAX_NAME {
        return Err(HostNameError::TooLong);
    }
    check_labels(name)?;
    if ends_in_a_number(name) {
        return Err(HostNameError::Address);
    }
    Ok(())
}

fn check_characters(name: &str) -> Result<(), HostNameError> {
    for (index, character) in name.chars().enumerate() {
        let at = index + 1;
        if !character.is_ascii() {
            return Err(HostNameError::NotAscii { character, at });
        }
        if !character.is_ascii_alphanumeric() && !matches!(character, '-' | '_' | '.') {
            return Err(HostNameError::Character { character, at });
        }
    }
    Ok(())
}

fn check_labels(name: &str) -> Result<(), HostNameError> {
    let mut at = 1;
    for label in name.split('.') {
        if label.is_empty() {
            return Err(HostNameError::EmptyLabel { at });
        }
        if label.len() > MAX_LABEL {
            return Err(HostNameError::LongLabel { at: at + MAX_LABEL });
        }
        if label.starts_with('-') {
            return Err(HostNameError::OuterHyphen { at });
        }
        if label.ends_with('-') {
            return Err(HostNameError::OuterHyphen {
                at: at + label.len() - 1,
            });
        }
        at += label.len() + 1;
    }
    Ok(())
}

/// `inet_aton` takes one to four numbers, in decimal, octal or hexadecimal, and no top-level domain is a number. So
/// this is the test that the URL standard has, too.
fn ends_in_a_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    match hexadecimal {
        Some(digits) => digits.bytes().all(|digit| digit.is_ascii_hexdigit()),
        None => last.bytes().all(|digit| digit.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests;
