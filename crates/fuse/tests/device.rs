//! The null file system, mounted on this machine.

use std::{
    fs,
    io::Write,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use fuse::{
    Server,
    device::{Mount, Running},
    null::NullFileSystem,
};

/// `None`, and a word why, where this machine does not let us mount.
fn mounted(at: &Path, threads: usize) -> Option<Running> {
    match Mount::new(at, Server::new(NullFileSystem)) {
        Ok(mount) => Some(mount.start(threads)),
        Err(error) => {
            skipped::because(format_args!("cannot mount through /dev/fuse: {error}"));
            None
        }
    }
}

#[test]
fn a_kernel_finds_reads_and_writes_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let Some(running) = mounted(folder.path(), 4) else {
        return;
    };
    let at = |name: &str| folder.path().join(name);

    let mut names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["directory", "file", "link"]);
    assert_eq!(fs::read(at("file")).unwrap(), vec![0; 1 << 20]);
    assert_eq!(fs::read_link(at("link")).unwrap(), Path::new("file"));
    assert_eq!(fs::metadata(at("directory/link")).unwrap().ino(), 2);
    assert!(!at("absent").exists());

    let mut file = fs::OpenOptions::new()
        .read(true)
        .append(true)
        .open(at("file"))
        .unwrap();
    file.write_all(&vec![1; 3 << 20]).unwrap();
    file.sync_all().unwrap();
    let mut one = [9];
    file.read_exact_at(&mut one, 4096).unwrap();

    fs::create_dir(at("new directory")).unwrap();
    std::os::unix::fs::symlink("anywhere", at("new link")).unwrap();
    fs::rename(at("link"), at("directory/renamed")).unwrap();
    fs::remove_dir(at("directory")).unwrap();
    assert_eq!(rustix::fs::statvfs(folder.path()).unwrap().f_blocks, 1 << 20);
    let mut value = [0; 100];
    let len = rustix::fs::getxattr(folder.path(), "user.null", &mut value).unwrap();
    assert_eq!(&value[..len], b"nothing");
    drop(file);

    running.stop().unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn what_create_made_can_be_written_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let Some(running) = mounted(folder.path(), 1) else {
        return;
    };
    let mut file = fs::File::create_new(folder.path().join("new")).unwrap();
    file.write_all(b"something").unwrap();
    drop(file);
    running.stop().unwrap();
}

#[test]
fn dropping_a_mount_that_is_served_unmounts_it() {
    let folder = tempfile::tempdir().unwrap();
    let device = |path: &Path| fs::metadata(path).unwrap().dev();
    let before = device(folder.path());
    let Some(running) = mounted(folder.path(), 2) else {
        return;
    };
    assert_ne!(device(folder.path()), before);
    drop(running);
    assert_eq!(device(folder.path()), before);
}
