//! Folders of the host in a sandbox, as a person asks for them: `--share PATH[:OPTIONS][:AS]`.
//!
//! What was typed is read ([`typed`]), then given its meaning: the folder is found and held against the rules of
//! what is never shared by accident ([`place`]), its patterns are checked, it gets a name in the guest ([`names`]).
//! What comes out, a [`SharedFolder`], is what a session remembers; the machine gets it as a [`vmm_api::Share`] with
//! the open folder beside it.

mod asked;
mod folder;
mod names;
mod patterns;
mod place;
mod typed;

pub(crate) use asked::{Asked, asked_of, name_taken, settle};
pub(crate) use folder::Opened;
pub use folder::{FolderRules, SharedFolder};
#[cfg(test)]
pub(crate) use names::NameWish;
pub(crate) use names::is_own;
pub(crate) use place::Guard;

/// The folder of every session in which the guest leaves what it made.
pub(crate) const OUTPUTS: &str = "outputs";
/// The folder of every session that the host fills, read-only in the guest.
pub(crate) const UPLOADS: &str = "uploads";
/// What a session may share beside those two.
pub(crate) const MAX_FOLDERS: usize = vmm_api::MAX_SHARES - 2;
