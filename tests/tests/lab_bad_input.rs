//! What is wrong is said: one line, what to do about it, and the right exit code.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

use std::{
    ffi::OsStr,
    fs,
    io::{Seek, SeekFrom, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tests::{Host, Run, cases};

#[test]
fn what_is_typed() {
    cases!(Host::new(); a_machine_nobody_can_make, a_command_line_that_makes_no_sense, an_image_that_is_not_there);
}

fn a_machine_nobody_can_make(host: &Host) {
    let run = |option, value| host.coffer(["run", option, value, "--", "true"]).end();
    run("--cpus", "33").complains(2, "--cpus is not valid: \"33\"", "");
    run("--cpus", "0").complains(2, "1 to 32", "");
    run("--memory", "63M").complains(2, "must be 64", "");
    run("--memory", "lots").complains(2, "\"lots\"", "");
    run("--disk", "1M").complains(2, "64M to 16T", "");
    run("--timeout", "soon").complains(2, "\"soon\"", "");
    run("--name", "../up").complains(2, "../up", "lower-case");
}

fn a_command_line_that_makes_no_sense(host: &Host) {
    host.coffer(["run"]).end().complains(2, "<CMD>", "coffer run");
    host.coffer(["no-such-thing"])
        .end()
        .complains(2, "no-such-thing", "coffer");
    host.coffer(["run", "-t", "--", "true"])
        .end()
        .complains(2, "terminal", "-t");
}

fn an_image_that_is_not_there(host: &Host) {
    let missing = ["run", "--image", "nowhere", "--", "true"];
    host.coffer(missing)
        .end()
        .complains(125, "no image named nowhere", "coffer image build");
    let empty = host.root().join("empty");
    host.coffer(["run", "--", "true"])
        .env("XDG_DATA_HOME", empty)
        .end()
        .complains(125, "default", "coffer image build");
    host.coffer(["image", "rm", "nowhere"])
        .end()
        .complains(125, "nowhere", "coffer image ls");
}

/// A host with a store of its own, and in it an image that is as small as one can be.
struct Store {
    host: Host,
    data: PathBuf,
}

impl Store {
    fn coffer<const N: usize>(&self, words: [&str; N]) -> Run {
        self.host.coffer(words).env("XDG_DATA_HOME", &self.data)
    }

    fn run(&self) -> Run {
        self.coffer(["run", "--image", "tiny", "--", "/coffer", "--version"])
    }

    fn part(&self, name: &str) -> PathBuf {
        self.data.join("cofferdam/images/tiny").join(name)
    }
}

#[test]
fn images() {
    let host = Host::new();
    let store = Store {
        data: host.root().join("data"),
        host,
    };
    cases!(store;
        a_directory_becomes_an_image_that_runs,
        what_is_no_kernel_becomes_no_image,
        a_changed_byte_is_found,
        a_missing_end_is_found,
        a_manifest_from_another_time_is_refused,
    );
}

fn kernel() -> PathBuf {
    host_bridge::Paths::from_environment()
        .unwrap()
        .images()
        .join("small/vmlinux")
}

fn root_with_one_program(host: &Host) -> PathBuf {
    let root = host.root().join("tiny");
    let program = PathBuf::from(std::env::var_os("COFFER_BINARIES").unwrap()).join("coffer");
    fs::create_dir_all(&root).unwrap();
    fs::copy(program, root.join("coffer")).unwrap();
    root
}

fn import(store: &Store, kernel: &Path) -> Run {
    let root = root_with_one_program(&store.host);
    let (root, kernel) = (root.to_str().unwrap(), kernel.to_str().unwrap());
    store.coffer(["image", "import", "--quiet", root, "--kernel", kernel])
}

/// No shell, no user list, no library: what is needed is in the program, static as all of ours.
fn a_directory_becomes_an_image_that_runs(store: &Store) {
    import(store, &kernel()).end().says("");
    let version = store.run().end().code(0).text();
    assert!(version.starts_with("coffer "), "{version}");
}

fn what_is_no_kernel_becomes_no_image(store: &Store) {
    import(store, Path::new("/etc/passwd")).end().complains(
        125,
        "/etc/passwd is not a kernel",
        "vmlinux or a bzImage",
    );
}

fn a_changed_byte_is_found(store: &Store) {
    let path = store.part("rootfs.erofs");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .open(open_to_us(&path))
        .unwrap();
    file.seek(SeekFrom::Start(5000)).unwrap();
    file.write_all(b"!").unwrap();
    store
        .run()
        .end()
        .complains(125, "image tiny is corrupt: rootfs.erofs", "make it again");
}

fn a_missing_end_is_found(store: &Store) {
    let path = store.part("vmlinux");
    let file = fs::OpenOptions::new()
        .write(true)
        .open(open_to_us(&path))
        .unwrap();
    file.set_len(4096).unwrap();
    store
        .run()
        .end()
        .complains(125, "vmlinux has 4096 bytes", "make it again");
}

fn a_manifest_from_another_time_is_refused(store: &Store) {
    let path = store.part("manifest.json");
    fs::write(open_to_us(&path), "{\"format\": 99}").unwrap();
    store
        .run()
        .end()
        .complains(125, "99", "build or import the image again");
    fs::write(&path, "no manifest").unwrap();
    store
        .run()
        .end()
        .complains(125, "manifest.json does not parse", "");
}

fn open_to_us(path: &Path) -> &Path {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[test]
fn the_host() {
    cases!(Host::new();
        a_full_disk,
        a_disk_that_fills_up_under_the_sandbox,
        a_state_directory_that_cannot_be_written,
        a_state_directory_that_cannot_be_made,
        programs_that_are_not_beside_us,
        a_sandbox_that_takes_too_long,
    );
}

/// A state directory of this size, in a mount namespace of its own, where also an ordinary user may mount.
fn on_a_disk_of(host: &Host, size: &str, run: Run) -> Run {
    let state = host.root().join("state");
    let mount = format!(
        "mount -t tmpfs -o size={size} none {} && exec \"$@\"",
        state.display()
    );
    run.under([
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        &mount,
        "sh",
    ])
}

fn a_full_disk(host: &Host) {
    let run = host.coffer(["run", "--", "true"]);
    on_a_disk_of(host, "1M", run)
        .end()
        .complains(125, "no space left", "XDG_STATE_HOME");
}

/// The command sees a broken disk, and the machine goes on.
fn a_disk_that_fills_up_under_the_sandbox(host: &Host) {
    let line = "dd if=/dev/zero of=file bs=1M count=200 conv=fsync; echo goes on";
    let run = host.coffer(["run", "--image", "small", "--", "sh", "-c", line]);
    let ended = on_a_disk_of(host, "100M", run).end().says("goes on");
    assert!(
        ended.stderr.contains("error writing") || ended.stderr.contains("fsync failed"),
        "{ended}"
    );
}

/// Without a mapping of users nobody is root, so that this is also tried where the tests run as root.
fn a_state_directory_that_cannot_be_written(host: &Host) {
    let closed = host.root().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
    let run = host
        .coffer(["run", "--", "true"])
        .env("XDG_STATE_HOME", &closed)
        .under(["unshare", "--user"]);
    run.end().complains(125, "closed/cofferdam", "XDG_STATE_HOME");
}

fn a_state_directory_that_cannot_be_made(host: &Host) {
    let file = host.root().join("file");
    fs::write(&file, "").unwrap();
    let ls = host.coffer(["ls"]).env("XDG_STATE_HOME", &file).end();
    ls.complains(125, "file/cofferdam", "");
}

fn programs_that_are_not_beside_us(host: &Host) {
    let alone = root_with_one_program(host).join("coffer");
    let words = [alone.as_os_str()]
        .into_iter()
        .chain(["run", "--", "true"].map(OsStr::new));
    let run = Run::new(words).env("XDG_STATE_HOME", host.root().join("state"));
    run.end().complains(125, "program not found", "beside coffer");
}

fn a_sandbox_that_takes_too_long(host: &Host) {
    let ended = host.coffer(["run", "--boot-timeout", "20ms", "--", "true"]).end();
    ended.complains(125, "was not ready after 0", "--boot-timeout");
}
