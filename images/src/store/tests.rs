use std::fs;

use super::*;

/// A store with an image made from a small folder, a made-up kernel and a made-up agent.
struct Fixture {
    store: Store,
    scratch: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let fixture = Self {
            store: Store::new(scratch.path().join("images")),
            scratch,
        };
        fs::create_dir_all(fixture.path("root/etc")).unwrap();
        fs::write(fixture.path("root/etc/hosts"), "127.0.0.1 localhost\n").unwrap();
        fs::write(
            fixture.path("kernel"),
            b"\x7fELF\x02\x01..........\x02\x00\x3e\x00...Linux version 6.99-test ...",
        )
        .unwrap();
        fs::write(fixture.path("agent"), "agent 1").unwrap();
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn request(&self, name: &str) -> ImportRequest {
        ImportRequest {
            name: ImageName::parse(name).unwrap(),
            from: self.path("root"),
            kernel: Some(KernelFile {
                path: self.path("kernel"),
                modules: None,
            }),
            agent: self.path("agent"),
        }
    }

    fn import(&self, name: &str) -> Image {
        self.store.import(&self.request(name), &mut |_| {}).unwrap()
    }

    fn staleness(&self, name: &str) -> Staleness {
        self.store
            .staleness(&BuildRequest {
                name: ImageName::parse(name).unwrap(),
                agent: self.path("agent"),
                ..BuildRequest::default()
            })
            .unwrap()
    }
}

#[test]
fn an_image_that_was_imported_is_found_listed_verified_and_removed() {
    let f = Fixture::new();
    let made = f.import("small");
    let found = f.store.find(made.name()).unwrap();
    assert_eq!(found.manifest(), made.manifest());
    assert_eq!(found.manifest().kernel_version, "6.99-test");
    assert_eq!(f.store.list().unwrap().len(), 1);
    let parts = found.verify().unwrap();
    assert!(parts.rootfs.path.ends_with("small/rootfs.erofs"));
    f.store.remove(made.name()).unwrap();
    assert!(f.store.list().unwrap().is_empty());
    assert!(matches!(
        f.store.find(made.name()),
        Err(Error::NoSuchImage { .. })
    ));
    assert!(matches!(
        f.store.remove(made.name()),
        Err(Error::NoSuchImage { .. })
    ));
}

#[test]
fn a_store_that_does_not_exist_is_empty() {
    assert!(Store::new("/nowhere/at/all").list().unwrap().is_empty());
}

#[test]
fn without_a_kernel_of_its_own_an_image_takes_the_default_images() {
    let f = Fixture::new();
    let request = ImportRequest {
        kernel: None,
        ..f.request("other")
    };
    let error = f.store.import(&request, &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::NoKernel { .. }), "{error}");
    let default = f.import("default");
    let other = f.store.import(&request, &mut |_| {}).unwrap();
    assert_eq!(other.manifest().kernel, default.manifest().kernel);
    other.verify().unwrap();
}

#[test]
fn a_part_that_changed_is_told_by_name_with_both_digests() {
    let f = Fixture::new();
    let image = f.import("small");
    for file in ["vmlinux", "initramfs.cpio", "rootfs.erofs"] {
        let path = image.directory().join(file);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[10] ^= 1;
        fs::write(&path, &bad).unwrap();
        let error = image.verify().unwrap_err();
        let Error::CorruptPart {
            file: named,
            expected,
            found,
            ..
        } = error
        else {
            panic!("{error}")
        };
        assert_eq!(
            (named.as_str(), expected, found),
            (file, Digest::of(&good), Digest::of(&bad))
        );
        fs::write(&path, &good[1..]).unwrap();
        assert!(matches!(image.verify(), Err(Error::WrongSize { .. })));
        fs::write(&path, &good).unwrap();
        image.verify().unwrap();
    }
}

#[test]
fn an_unchanged_part_is_not_read_again_and_a_touched_one_is() {
    let f = Fixture::new();
    let image = f.import("small");
    let stamp = image.directory().join("verified.json");
    let before = fs::read(&stamp).unwrap();
    image.verify().unwrap();
    assert_eq!(fs::read(&stamp).unwrap(), before);
    let kernel = image.directory().join("vmlinux");
    fs::write(&kernel, fs::read(&kernel).unwrap()).unwrap();
    image.verify().unwrap();
    assert_ne!(fs::read(&stamp).unwrap(), before);
}

#[test]
fn a_damaged_stamp_costs_time_and_nothing_else() {
    let f = Fixture::new();
    let image = f.import("small");
    for text in ["", "{", r#"{"format":9,"parts":{}}"#] {
        fs::write(image.directory().join("verified.json"), text).unwrap();
        image.verify().unwrap();
    }
}

#[test]
fn a_part_that_is_a_link_is_not_followed() {
    let f = Fixture::new();
    let image = f.import("small");
    let kernel = image.directory().join("vmlinux");
    fs::rename(&kernel, f.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(f.path("elsewhere"), &kernel).unwrap();
    assert!(matches!(image.verify(), Err(Error::Io { .. })));
}

#[test]
fn another_agent_makes_an_image_stale_and_refresh_makes_it_fresh() {
    let f = Fixture::new();
    let old = f.import("small");
    assert_eq!(f.staleness("small"), Staleness::Fresh);
    assert_eq!(f.staleness("absent"), Staleness::Missing);
    fs::write(f.path("agent"), "agent 2").unwrap();
    assert_eq!(f.staleness("small"), Staleness::AgentChanged);
    let new = f.store.refresh(old.name(), &f.path("agent")).unwrap();
    assert_eq!(f.staleness("small"), Staleness::Fresh);
    assert_eq!(new.manifest().rootfs, old.manifest().rootfs);
    assert_ne!(new.manifest().initramfs, old.manifest().initramfs);
    let stamp = fs::read(new.directory().join("verified.json")).unwrap();
    new.verify().unwrap();
    assert_eq!(
        fs::read(new.directory().join("verified.json")).unwrap(),
        stamp,
        "nothing was hashed again"
    );
}

#[test]
fn an_image_built_by_another_recipe_is_stale() {
    let f = Fixture::new();
    let image = f.import("small");
    let mut manifest = image.manifest().clone();
    manifest.source = Source::Debian(Selection::default());
    manifest.recipe = Some(Digest::of(b"an older recipe"));
    manifest.write(image.directory()).unwrap();
    assert_eq!(f.staleness("small"), Staleness::RecipeChanged);
    manifest.recipe = Some(debian::recipe(&Selection::default()));
    manifest.write(image.directory()).unwrap();
    assert_eq!(f.staleness("small"), Staleness::Fresh);
}

#[test]
fn an_image_of_another_format_is_listed_with_its_reason_and_can_be_made_again() {
    let f = Fixture::new();
    let image = f.import("small");
    fs::write(image.directory().join("manifest.json"), r#"{"format": 7}"#).unwrap();
    let list = f.store.list().unwrap();
    assert!(matches!(
        list[..],
        [(_, Err(Error::UnknownFormat { found: 7, .. }))]
    ));
    assert_eq!(f.staleness("small"), Staleness::Missing);
    f.import("small").verify().unwrap();
}

#[test]
fn two_imports_of_the_same_folder_give_the_same_bytes() {
    let f = Fixture::new();
    let (one, two) = (f.import("one"), f.import("two"));
    assert_eq!(one.manifest().rootfs, two.manifest().rootfs);
    assert_eq!(one.manifest().initramfs, two.manifest().initramfs);
}

#[test]
fn a_failed_import_leaves_the_old_image_and_nothing_else() {
    let f = Fixture::new();
    f.import("small");
    let request = ImportRequest {
        from: f.path("kernel"),
        ..f.request("small")
    };
    f.store.import(&request, &mut |_| {}).unwrap_err();
    let left: Vec<_> = fs::read_dir(f.store.directory())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["small"]);
    f.store.find(&request.name).unwrap().verify().unwrap();
}

#[test]
fn files_of_an_image_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let f = Fixture::new();
    let image = f.import("small");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(f.store.directory()), 0o700);
    assert_eq!(mode(image.directory()), 0o700);
    for entry in fs::read_dir(image.directory()).unwrap().flatten() {
        let expected = if entry.path().is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&entry.path()), expected, "{:?}", entry.path());
    }
}
