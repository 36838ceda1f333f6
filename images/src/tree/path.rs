//! Names and paths inside the tree, parsed from bytes that anyone may have written.

use std::fmt;

use crate::{Error, Result};

/// NAME_MAX of Linux and of EROFS.
const MAX_NAME: usize = 255;
/// PATH_MAX of Linux.
const MAX_PATH: usize = 4096;

/// One component: not empty, not `.` or `..`, without `/` and NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name(Box<[u8]>);

impl Name {
    pub(crate) fn parse(name: &[u8]) -> Result<Self> {
        let problem = match name {
            [] => "an empty name",
            b"." | b".." => "`.` or `..` where a name belongs",
            _ if name.len() > MAX_NAME => "a name longer than 255 bytes",
            _ if name.contains(&b'/') => "a name with a slash",
            _ if name.contains(&0) => "a name with a NUL byte",
            _ => return Ok(Self(name.into())),
        };
        Err(bad_entry(name, problem))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// A path from the root of the tree. A leading `/` or `./` means nothing; `..` is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TreePath(Vec<Name>);

impl TreePath {
    pub(crate) fn parse(path: &[u8]) -> Result<Self> {
        if path.len() > MAX_PATH {
            return Err(bad_entry(path, "a path longer than 4096 bytes"));
        }
        let names = path
            .split(|b| *b == b'/')
            .filter(|part| !matches!(*part, b"" | b"."));
        let names: Result<Vec<_>> = names.map(Name::parse).collect();
        names.map(Self).map_err(|error| match error {
            Error::BadEntry { problem, .. } => bad_entry(path, problem),
            other => other,
        })
    }

    pub(crate) fn names(&self) -> &[Name] {
        &self.0
    }

    /// The last name and the directories above it; none for the root itself.
    pub(crate) fn split_last(&self) -> Option<(&Name, &[Name])> {
        self.0.split_last()
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|name| write!(f, "/{name:?}"))
    }
}

/// The error for an entry, its name cut to what fits a line.
pub(crate) fn bad_entry(name: &[u8], problem: &'static str) -> Error {
    const SHOWN: usize = 200;
    let shown = &name[..name.len().min(SHOWN)];
    Error::BadEntry {
        entry: String::from_utf8_lossy(shown).into_owned(),
        problem,
    }
}
