//! Where files from a guest are made: beneath one open directory, by single names, following nothing.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, fchmod, mkdirat, openat, renameat, symlinkat, unlinkat},
    io::Errno,
};

use crate::{Error, Result, console, error::Context};

/// The longest name a Linux file system has.
const MAX_NAME: usize = 255;
/// What a file from a guest may be on the host: never set-user-id, set-group-id or sticky, and never for
/// others to write to, which is not the guest's to allow.
const MODE: u32 = 0o755;

/// A directory on the host that files are made in. Its path is for messages only.
#[derive(Debug)]
pub struct Target {
    directory: OwnedFd,
    path: PathBuf,
    /// Whether it was there before: then its mode is the host's.
    found: bool,
}

impl Target {
    /// A directory the user named; what they point it at is theirs to say.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            rustix::fs::open(path, flags, Mode::empty()).context("directory cannot be opened", path)?;
        Ok(Target {
            directory,
            path: path.to_owned(),
            found: true,
        })
    }

    /// The directory called `name` in this one, made if it is not there; never through a link.
    pub(super) fn directory(&self, name: &[u8]) -> Result<Target> {
        let (name, path) = self.child(name)?;
        let found = match mkdirat(&self.directory, name, Mode::RWXU) {
            Ok(()) => false,
            Err(Errno::EXIST) => true,
            Err(error) => return Err(error).context("directory cannot be made", path),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory =
            openat(&self.directory, name, flags, Mode::empty()).context("directory cannot be used", &path)?;
        Ok(Target {
            directory,
            path,
            found,
        })
    }

    /// Given last, since a directory that may not be written to could not be filled, and only to one that was
    /// made here: a guest opens no directory of the host's to others.
    pub(super) fn set_mode(&self, mode: u32) -> Result<()> {
        if self.found {
            return Ok(());
        }
        fchmod(&self.directory, permissions(mode)).context("mode cannot be set", &self.path)
    }

    /// A new file that appears under its name when it is complete.
    pub(super) fn file(&self, name: &[u8], mode: u32) -> Result<NewFile<'_>> {
        let (name, path) = self.child(name)?;
        let partial = format!(".coffer-{}.partial", std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.directory, &partial, flags, Mode::RUSR | Mode::WUSR)
            .context("file cannot be made", &path)?;
        let file = NewFile {
            target: self,
            file: file.into(),
            partial,
            name: name.to_owned(),
            path,
            placed: false,
        };
        fchmod(&file.file, permissions(mode)).context("mode cannot be set", &file.path)?;
        Ok(file)
    }

    /// A link with the guest's text in it. It is made, never followed.
    pub(super) fn symlink(&self, name: &[u8], text: &[u8]) -> Result<()> {
        let (name, path) = self.child(name)?;
        let make = || symlinkat(OsStr::from_bytes(text), &self.directory, name);
        let made = match make() {
            Err(Errno::EXIST) => unlinkat(&self.directory, name, AtFlags::empty()).and_then(|()| make()),
            made => made,
        };
        made.context("link cannot be made", path)
    }

    fn child<'a>(&self, name: &'a [u8]) -> Result<(&'a OsStr, PathBuf)> {
        check_name(name)?;
        let name = OsStr::from_bytes(name);
        Ok((name, self.path.join(name)))
    }
}

/// One component of a path, and nothing else.
pub(super) fn check_name(name: &[u8]) -> Result<()> {
    let hostile = name.is_empty()
        || name.len() > MAX_NAME
        || matches!(name, b"." | b"..")
        || name.iter().any(|byte| matches!(byte, b'/' | 0));
    if hostile {
        return Err(Error::HostileName {
            name: console::safe(name),
        });
    }
    Ok(())
}

fn permissions(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & MODE)
}

/// Removed again unless it was [placed](Self::place).
#[derive(Debug)]
pub(super) struct NewFile<'a> {
    target: &'a Target,
    file: File,
    partial: String,
    name: std::ffi::OsString,
    path: PathBuf,
    placed: bool,
}

impl NewFile<'_> {
    pub(super) fn write(&self, data: &[u8]) -> Result<()> {
        crate::output::write_all(self.file.as_fd(), data).context("file cannot be written", &self.path)
    }

    pub(super) fn place(mut self) -> Result<()> {
        let directory = &self.target.directory;
        let placed = renameat(directory, &self.partial, directory, &self.name).map_err(io::Error::from);
        self.placed = placed.is_ok();
        placed.context("file cannot be put in place", &self.path)
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if !self.placed {
            let _ = unlinkat(&self.target.directory, &self.partial, AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
    };

    use super::*;

    fn names_in(path: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(path)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_name_that_is_more_than_one_component_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let target = Target::open(root.path()).unwrap();
        for bad in [
            &b".."[..],
            b".",
            b"",
            b"a/b",
            b"/etc/x",
            b"../x",
            b"x\0y",
            &[b'a'; 256],
        ] {
            assert!(
                matches!(target.file(bad, 0o644), Err(Error::HostileName { .. })),
                "{bad:?}"
            );
            assert!(target.directory(bad).is_err());
            assert!(target.symlink(bad, b"x").is_err());
        }
        assert!(names_in(root.path()).is_empty());
    }

    #[test]
    fn a_link_the_guest_made_is_never_a_way_out() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let target = Target::open(root.path()).unwrap();
        let out = outside.path().as_os_str().as_bytes();
        target.symlink(b"dir", out).unwrap();
        assert!(target.directory(b"dir").is_err());
        let victim = outside.path().join("victim");
        fs::write(&victim, "old").unwrap();
        symlink(&victim, root.path().join("file")).unwrap();
        let file = target.file(b"file", 0o600).unwrap();
        file.write(b"new").unwrap();
        file.place().unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"old");
        assert_eq!(fs::read(root.path().join("file")).unwrap(), b"new");
        assert_eq!(names_in(outside.path()), ["victim"]);
    }

    #[test]
    fn a_file_is_there_whole_or_not_at_all_and_never_set_user_id() {
        let root = tempfile::tempdir().unwrap();
        let target = Target::open(root.path()).unwrap();
        let half = target.file(b"f", 0o6755).unwrap();
        half.write(b"half").unwrap();
        drop(half);
        assert!(names_in(root.path()).is_empty());
        target.file(b"f", 0o6755).unwrap().place().unwrap();
        let mode = fs::metadata(root.path().join("f")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
    }

    #[test]
    fn a_guest_opens_nothing_on_the_host_to_other_users() {
        let root = tempfile::tempdir().unwrap();
        let mode = |name: &str| fs::metadata(root.path().join(name)).unwrap().permissions().mode() & 0o7777;
        let target = Target::open(root.path()).unwrap();
        target.file(b"f", 0o666).unwrap().place().unwrap();
        target.directory(b"made").unwrap().set_mode(0o777).unwrap();
        assert_eq!((mode("f"), mode("made")), (0o644, 0o755));
        fs::create_dir(root.path().join("mine")).unwrap();
        fs::set_permissions(root.path().join("mine"), fs::Permissions::from_mode(0o700)).unwrap();
        target.directory(b"mine").unwrap().set_mode(0o777).unwrap();
        assert_eq!(mode("mine"), 0o700);
    }
}
