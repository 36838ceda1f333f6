use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;

use super::*;
use crate::Digest;
use crate::tree::Kind;

/// Writes small OCI images and keeps the tree they are imported into.
struct Fixture {
    scratch: tempfile::TempDir,
}

struct Layer {
    diff_id: Digest,
    blob: Vec<u8>,
}

fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        builder.append(&header, text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn layer(files: &[(&str, &str)], pack: impl Fn(&[u8]) -> Vec<u8>) -> Layer {
    let tar = tar(files);
    Layer {
        diff_id: Digest::of(&tar),
        blob: pack(&tar),
    }
}

impl Fixture {
    fn new() -> Self {
        Self {
            scratch: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn blob(&self, bytes: &[u8]) -> serde_json::Value {
        let folder = self.path("layout/blobs/sha256");
        fs::create_dir_all(&folder).unwrap();
        let digest = Digest::of(bytes);
        fs::write(folder.join(digest.to_string()), bytes).unwrap();
        serde_json::json!({"digest": format!("sha256:{digest}"), "size": bytes.len()})
    }

    fn config(architecture: &str, layers: &[Layer]) -> serde_json::Value {
        let diff_ids: Vec<_> = layers
            .iter()
            .map(|layer| format!("sha256:{}", layer.diff_id))
            .collect();
        serde_json::json!({
            "os": "linux", "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "config": {"Env": ["A=1"], "WorkingDir": "/srv", "Cmd": ["x"]},
        })
    }

    fn image(&self, architecture: &str, layers: &[Layer]) -> serde_json::Value {
        let config = self.blob(Self::config(architecture, layers).to_string().as_bytes());
        let layers: Vec<_> = layers.iter().map(|layer| self.blob(&layer.blob)).collect();
        let manifest = serde_json::json!({"schemaVersion": 2, "config": config, "layers": layers});
        self.blob(manifest.to_string().as_bytes())
    }

    fn layout(&self, manifests: &[serde_json::Value]) -> PathBuf {
        let layout = self.path("layout");
        fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
        let index = serde_json::json!({"schemaVersion": 2, "manifests": manifests});
        fs::write(layout.join("index.json"), index.to_string()).unwrap();
        layout
    }

    fn import(&self, path: &Path) -> Result<(Tree, Imported)> {
        let mut tree = Tree::new(self.scratch.path()).unwrap();
        let imported = import(&mut tree, path, self.scratch.path())?;
        Ok((tree, imported))
    }
}

fn text(tree: &mut Tree, path: &str) -> Option<String> {
    let id = tree.find(path)?;
    tree.read(id, 1000)
        .unwrap()
        .map(|bytes| String::from_utf8(bytes).unwrap())
}

fn two_layers() -> [Layer; 2] {
    [
        layer(&[("etc/a", "1"), ("etc/b", "1"), ("opt/old", "")], gzip),
        layer(
            &[
                ("etc/a", "2"),
                ("etc/.wh.b", ""),
                ("opt/.wh..wh..opq", ""),
                ("opt/new", ""),
            ],
            |tar| zstd::encode_all(tar, 1).unwrap(),
        ),
    ]
}

#[test]
fn an_oci_layout_is_imported_layer_by_layer_with_its_configuration() {
    let f = Fixture::new();
    let image = f.image("amd64", &two_layers());
    let (mut tree, imported) = f.import(&f.layout(&[image])).unwrap();
    assert_eq!(text(&mut tree, "etc/a").unwrap(), "2");
    assert!(tree.find("etc/b").is_none() && tree.find("opt/old").is_none());
    assert!(tree.find("opt/new").is_some());
    assert_eq!(
        imported.config.unwrap(),
        RunConfig {
            env: vec!["A=1".into()],
            working_dir: Some("/srv".into())
        }
    );
    assert_eq!(
        imported.source,
        Source::Oci {
            from: "layout".into()
        }
    );
}

#[test]
fn of_an_index_with_many_platforms_ours_is_taken() {
    let f = Fixture::new();
    let with = |mut image: serde_json::Value, os: &str, architecture: &str| {
        image["platform"] = serde_json::json!({"os": os, "architecture": architecture});
        image
    };
    let ours = with(
        f.image("amd64", &[layer(&[("ours", "")], gzip)]),
        "linux",
        "amd64",
    );
    let arm = with(f.image("arm64", &[layer(&[("arm", "")], gzip)]), "linux", "arm64");
    let attestation = with(f.image("unknown", &[]), "unknown", "unknown");
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [arm, ours, attestation]});
    let nested = f.blob(index.to_string().as_bytes());
    let (mut tree, _) = f.import(&f.layout(&[nested])).unwrap();
    assert!(tree.find("ours").is_some() && tree.find("arm").is_none());
    let error = f.import(&f.layout(&[arm])).unwrap_err();
    assert!(error.to_string().contains("nothing for linux/amd64"), "{error}");
}

#[test]
fn a_blob_that_was_changed_is_found_out() {
    for (what, add) in [("layer", false), ("layer with bytes behind it", true)] {
        let f = Fixture::new();
        let layers = two_layers();
        let layout = f.layout(&[f.image("amd64", &layers)]);
        let path = layout.join(format!("blobs/sha256/{}", Digest::of(&layers[0].blob)));
        let mut bytes = fs::read(&path).unwrap();
        if add {
            bytes.push(0);
        } else {
            bytes[9] ^= 1;
        } // the operating system's byte: gzip does not look
        fs::write(&path, bytes).unwrap();
        assert!(
            matches!(f.import(&layout), Err(Error::CorruptBlob { .. })),
            "{what}"
        );
    }
}

#[test]
fn a_layer_that_unpacks_to_something_else_is_found_out() {
    let f = Fixture::new();
    let mut layers = two_layers();
    layers[0].diff_id = Digest::of(b"else");
    let error = f.import(&f.layout(&[f.image("amd64", &layers)])).unwrap_err();
    assert!(matches!(error, Error::CorruptBlob { .. }), "{error}");
}

#[test]
fn layouts_that_lie_about_sizes_digests_or_shape_are_refused() {
    let f = Fixture::new();
    let image = f.image("amd64", &two_layers());
    let with = |key: &str, value: serde_json::Value| {
        let mut image = image.clone();
        image[key] = value;
        image
    };
    for bad in [
        with("size", 1.into()),
        with("digest", "sha256:../../../../etc/passwd".into()),
        with("digest", "md5:abc".into()),
        with("digest", format!("sha256:{}", Digest::of(b"absent")).into()),
        serde_json::json!({"digest": 5}),
        f.blob(b"{}"),
        f.blob(b"not json"),
        f.image("riscv64", &[]),
    ] {
        let layout = f.layout(std::slice::from_ref(&bad));
        assert!(f.import(&layout).is_err(), "{bad}");
    }
}

#[test]
fn an_index_that_holds_itself_ends() {
    let f = Fixture::new();
    // A document cannot hold its own digest, but a long enough chain looks the same.
    let mut next = f.image("amd64", &two_layers());
    for _ in 0..10 {
        next = f.blob(serde_json::json!({"manifests": [next]}).to_string().as_bytes());
    }
    assert!(f.import(&f.layout(&[next])).is_err());
}

#[test]
fn two_images_in_one_layout_are_refused_with_the_way_out() {
    let f = Fixture::new();
    let one = f.image("amd64", &two_layers());
    let two = f.image("amd64", &[layer(&[("x", "")], gzip)]);
    let error = f.import(&f.layout(&[one, two])).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("it holds 2 images for linux/amd64: save one"),
        "{error}"
    );
}

#[test]
fn a_layer_cannot_name_what_lies_outside_of_the_root() {
    let f = Fixture::new();
    let layers = [layer(&[("../../escape", "x")], gzip)];
    let error = f.import(&f.layout(&[f.image("amd64", &layers)])).unwrap_err();
    assert!(matches!(error, Error::BadEntry { .. }), "{error}");
}

#[test]
fn a_layout_inside_a_tar_is_imported_too_compressed_or_not() {
    let f = Fixture::new();
    let layout = f.layout(&[f.image("amd64", &two_layers())]);
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_dir_all(".", &layout).unwrap();
    let bytes = builder.into_inner().unwrap();
    for (name, bytes) in [("image.tar", bytes.clone()), ("image.tar.gz", gzip(&bytes))] {
        fs::write(f.path(name), bytes).unwrap();
        let (mut tree, imported) = f.import(&f.path(name)).unwrap();
        assert_eq!(text(&mut tree, "etc/a").unwrap(), "2");
        assert_eq!(imported.source, Source::Oci { from: name.into() });
    }
}

#[test]
fn an_archive_of_docker_save_is_imported_and_its_layers_checked() {
    let f = Fixture::new();
    let layers = [
        layer(&[("a", "1")], <[u8]>::to_vec),
        layer(&[(".wh.a", ""), ("b", "2")], <[u8]>::to_vec),
    ];
    let mut config = Fixture::config("amd64", &layers);
    let save = |config: &serde_json::Value| {
        let manifest =
            r#"[{"Config": "c.json", "RepoTags": ["x:y"], "Layers": ["1/layer.tar", "2/layer.tar"]}]"#;
        let tar = |blob: &Layer| String::from_utf8(blob.blob.clone()).unwrap();
        let files: [(&str, &str); 4] = [
            ("1/layer.tar", &tar(&layers[0])),
            ("2/layer.tar", &tar(&layers[1])),
            ("c.json", &config.to_string()),
            ("manifest.json", manifest),
        ];
        fs::write(f.path("saved.tar"), self::tar(&files)).unwrap();
        f.import(&f.path("saved.tar"))
    };
    let (mut tree, imported) = save(&config).unwrap();
    assert!(tree.find("a").is_none());
    assert_eq!(text(&mut tree, "b").unwrap(), "2");
    assert_eq!(imported.config.unwrap().env, ["A=1"]);
    config["rootfs"]["diff_ids"][0] = format!("sha256:{}", Digest::of(b"else")).into();
    assert!(matches!(save(&config), Err(Error::CorruptBlob { .. })));
    config["rootfs"]["diff_ids"] = serde_json::json!([]);
    assert!(matches!(save(&config), Err(Error::BadLayout { .. })));
}

#[test]
fn any_other_tar_is_a_root_file_system() {
    let f = Fixture::new();
    fs::write(
        f.path("root.tar"),
        tar(&[("etc/.wh.kept", "x"), ("manifest.json", "{}")]),
    )
    .unwrap();
    let (mut tree, imported) = f.import(&f.path("root.tar")).unwrap();
    assert_eq!(text(&mut tree, "etc/.wh.kept").unwrap(), "x");
    assert_eq!(
        imported.source,
        Source::Tar {
            from: "root.tar".into()
        }
    );
    fs::write(f.path("no.tar"), "this is not an archive of any kind".repeat(100)).unwrap();
    assert!(matches!(f.import(&f.path("no.tar")), Err(Error::Archive { .. })));
}

#[test]
fn a_folder_is_imported_without_following_links() {
    let f = Fixture::new();
    let root = f.path("root");
    fs::create_dir_all(root.join("sub/empty")).unwrap();
    fs::write(root.join("sub/file"), "text").unwrap();
    fs::hard_link(root.join("sub/file"), root.join("same")).unwrap();
    fs::write(f.path("secret"), "secret").unwrap();
    symlink(f.path("secret"), root.join("link")).unwrap();
    symlink(f.scratch.path(), root.join("up")).unwrap();
    let (mut tree, imported) = f.import(&root).unwrap();
    assert_eq!(text(&mut tree, "sub/file").unwrap(), "text");
    assert_eq!(tree.find("same"), tree.find("sub/file"));
    assert!(tree.find("sub/empty").is_some());
    let root_id = tree.root();
    let link = tree
        .children(root_id)
        .find(|(name, _)| name.as_bytes() == b"link")
        .unwrap()
        .1;
    assert!(matches!(tree.node(link).kind, Kind::Symlink(_)));
    assert_eq!(imported.config, None);
}

#[test]
fn a_folder_keeps_its_owners_for_root_and_is_roots_otherwise() {
    let f = Fixture::new();
    let root = f.path("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("file"), "").unwrap();
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        std::os::unix::fs::chown(root.join("file"), Some(1234), Some(5678)).unwrap();
    }
    let stat = fs::metadata(root.join("file")).unwrap();
    let (mut tree, _) = f.import(&root).unwrap();
    let id = tree.find("file").unwrap();
    let meta = &tree.node(id).meta;
    let expected = if is_root { (stat.uid(), stat.gid()) } else { (0, 0) };
    assert_eq!((meta.uid, meta.gid), expected);
    assert_eq!(u32::from(meta.mode), stat.mode() & 0o7777);
}

#[test]
fn what_is_no_source_is_refused() {
    let f = Fixture::new();
    assert!(matches!(f.import(&f.path("absent")), Err(Error::Io { .. })));
    assert!(matches!(
        f.import(Path::new("/dev/null")),
        Err(Error::NotASource { .. })
    ));
}
