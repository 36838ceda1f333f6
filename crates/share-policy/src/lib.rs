//! What a guest may do in a shared folder, as a pure decision: no descriptor, no thread, no clock.
//!
//! A file system says what is about to happen to which path of a share ([`Effect`], [`RelPath`]); a [`SharePolicy`]
//! says whether it may ([`Decision`]). Two lists of patterns ([`PatternSet`]) carry the exceptions: what the guest
//! does not see, and what it sees but cannot change because some tool of the host runs it unasked.
//!
//! The policy speaks of names. It does not protect from other names the host itself made for a protected file: a
//! hard link from before the share, or a symbolic link such as `.git/hooks` that leads to a folder of the share.
#![forbid(unsafe_code)]

mod defaults;
mod effect;
mod fold;
mod glob;
mod path;
mod pattern;
mod pattern_set;
mod policy;
mod rule;
mod standing;

pub use defaults::{DEFAULT_HIDDEN, DEFAULT_PROTECTED};
pub use effect::{Effect, EffectClass, Kind};
pub use path::{MAX_COMPONENT, MAX_PATH, PathError, RelPath};
pub use pattern::{MAX_PATTERN, MAX_VARIANTS, PatternError};
pub use pattern_set::{MAX_PATTERNS, MAX_RULES, PatternSet};
pub use policy::{Decision, Mode, PolicyError, Reach, Refusal, SharePolicy};
pub use rule::MAX_STEPS;
pub use standing::Standing;
