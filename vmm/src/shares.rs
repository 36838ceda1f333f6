//! Folders of the host in the guest: what the bridge asks for, as the file system takes it.

use std::{collections::BTreeMap, os::fd::OwnedFd, sync::Arc, time::Duration};

use rustix::process::{Resource, getrlimit};
use share_fs::{AddError, Cache, Exports, Limits, OpenError, ShareConfig, ShareInfo};
use share_policy::{Mode, PatternError, PatternSet, PolicyError, SharePolicy};
use vmm_api::{Share, ShareCache, ShareCounts, ShareLimits, ShareMode, ShareName, ShareStatus};

use crate::deadline;

/// How long a folder may take to say what it is. One on a server that is gone takes for ever, and the rest of the
/// machine is not to wait for it.
const FOLDER_DEADLINE: Duration = Duration::from_secs(2);
/// Of all descriptors folders may hold half; the other half is for the guest's connections and everything else.
const DESCRIPTOR_SHARE: u64 = 2;
/// More open files save no more work, and each pins memory of the host's kernel.
const MAX_DESCRIPTORS: u64 = 16 * 1024;

#[derive(Debug)]
pub(crate) struct Shares {
    exports: Arc<Exports>,
    /// How each folder was asked for.
    asked: BTreeMap<ShareName, (ShareMode, ShareCache)>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ShareError {
    #[error("no descriptor of folder {name} came with the request")]
    NoDescriptor { name: ShareName },
    #[error("cannot hide what the list for folder {name} says")]
    Hide { name: ShareName, source: PatternError },
    #[error("cannot protect what the list for folder {name} says")]
    Protect { name: ShareName, source: PatternError },
    #[error("cannot share folder {name} that way")]
    Policy { name: ShareName, source: PolicyError },
    #[error("cannot share folder {name}")]
    Add { name: ShareName, source: AddError },
    #[error("no folder {name} is shared")]
    NotShared { name: ShareName },
    #[error("folder {name} did not answer within {} s", FOLDER_DEADLINE.as_secs())]
    Late { name: ShareName },
    #[error("a folder did not answer within {} s", FOLDER_DEADLINE.as_secs())]
    SomeLate,
}

impl Shares {
    pub(crate) fn new() -> Result<Self, OpenError> {
        let may_open = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let descriptors = (may_open / DESCRIPTOR_SHARE).min(MAX_DESCRIPTORS);
        Ok(Shares {
            exports: Arc::new(Exports::new(descriptors as usize)?),
            asked: BTreeMap::new(),
        })
    }

    /// The file system that has the folders in it.
    pub(crate) fn exports(&self) -> &Arc<Exports> {
        &self.exports
    }

    pub(crate) fn add(&mut self, share: &Share, folder: Option<OwnedFd>) -> Result<(), ShareError> {
        let name = &share.name;
        let folder = folder.ok_or_else(|| ShareError::NoDescriptor { name: name.clone() })?;
        let config = config(share)?;
        let (exports, text) = (Arc::clone(&self.exports), name.as_str().to_owned());
        let (late, same) = (Arc::clone(&self.exports), text.clone());
        deadline::run(
            "share-add",
            FOLDER_DEADLINE,
            move || exports.add(&text, folder, config),
            move |added| {
                if added.is_ok() {
                    late.remove(&same);
                }
            },
        )
        .ok_or_else(|| ShareError::Late { name: name.clone() })?
        .map_err(|source| ShareError::Add {
            name: name.clone(),
            source,
        })?;
        self.asked.insert(name.clone(), (share.mode, share.cache));
        Ok(())
    }

    pub(crate) fn remove(&mut self, name: &ShareName) -> Result<(), ShareError> {
        let (exports, text) = (Arc::clone(&self.exports), name.as_str().to_owned());
        // Whether it is there is known at once; what takes time is to close it, and nobody need wait for that.
        let removed = self.asked.remove(name).is_some();
        deadline::run(
            "share-remove",
            FOLDER_DEADLINE,
            move || exports.remove(&text),
            drop,
        );
        match removed {
            true => Ok(()),
            false => Err(ShareError::NotShared { name: name.clone() }),
        }
    }

    /// In the order of their names.
    pub(crate) fn status(&self) -> Result<Vec<ShareStatus>, ShareError> {
        let exports = Arc::clone(&self.exports);
        let infos = deadline::run("shares", FOLDER_DEADLINE, move || exports.status(), drop)
            .ok_or(ShareError::SomeLate)?;
        let info = |name: &ShareName| infos.iter().find(|info| info.name == name.as_str());
        let status = |(name, (mode, cache)): (&ShareName, &(ShareMode, ShareCache))| {
            Some(status(name, *mode, *cache, info(name)?))
        };
        Ok(self.asked.iter().filter_map(status).collect())
    }
}

fn status(name: &ShareName, mode: ShareMode, cache: ShareCache, info: &ShareInfo) -> ShareStatus {
    ShareStatus {
        name: name.clone(),
        mode,
        cache,
        lost: info.lost,
        counts: ShareCounts {
            requests: info.requests,
            refused: info.refused,
            read_bytes: info.read_bytes,
            written_bytes: info.written_bytes,
            known: info.known,
        },
    }
}

fn config(share: &Share) -> Result<ShareConfig, ShareError> {
    let name = || share.name.clone();
    let hidden =
        PatternSet::parse(&share.hide).map_err(|source| ShareError::Hide { name: name(), source })?;
    let protected =
        PatternSet::parse(&share.protect).map_err(|source| ShareError::Protect { name: name(), source })?;
    let mode = match share.mode {
        ShareMode::ReadOnly => Mode::ReadOnly,
        ShareMode::ReadWrite => Mode::ReadWrite,
    };
    let policy = SharePolicy::new(mode, hidden, protected)
        .map_err(|source| ShareError::Policy { name: name(), source })?;
    let ShareLimits { bytes, files } = share.limits;
    Ok(ShareConfig {
        policy,
        cache: match share.cache {
            ShareCache::Shared => Cache::Shared,
            ShareCache::Exclusive => Cache::Exclusive,
        },
        limits: Limits { bytes, files },
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn share(name: &str) -> Share {
        Share {
            name: ShareName::try_from(name.to_owned()).unwrap(),
            mode: ShareMode::ReadOnly,
            cache: ShareCache::Exclusive,
            hide: vec![".ssh".into()],
            protect: vec![".git/hooks/*".into()],
            limits: ShareLimits::default(),
        }
    }

    fn open(path: &std::path::Path) -> Option<OwnedFd> {
        Some(File::open(path).unwrap().into())
    }

    #[test]
    fn folders_come_and_go_and_are_listed_as_they_were_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut shares = Shares::new().unwrap();
        shares.add(&share("b"), open(folder.path())).unwrap();
        shares.add(&share("a"), open(folder.path())).unwrap();
        let listed = shares.status().unwrap();
        assert_eq!(listed.len(), 2);
        assert_eq!(listed[0].name.as_str(), "a");
        assert_eq!(
            (listed[0].mode, listed[0].cache, listed[0].lost),
            (ShareMode::ReadOnly, ShareCache::Exclusive, false)
        );
        shares.remove(&listed[0].name).unwrap();
        assert_eq!(shares.status().unwrap().len(), 1);
        assert!(matches!(
            shares.remove(&listed[0].name),
            Err(ShareError::NotShared { .. })
        ));
        shares.add(&share("a"), open(folder.path())).unwrap();
        assert_eq!(shares.status().unwrap().len(), 2);
    }

    #[test]
    fn what_cannot_be_shared_is_refused_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut shares = Shares::new().unwrap();
        assert!(matches!(
            shares.add(&share("a"), None),
            Err(ShareError::NoDescriptor { .. })
        ));
        assert!(matches!(
            shares.add(&share("a"), open(file.path())),
            Err(ShareError::Add { .. })
        ));
        let mut bad = share("a");
        bad.hide = vec!["a//b".into()];
        assert!(matches!(
            shares.add(&bad, open(folder.path())),
            Err(ShareError::Hide { .. })
        ));
        let mut bad = share("a");
        bad.protect = vec!["{".into()];
        assert!(matches!(
            shares.add(&bad, open(folder.path())),
            Err(ShareError::Protect { .. })
        ));
        assert_eq!(shares.status().unwrap(), []);
        shares.add(&share("a"), open(folder.path())).unwrap();
        assert!(matches!(
            shares.add(&share("a"), open(folder.path())),
            Err(ShareError::Add { .. })
        ));
        assert_eq!(shares.status().unwrap().len(), 1);
    }
}
