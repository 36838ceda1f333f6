//! Files of the system that the agent puts in place before anything else runs.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Read by everybody, written by root.
const MODE: u32 = 0o644;

/// What is at `path`, a symbolic link as well, is replaced as a whole: a reader sees the old or the new.
pub(crate) fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = beside(path)?;
    let put = write_new(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if put.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    put
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // One of an agent that was stopped half-way.
    let _ = fs::remove_file(path);
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(path)?;
    file.write_all(bytes)
}

fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary = std::ffi::OsString::from(".coffer-");
    temporary.push(name);
    Ok(path.with_file_name(temporary))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_link_is_replaced_and_what_it_leads_to_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (
            directory.path().join("resolv.conf"),
            directory.path().join("other"),
        );
        fs::write(&other, "theirs").unwrap();
        for target in [other.as_path(), Path::new("../run/nothing")] {
            let _ = fs::remove_file(&path);
            symlink(target, &path).unwrap();
            put(&path, b"ours").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"ours");
            assert!(!path.is_symlink());
        }
        assert_eq!(fs::read(&other).unwrap(), b"theirs");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
    }

    #[test]
    fn a_directory_in_the_way_is_an_error_that_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        fs::create_dir(&path).unwrap();
        put(&path, b"ours").unwrap_err();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
