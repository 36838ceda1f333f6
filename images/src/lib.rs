//! Images: what a session boots from, how they are made, and whether they are still what they were.
//!
//! An image is a folder with a kernel, an initramfs holding the guest agent, a read-only root file
//! system and a manifest with the digest of each. It is built from Debian packages or imported from
//! a folder, a tar or an OCI image, and appears in the store whole or not at all. Archives are read
//! into memory and written as EROFS by this crate: nothing in them ever touches the host's files.

mod ar;
mod compress;
mod debian;
mod digest;
mod erofs;
mod error;
mod initramfs;
mod kernel;
mod manifest;
mod modules;
mod name;
mod parts;
mod progress;
mod source;
mod staging;
mod store;
mod tarball;
mod tree;
mod verify;

pub use digest::Digest;
pub use error::{Error, Result};
pub use manifest::{FORMAT, Manifest, Package, Part, RunConfig, Source};
pub use name::{ImageName, PackageName, Selection, Suite};
pub use progress::{Progress, Report};
pub use store::{BuildRequest, Image, ImportRequest, KernelFile, Staleness, Store};
pub use verify::{BootParts, OpenPart};
