//! `manifest.json`: what an image is made of and from. It holds no time and no host path that would
//! make two builds of the same packages differ.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Context;
use crate::staging::write_private;
use crate::{Digest, Error, ImageName, Result, Selection};

/// The one format this program writes and reads.
pub const FORMAT: u32 = 1;

pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const KERNEL: &str = "vmlinux";
pub(crate) const INITRAMFS: &str = "initramfs.cpio";
pub(crate) const ROOTFS: &str = "rootfs.erofs";
pub(crate) const MODULES: &str = "modules";

/// The default image lists some 200 packages, a desktop 3,000: a megabyte. Larger is not ours.
const MAX_BYTES: u64 = 16 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format: u32,
    pub name: ImageName,
    pub source: Source,
    /// Of the recipe that a build followed; imports have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<Digest>,
    /// Of the guest agent packed into the initramfs.
    pub agent: Digest,
    pub kernel_version: String,
    pub kernel: Part,
    pub initramfs: Part,
    pub rootfs: Part,
    /// Kernel modules of the initramfs in the order in which they are loaded.
    pub modules: Vec<Part>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<RunConfig>,
    pub packages: Vec<Package>,
}

/// A file of an image, named relative to the image's directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    pub file: String,
    pub size: u64,
    pub sha256: Digest,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Source {
    /// Built from Debian packages.
    Debian(Selection),
    /// Imported; `from` is the file name that was given, without its folder.
    Directory {
        from: String,
    },
    Tar {
        from: String,
    },
    Oci {
        from: String,
    },
}

/// What an OCI image says about running it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    pub name: String,
    pub version: String,
    pub arch: String,
}

impl Manifest {
    pub(crate) fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(MANIFEST);
        let size = std::fs::metadata(&path).context("read", &path)?.len();
        if size > MAX_BYTES {
            return Err(Error::OverLimit {
                what: "bytes of manifest",
                limit: MAX_BYTES,
            });
        }
        let text = std::fs::read(&path).context("read", &path)?;
        Self::parse(&path, &text)
    }

    fn parse(path: &Path, text: &[u8]) -> Result<Self> {
        let json = |source| Error::Json {
            path: path.to_owned(),
            source,
        };
        let Versioned { format } = serde_json::from_slice(text).map_err(json)?;
        if format != FORMAT {
            return Err(Error::UnknownFormat {
                path: path.to_owned(),
                found: format,
                known: FORMAT,
            });
        }
        serde_json::from_slice(text).map_err(json)
    }

    pub(crate) fn write(&self, directory: &Path) -> Result<()> {
        let path = directory.join(MANIFEST);
        let json = |source| Error::Json {
            path: path.clone(),
            source,
        };
        let mut text = serde_json::to_vec_pretty(self).map_err(json)?;
        text.push(b'\n');
        write_private(&path, &text)
    }
}

/// Read first, so that a manifest of another format is refused as such and not for its fields.
#[derive(Deserialize)]
struct Versioned {
    format: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let part = |file: &str| Part {
            file: file.into(),
            size: 3,
            sha256: Digest::of(b"abc"),
        };
        Manifest {
            format: FORMAT,
            name: ImageName::default(),
            source: Source::Debian(Selection::default()),
            recipe: Some(Digest::of(b"recipe")),
            agent: Digest::of(b"agent"),
            kernel_version: "6.12".into(),
            kernel: part(KERNEL),
            initramfs: part(INITRAMFS),
            rootfs: part(ROOTFS),
            modules: vec![part("modules/erofs.ko")],
            config: None,
            packages: vec![Package {
                name: "bash".into(),
                version: "5".into(),
                arch: "amd64".into(),
            }],
        }
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let directory = tempfile::tempdir().unwrap();
        manifest().write(directory.path()).unwrap();
        assert_eq!(Manifest::read(directory.path()).unwrap(), manifest());
    }

    #[test]
    fn another_format_is_refused_as_such_even_when_its_fields_are_unknown() {
        let error = Manifest::parse(Path::new("m"), br#"{"format": 2, "shape": "round"}"#).unwrap_err();
        assert!(
            matches!(
                error,
                Error::UnknownFormat {
                    found: 2,
                    known: 1,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_field_in_our_own_format_is_refused() {
        let mut value = serde_json::to_value(manifest()).unwrap();
        value["colour"] = "red".into();
        let text = serde_json::to_vec(&value).unwrap();
        assert!(matches!(
            Manifest::parse(Path::new("m"), &text),
            Err(Error::Json { .. })
        ));
    }
}
