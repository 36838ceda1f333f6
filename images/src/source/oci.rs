//! OCI images: an index names manifests, a manifest names layers, and every name is a digest that is
//! checked. Also the older archive of `docker save`, whose layers are known by what they unpack to.

use std::io::{self, Read};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::blobs::Blobs;
use crate::digest::Hashing;
use crate::tarball::{self, Whiteouts};
use crate::tree::Tree;
use crate::{Digest, Error, Result, RunConfig, compress};

/// What registries accept as a manifest.
const MAX_JSON: u64 = 4 << 20;
/// Docker stops at 127.
const MAX_LAYERS: usize = 512;
/// An index in the index of a layout is what multi-platform images are.
const MAX_NESTING: usize = 4;
const OS: &str = "linux";
const ARCHITECTURE: &str = "amd64";

/// Applies the layers of the one image for our platform in an OCI layout.
pub(super) fn import_layout(tree: &mut Tree, blobs: &dyn Blobs, image: &str) -> Result<RunConfig> {
    let reader = Reader { blobs, image };
    let mut document: Document = reader.json("index.json", blobs.open("index.json")?)?;
    for _ in 0..MAX_NESTING {
        let Some(manifests) = document.manifests else {
            break;
        };
        document = reader.checked_json(&reader.choose(&manifests)?)?;
    }
    let (Some(config), Some(layers)) = (document.config, document.layers) else {
        return Err(reader.refuse("it has no manifest with a configuration and layers"));
    };
    let config: ImageConfig = reader.checked_json(&config)?;
    reader.check_platform(&config)?;
    let contents = layers.into_iter().map(|layer| {
        let digest = reader.digest(&layer.digest)?;
        Ok(Layer {
            file: blob_file(digest),
            content: Some((digest, layer.size)),
        })
    });
    let contents: Result<Vec<_>> = contents.collect();
    reader.apply(tree, &contents?, &config)?;
    Ok(config.run())
}

/// Applies the layers of a `docker save` archive; none when `manifest.json` is not one of Docker's.
pub(super) fn import_docker(tree: &mut Tree, blobs: &dyn Blobs, image: &str) -> Result<Option<RunConfig>> {
    let reader = Reader { blobs, image };
    let Ok(file) = blobs.open("manifest.json") else {
        return Ok(None);
    };
    let Ok(images) = reader.json::<Vec<DockerImage>>("manifest.json", file) else {
        return Ok(None);
    };
    let [docker] = &images[..] else {
        return Err(reader.refuse(&format!("it holds {} images: save one", images.len())));
    };
    let config: ImageConfig = reader.json(&docker.config, blobs.open(&docker.config)?)?;
    reader.check_platform(&config)?;
    if config.rootfs.diff_ids.len() != docker.layers.len() {
        return Err(reader.refuse("its configuration does not have a digest for each layer"));
    }
    let layers = docker.layers.iter().map(|file| Layer {
        file: file.clone(),
        content: None,
    });
    reader.apply(tree, &layers.collect::<Vec<_>>(), &config)?;
    Ok(Some(config.run()))
}

struct Reader<'a> {
    blobs: &'a dyn Blobs,
    image: &'a str,
}

struct Layer {
    file: String,
    /// Digest and size of the file, where the image says them.
    content: Option<(Digest, u64)>,
}

impl Reader<'_> {
    fn refuse(&self, problem: &str) -> Error {
        Error::BadLayout {
            image: self.image.to_owned(),
            problem: problem.to_owned(),
        }
    }

    /// The one manifest for our platform. Entries that are not images (attestations) say another
    /// platform; those that say none are looked into.
    fn choose(&self, manifests: &[Descriptor]) -> Result<Descriptor> {
        let ours = |platform: &Platform| platform.os == OS && platform.architecture == ARCHITECTURE;
        let mut fitting: Vec<_> = manifests
            .iter()
            .filter(|entry| entry.platform.as_ref().is_none_or(ours))
            .collect();
        fitting.dedup_by_key(|entry| &entry.digest);
        match fitting[..] {
            [one] => Ok(one.clone()),
            [] => Err(self.refuse("it has nothing for linux/amd64")),
            _ => Err(self.refuse(&format!(
                "it holds {} images for linux/amd64: save one",
                fitting.len()
            ))),
        }
    }

    fn check_platform(&self, config: &ImageConfig) -> Result<()> {
        if config.os == OS && config.architecture == ARCHITECTURE {
            return Ok(());
        }
        let found = format!(
            "it is for {}/{}, not for linux/amd64",
            config.os, config.architecture
        );
        Err(self.refuse(&found))
    }

    fn digest(&self, text: &str) -> Result<Digest> {
        match text.strip_prefix("sha256:") {
            Some(digits) => Digest::parse(digits),
            None => Err(self.refuse(&format!("{text:?} is not a sha256 digest"))),
        }
    }

    fn json<T: DeserializeOwned>(&self, name: &str, file: impl Read) -> Result<T> {
        let archive = |source| Error::Archive {
            archive: name.to_owned(),
            source,
        };
        let text = compress::read_bounded(file, MAX_JSON).map_err(archive)?;
        serde_json::from_slice(&text).map_err(|source| Error::Json {
            path: name.into(),
            source,
        })
    }

    fn checked_json<T: DeserializeOwned>(&self, descriptor: &Descriptor) -> Result<T> {
        let expected = self.digest(&descriptor.digest)?;
        let name = blob_file(expected);
        let mut file = Hashing::new(self.blobs.open(&name)?);
        let document = self.json(&name, &mut file);
        check(&name, file, (expected, descriptor.size))?;
        document
    }

    fn apply(&self, tree: &mut Tree, layers: &[Layer], config: &ImageConfig) -> Result<()> {
        if layers.len() > MAX_LAYERS {
            return Err(Error::OverLimit {
                what: "layers",
                limit: MAX_LAYERS as u64,
            });
        }
        for (index, layer) in layers.iter().enumerate() {
            let unpacked = config
                .rootfs
                .diff_ids
                .get(index)
                .map(|id| self.digest(id))
                .transpose()?;
            self.apply_layer(tree, layer, unpacked)?;
        }
        Ok(())
    }

    /// Hashes a layer as it lies there while it is unpacked, once. A wrong digest explains whatever
    /// else was wrong with it, so it is told first.
    fn apply_layer(&self, tree: &mut Tree, layer: &Layer, unpacked: Option<Digest>) -> Result<()> {
        let limit = layer.content.map_or(u64::MAX, |(_, size)| size.saturating_add(1));
        let mut file = Hashing::new(self.blobs.open(&layer.file)?.take(limit));
        let applied = unpack(tree, &layer.file, &mut file, unpacked);
        if let Some(expected) = layer.content {
            check(&layer.file, file, expected)?;
        }
        applied
    }
}

fn unpack(tree: &mut Tree, name: &str, file: impl Read, expected: Option<Digest>) -> Result<()> {
    let damaged = |source| Error::Archive {
        archive: name.to_owned(),
        source,
    };
    let mut stream = Hashing::new(compress::decoded(file).map_err(damaged)?);
    tarball::apply(tree, name, &mut stream, Whiteouts::Apply)?;
    drain(&mut stream).map_err(damaged)?;
    let found = stream.finish().0;
    match expected {
        Some(expected) if expected != found => Err(Error::CorruptBlob {
            what: format!("{name}, unpacked,"),
            expected,
            found,
        }),
        _ => Ok(()),
    }
}

/// Reads what is left, so that the hash is that of the whole, and compares.
fn check(name: &str, mut file: Hashing<impl Read>, (digest, size): (Digest, u64)) -> Result<()> {
    let damaged = |source| Error::Archive {
        archive: name.to_owned(),
        source,
    };
    io::copy(&mut (&mut file).take(size.saturating_add(1)), &mut io::sink()).map_err(damaged)?;
    let (found, bytes) = file.finish();
    if found != digest {
        return Err(Error::CorruptBlob {
            what: name.to_owned(),
            expected: digest,
            found,
        });
    }
    if bytes != size {
        let problem = format!("{name} has {bytes} bytes where {size} are announced");
        return Err(Error::BadLayout {
            image: name.to_owned(),
            problem,
        });
    }
    Ok(())
}

/// A layer ends with zeros to a full record; more than this after its end is not a layer.
fn drain(stream: impl Read) -> io::Result<()> {
    const MAX_PADDING: u64 = 16 << 20;
    let n = io::copy(&mut stream.take(MAX_PADDING + 1), &mut io::sink())?;
    if n > MAX_PADDING {
        Err(io::Error::other("data after the end of the archive"))
    } else {
        Ok(())
    }
}

fn blob_file(digest: Digest) -> String {
    format!("blobs/sha256/{digest}")
}

/// An index has `manifests`, a manifest `config` and `layers`.
#[derive(Deserialize)]
struct Document {
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

#[derive(Clone, Deserialize)]
struct Descriptor {
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Clone, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

#[derive(Deserialize)]
struct ImageConfig {
    os: String,
    architecture: String,
    config: Option<ProcessConfig>,
    #[serde(default)]
    rootfs: RootFs,
}

impl ImageConfig {
    fn run(self) -> RunConfig {
        let process = self.config.unwrap_or_default();
        RunConfig {
            env: process.env.unwrap_or_default(),
            working_dir: process.working_dir.filter(|directory| !directory.is_empty()),
        }
    }
}

#[derive(Default, Deserialize)]
struct ProcessConfig {
    #[serde(rename = "Env")]
    env: Option<Vec<String>>,
    #[serde(rename = "WorkingDir")]
    working_dir: Option<String>,
}

#[derive(Default, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

#[derive(Deserialize)]
struct DockerImage {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "Layers")]
    layers: Vec<String>,
}
