//! How a folder is shared.

use std::time::Duration;

use share_policy::SharePolicy;

/// Everything about a share but the folder itself.
#[derive(Debug)]
pub struct ShareConfig {
    pub policy: SharePolicy,
    pub cache: Cache,
    pub limits: Limits,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// The host may change the folder at any time.
    #[default]
    Shared,
    /// Only the guest changes the folder.
    Exclusive,
}

impl Cache {
    /// How long the guest's kernel may believe what it was told. It asks again after that, and drops the pages of a
    /// file whose time or size is not what it was.
    pub(crate) fn valid(self) -> Duration {
        match self {
            // A host edit must be seen within a second, and the answer is on its way for some of it.
            Cache::Shared => Duration::from_millis(900),
            Cache::Exclusive => Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// What the guest may add. `None`: as much as the file system has, less [`crate::host::quota::RESERVE_BYTES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub bytes: Option<u64>,
    pub files: Option<u64>,
}
