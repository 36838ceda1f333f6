//! What can go wrong with images, each with the values a person needs to understand it.

use std::io;
use std::path::PathBuf;

use crate::{Digest, ImageName};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("{name:?} is not an image name")]
    BadName { name: String },
    #[error("{suite:?} is not the name of a Debian suite")]
    BadSuite { suite: String },
    #[error("not the name of a Debian package: {package:?}")]
    BadPackage { package: String },
    #[error("{text:?} is not a sha256 digest")]
    BadDigest { text: String },
    #[error("no image named {name}")]
    NoSuchImage { name: ImageName },
    #[error("cannot {act} {}", path.display())]
    Io {
        act: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} does not parse", path.display())]
    Json {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("{} has format {found}, this program reads format {known}", path.display())]
    UnknownFormat { path: PathBuf, found: u32, known: u32 },
    #[error("image {image} is corrupt: {file} has sha256 {found}, expected {expected}")]
    CorruptPart {
        image: ImageName,
        file: String,
        expected: Digest,
        found: Digest,
    },
    #[error("image {image} is corrupt: {file} has {found} bytes, expected {expected}")]
    WrongSize {
        image: ImageName,
        file: String,
        expected: u64,
        found: u64,
    },
    #[error("{tool} is not installed")]
    MissingTool {
        tool: &'static str,
        packages: &'static str,
    },
    #[error("{tool} failed ({status}): {last}")]
    ToolFailed {
        tool: &'static str,
        status: String,
        last: String,
        log: PathBuf,
    },
    #[error("{} is not a kernel that can be used: {problem}", path.display())]
    BadKernel { path: PathBuf, problem: &'static str },
    #[error("kernel {version} has no module {module}, built in or loadable")]
    MissingModule { module: String, version: String },
    #[error("{module} is not a kernel module that can be read: {problem}")]
    BadModule { module: String, problem: &'static str },
    #[error("no kernel for image {name}: there is no image named {default} to take it from")]
    NoKernel { name: ImageName, default: ImageName },
    #[error("cannot read {archive}")]
    Archive { archive: String, source: io::Error },
    #[error("entry {entry:?}: {problem}")]
    BadEntry { entry: String, problem: &'static str },
    #[error("too large: more than {limit} {what}")]
    OverLimit { what: &'static str, limit: u64 },
    #[error("{image} is not an image this program can import: {problem}")]
    BadLayout { image: String, problem: String },
    #[error("{what} is corrupt: sha256 {found}, expected {expected}")]
    CorruptBlob {
        what: String,
        expected: Digest,
        found: Digest,
    },
    #[error("{} is neither a directory nor a file", path.display())]
    NotASource { path: PathBuf },
}

impl Error {
    /// What to type or to look at next, where that is known.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::BadName { .. } => {
                "a name has 1 to 63 characters out of a-z, 0-9, '.', '_', '-', the first a letter or digit"
                    .into()
            }
            Self::NoSuchImage { .. } => {
                "`coffer image ls` shows what there is; `coffer image build` makes the default".into()
            }
            Self::CorruptPart { image, .. } | Self::WrongSize { image, .. } => {
                format!(
                    "make it again: `coffer image build` or `coffer image import`, or `coffer image rm {image}`"
                )
            }
            Self::UnknownFormat { .. } => {
                "it was made by another version: build or import the image again".into()
            }
            Self::MissingTool { packages, .. } => format!("sudo apt-get install --yes {packages}"),
            // mmdebstrap's words when an ordinary user has no range of ids for a user namespace.
            Self::ToolFailed { last, .. } if last.contains("unable to pick chroot mode") => {
                "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 \"$USER\"".into()
            }
            Self::ToolFailed { log, .. } => format!("the whole log is in {}", log.display()),
            Self::NoKernel { .. } => "`coffer image build` makes it, or name a kernel with --kernel".into(),
            Self::BadKernel { .. } => "an ELF vmlinux or a bzImage for x86-64 is expected".into(),
            Self::CorruptBlob { .. } => "fetch or save the image again".into(),
            _ => return None,
        })
    }
}

/// Gives an I/O error the act and the path it belongs to.
pub(crate) trait Context<T> {
    fn context(self, act: &'static str, path: impl Into<PathBuf>) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, act: &'static str, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|error| Error::Io {
            act,
            path: path.into(),
            source: error.into(),
        })
    }
}
