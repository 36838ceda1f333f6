//! The image a session boots, checked.

use std::path::PathBuf;

use images::{ImageName, OpenPart, Store};
use serde::{Deserialize, Serialize};

use crate::{Paths, Result};

/// The guest agent's program, which lies beside ours and is packed into every image.
pub(crate) const AGENT_PROGRAM: &str = "coffer-agent";

/// The parts of an image the machine is given, after their hashes were checked. By path: an image built anew under
/// the same name while this one starts is opened in its place.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BootImage {
    pub name: String,
    /// What tells this root file system from another of the same name.
    pub id: Option<String>,
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
    pub rootfs: PathBuf,
    /// Variables the image asks for, which what the user says comes after.
    pub env: Vec<(String, String)>,
}

impl BootImage {
    /// The image called `name`, or the default one.
    pub fn find(paths: &Paths, name: Option<&str>) -> Result<Self> {
        let name = name.map(ImageName::parse).transpose()?.unwrap_or_default();
        let image = Store::new(paths.images()).find(&name)?;
        let parts = image.verify()?;
        let path = |part: OpenPart| part.path;
        let manifest = image.manifest();
        let env = manifest.config.iter().flat_map(|config| &config.env);
        Ok(BootImage {
            name: name.to_string(),
            id: Some(manifest.rootfs.sha256.to_string()),
            kernel: path(parts.kernel),
            initramfs: path(parts.initramfs),
            rootfs: path(parts.rootfs),
            env: env
                .filter_map(|pair| pair.split_once('='))
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect(),
        })
    }
}
