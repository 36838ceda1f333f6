//! Folders of the host in the guest, as the bridge asks for them. The folder itself travels beside the request,
//! as an open descriptor: the VMM never resolves a path of the host.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a session shares at once. Each costs a directory entry in the guest and a few kilobytes in the VMM.
pub const MAX_SHARES: usize = 64;
/// As long as a file name may be.
pub const MAX_SHARE_NAME: usize = 255;
/// Patterns of one list. Every lookup is held against them.
pub const MAX_PATTERNS: usize = 256;
/// One pattern.
pub const MAX_PATTERN: usize = 512;

/// A folder as the guest sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    pub name: ShareName,
    pub mode: ShareMode,
    pub cache: ShareCache,
    /// Patterns of what the guest does not see. All of them: whoever asks has added the defaults.
    pub hide: Vec<String>,
    /// Patterns of what the guest sees and cannot change.
    pub protect: Vec<String>,
    #[serde(default)]
    pub limits: ShareLimits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShareMode {
    ReadOnly,
    ReadWrite,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShareCache {
    /// The host may change the folder at any time; the guest sees it within a second.
    #[default]
    Shared,
    /// Nobody but the guest changes the folder while it is shared; the guest caches as long as it likes.
    Exclusive,
}

/// What the guest may add to a folder. Absent: what the file system has, less what is kept for the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareLimits {
    /// Bytes by which the guest may make files larger, all together.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// Files and directories the guest may make.
    #[serde(default)]
    pub files: Option<u64>,
}

/// The name of a shared folder in the guest: one component of a path, not hidden, printable.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ShareName(String);

impl ShareName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ShareName {
    type Error = ShareNameError;

    fn try_from(name: String) -> Result<Self, ShareNameError> {
        let bad = name.is_empty()
            || name.len() > MAX_SHARE_NAME
            || name.starts_with('.')
            || name.chars().any(|c| c == '/' || c.is_control());
        if bad {
            return Err(ShareNameError { name });
        }
        Ok(ShareName(name))
    }
}

impl From<ShareName> for String {
    fn from(name: ShareName) -> String {
        name.0
    }
}

impl fmt::Display for ShareName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} cannot be a folder's name: 1 to {MAX_SHARE_NAME} bytes, no leading dot, no slash, printable"
)]
pub struct ShareNameError {
    name: String,
}

/// A shared folder and what has happened in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareStatus {
    pub name: ShareName,
    pub mode: ShareMode,
    pub cache: ShareCache,
    /// The folder itself is gone from the host, or cannot be reached any more.
    pub lost: bool,
    pub counts: ShareCounts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareCounts {
    /// Requests answered.
    pub requests: u64,
    /// Requests refused by mode, pattern or limit.
    pub refused: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
    /// Files and directories the guest's kernel knows at the moment.
    pub known: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_name_is_one_visible_component() {
        for name in ["a", "my project", "ünïcode", &"x".repeat(255)] {
            assert!(ShareName::try_from(name.to_owned()).is_ok(), "{name}");
        }
        for name in ["", ".", "..", ".hidden", "a/b", "a\0b", "a\nb", &"x".repeat(256)] {
            assert!(ShareName::try_from(name.to_owned()).is_err(), "{name:?}");
        }
    }
}
