use std::{os::fd::OwnedFd, path::PathBuf};

use serde::{Deserialize, Serialize};
use vmm_api::{Share, ShareCache, ShareLimits, ShareMode, ShareName};

use super::{
    patterns,
    place::{Guard, Place},
};
use crate::Result;

/// A folder as a session has it and as its record keeps it: what was said, with the path and the name settled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedFolder {
    pub name: ShareName,
    /// With no link on the way. One that appears there later is refused, not followed.
    pub path: PathBuf,
    pub rules: FolderRules,
    /// The user knows what this folder is, and shares it all the same.
    pub i_know: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderRules {
    pub mode: ShareMode,
    pub cache: ShareCache,
    /// Patterns beside the default ones; one that begins with `!` takes a default back.
    pub hide: Vec<String>,
    pub protect: Vec<String>,
    pub limits: ShareLimits,
}

impl FolderRules {
    pub fn new(mode: ShareMode) -> Self {
        FolderRules {
            mode,
            cache: ShareCache::default(),
            hide: Vec::new(),
            protect: Vec::new(),
            limits: ShareLimits::default(),
        }
    }

    pub fn mode_word(&self) -> &'static str {
        match self.mode {
            ShareMode::ReadOnly => "ro",
            ShareMode::ReadWrite => "rw",
        }
    }

    pub fn cache_word(&self) -> &'static str {
        match self.cache {
            ShareCache::Shared => "shared",
            ShareCache::Exclusive => "exclusive",
        }
    }

    /// What differs from a folder of which nothing was said, as it is typed.
    pub fn changes(&self) -> Vec<String> {
        let list = |patterns: &[String], add: &str, take_back: &str| -> Vec<String> {
            let option = |pattern: &String| match pattern.strip_prefix('!') {
                Some(pattern) => format!("{take_back}={pattern}"),
                None => format!("{add}={pattern}"),
            };
            patterns.iter().map(option).collect()
        };
        let mut changes = list(&self.hide, "hide", "show");
        changes.extend(list(&self.protect, "protect", "unprotect"));
        changes.extend(
            self.limits
                .bytes
                .map(|bytes| format!("max-bytes={}", crate::shape::Bytes(bytes))),
        );
        changes.extend(self.limits.files.map(|files| format!("max-files={files}")));
        changes
    }
}

impl SharedFolder {
    /// What the machine is told. The lists are made now, so that a session that is started again by a later version
    /// has that version's defaults too.
    pub(crate) fn share(&self) -> Share {
        Share {
            name: self.name.clone(),
            mode: self.rules.mode,
            cache: self.rules.cache,
            hide: patterns::hidden(&self.rules.hide),
            protect: patterns::protected(&self.rules.protect),
            limits: self.rules.limits,
        }
    }

    /// What the agent is told.
    pub(crate) fn for_agent(&self) -> agent_protocol::Folder {
        agent_protocol::Folder {
            name: self.name.as_str().as_bytes().to_vec(),
            read_only: self.rules.mode == ShareMode::ReadOnly,
        }
    }

    /// Finds the folder again, holds it against the rules as they are now, and opens it.
    pub(crate) fn open(&self, guard: &Guard) -> Result<Opened> {
        let place = Place::again(&self.path)?;
        if !self.i_know {
            guard.check(&place)?;
        }
        Ok(Opened {
            share: self.share(),
            folder: place.open()?,
        })
    }
}

/// A folder on its way to the machine.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) share: Share,
    pub(crate) folder: OwnedFd,
}
