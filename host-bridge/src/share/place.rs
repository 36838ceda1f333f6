//! Where a folder is, and the places that are not shared by accident.

use std::{
    fs::{self, Metadata},
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use rustix::fs::{Access, Mode, OFlags};

use crate::{Error, Paths, Result, console, users};

/// What tells a folder from every other, whatever path leads to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().as_ref().map(Self::from)
    }
}

impl From<&Metadata> for FileId {
    fn from(found: &Metadata) -> Self {
        FileId {
            device: found.dev(),
            inode: found.ino(),
        }
    }
}

/// A folder that was there a moment ago, by its real path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    path: PathBuf,
    id: FileId,
}

impl Place {
    /// What `typed` leads to. Links on the way are followed: they are the user's own word.
    pub(crate) fn find(typed: &Path) -> Result<Self> {
        let path = fs::canonicalize(typed).map_err(|error| unusable(typed, error))?;
        Self::look(path)
    }

    /// What a path that was resolved once leads to now. It must not have come to lead elsewhere.
    pub(crate) fn again(resolved: &Path) -> Result<Self> {
        let place = Self::find(resolved)?;
        if place.path != resolved {
            return Err(Error::Folder {
                what: "folder to share is a link now",
                path: resolved.to_owned(),
                // Whoever put the link there may be a guest that has the folder above.
                hint: format!(
                    "it leads to {}: take the folder away and share it again",
                    console::one_line(&place.path.display().to_string())
                ),
            });
        }
        Ok(place)
    }

    fn look(path: PathBuf) -> Result<Self> {
        let found = fs::symlink_metadata(&path).map_err(|error| unusable(&path, error))?;
        if !found.is_dir() {
            return Err(Error::Folder {
                what: "what is to be shared is not a folder",
                path,
                hint: "share the folder it is in, or coffer cp the file".to_owned(),
            });
        }
        if path.to_str().is_none() {
            return Err(Error::Folder {
                what: "path of a folder to share is not UTF-8",
                path,
                hint: "rename it, or share a folder above it".to_owned(),
            });
        }
        rustix::fs::access(&path, Access::READ_OK | Access::EXEC_OK)
            .map_err(|error| unusable(&path, error.into()))?;
        let id = FileId::from(&found);
        Ok(Place { path, id })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Pins the folder: what is opened is what was looked at, or it is an error.
    pub(crate) fn open(&self) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::open(&self.path, flags, Mode::empty())
            .map_err(|error| unusable(&self.path, error.into()))?;
        let found = rustix::fs::fstat(&folder).map_err(|error| unusable(&self.path, error.into()))?;
        let id = FileId {
            device: found.st_dev,
            inode: found.st_ino,
        };
        if id != self.id {
            return Err(Error::Folder {
                what: "folder to share became another one while it was looked at",
                path: self.path.clone(),
                hint: "try again when nothing moves it".to_owned(),
            });
        }
        Ok(folder)
    }
}

fn unusable(path: &Path, error: io::Error) -> Error {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "mkdir makes it",
        io::ErrorKind::PermissionDenied => "you need to be able to read it and to enter it",
        io::ErrorKind::NotADirectory => "a part of the path is a file",
        _ => "",
    };
    Error::Unshareable {
        path: path.to_owned(),
        hint: hint.to_owned(),
        source: error,
    }
}

/// What is only shared by somebody who says that they know.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    /// Home directories, each as a whole.
    homes: Vec<PathBuf>,
    /// Every directory in here is somebody's home.
    homes_in: PathBuf,
    /// Our own directories.
    ours: Vec<PathBuf>,
    /// The one among ours that is made to be looked at.
    outputs: PathBuf,
}

impl Guard {
    pub(crate) fn of(paths: &Paths) -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let named = std::env::var_os("HOME").map(PathBuf::from);
        let homes = named
            .into_iter()
            .chain(users::home_of(uid))
            .chain([PathBuf::from("/root")]);
        Guard {
            homes: homes.filter(|home| home.is_absolute()).collect(),
            homes_in: PathBuf::from("/home"),
            ours: paths.all(),
            outputs: paths.outputs(),
        }
    }

    pub(crate) fn check(&self, place: &Place) -> Result<()> {
        let refuse = |what: &'static str| {
            Err(Error::Folder {
                what,
                path: place.path.clone(),
                hint: "share a folder inside it, or say --i-know".to_owned(),
            })
        };
        if is_at_or_above(place, Path::new("/")) {
            return refuse("the whole file system is not shared");
        }
        if is_of_the_kernel(place) {
            return Err(Error::Folder {
                what: "folder is the kernel's own and shows this machine, not files of yours",
                path: place.path.clone(),
                hint: "share another folder, or say --i-know".to_owned(),
            });
        }
        let homes = self.homes();
        // Ours lie in a home usually, and that it is one says more.
        if homes.iter().any(|home| FileId::of(home) == Some(place.id)) {
            return refuse("a home directory is not shared as a whole");
        }
        if homes.iter().any(|home| is_at_or_above(place, home)) {
            return refuse("folder holds a whole home directory");
        }
        if self.ours.iter().any(|ours| is_at_or_above(place, ours)) {
            return refuse("coffer's own files are in there, which no sandbox may reach");
        }
        if self.is_inside_ours(place) {
            return Err(Error::Folder {
                what: "folder is one of coffer's own, which no sandbox may reach",
                path: place.path.clone(),
                hint: "share another folder, or say --i-know".to_owned(),
            });
        }
        Ok(())
    }

    fn homes(&self) -> Vec<PathBuf> {
        let listed = fs::read_dir(&self.homes_in).into_iter().flatten();
        let others = listed.filter_map(|entry| Some(entry.ok()?.path()));
        self.homes.iter().cloned().chain(others).collect()
    }

    fn is_inside_ours(&self, place: &Place) -> bool {
        let above: Vec<FileId> = place.path.ancestors().skip(1).filter_map(FileId::of).collect();
        let is_inside = |path: &PathBuf| FileId::of(path).is_some_and(|id| above.contains(&id));
        self.ours.iter().any(is_inside) && !is_inside(&self.outputs)
    }
}

/// Processes with their variables, devices, switches: also where they are mounted in some odd place.
fn is_of_the_kernel(place: &Place) -> bool {
    /// From linux/magic.h: proc, sysfs, cgroup, cgroup2, devpts, debugfs, tracefs, securityfs, selinuxfs, efivarfs, bpf.
    const MAGIC: [u32; 11] = [
        0x9fa0,
        0x6265_6572,
        0x0027_e0eb,
        0x6367_7270,
        0x1cd1,
        0x6462_6720,
        0x7472_6163,
        0x7363_6673,
        0xf97c_ff8c,
        0xde5e_81e4,
        0xcafe_4a11,
    ];
    let magic = |found: rustix::fs::StatFs| u32::try_from(found.f_type & 0xffff_ffff).ok();
    place.path == Path::new("/dev")
        || rustix::fs::statfs(&place.path)
            .ok()
            .and_then(magic)
            .is_some_and(|magic| MAGIC.contains(&magic))
}

/// Whether `place` is `what` or a folder above it, by their paths or by being the same folder. Of one that is not
/// there yet, what is there of the way to it counts.
fn is_at_or_above(place: &Place, what: &Path) -> bool {
    let Some(real) = what.ancestors().find_map(|path| fs::canonicalize(path).ok()) else {
        return false;
    };
    real.ancestors()
        .any(|path| place.path == path || FileId::of(path) == Some(place.id))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    struct Host {
        root: tempfile::TempDir,
        guard: Guard,
    }

    impl Host {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let at = |name: &str| root.path().join(name);
            for directory in [
                "homes/ann/src",
                "homes/ben",
                "elsewhere/project",
                "state/cofferdam/sessions/x",
                "state/cofferdam/outputs/x",
            ] {
                fs::create_dir_all(at(directory)).unwrap();
            }
            let guard = Guard {
                homes: vec![at("homes/ann"), at("elsewhere/root")],
                homes_in: at("homes"),
                ours: vec![at("state/cofferdam"), at("homes/ann/.cache/not/there/yet")],
                outputs: at("state/cofferdam/outputs"),
            };
            Host { root, guard }
        }

        fn at(&self, path: &str) -> PathBuf {
            self.root.path().join(path)
        }

        fn check(&self, path: &str) -> Result<()> {
            self.guard.check(&Place::find(&self.at(path)).unwrap())
        }
    }

    #[test]
    fn what_holds_more_than_was_meant_is_refused_with_a_way_out() {
        let host = Host::new();
        for (path, word) in [
            ("/", "whole file system"),
            ("homes/ann", "home directory"),
            ("homes/ben", "home directory"),
            ("homes", "whole home directory"),
            ("elsewhere/project/../../homes/ann/src/..", "home directory"),
            ("state/cofferdam", "coffer's own"),
            ("state", "coffer's own"),
            ("state/cofferdam/sessions", "coffer's own"),
            ("state/cofferdam/sessions/x", "coffer's own"),
            ("state/cofferdam/outputs", "coffer's own"),
            ("/proc", "the kernel's own"),
            ("/proc/self/task", "the kernel's own"),
            ("/sys", "the kernel's own"),
            ("/dev", "the kernel's own"),
        ] {
            let error = host.check(path).expect_err(path);
            assert!(error.line().contains(word), "{path}: {}", error.line());
            assert!(error.hint().unwrap().contains("--i-know"), "{path}");
        }
    }

    #[test]
    fn an_ordinary_folder_and_what_a_session_left_can_be_shared() {
        let host = Host::new();
        for path in ["homes/ann/src", "elsewhere/project", "state/cofferdam/outputs/x"] {
            host.check(path)
                .unwrap_or_else(|error| panic!("{path}: {}", error.line()));
        }
    }

    #[test]
    fn a_home_that_is_not_there_yet_is_one_all_the_same() {
        let host = Host::new();
        // `elsewhere/root` is a home, and `elsewhere` holds it once it is made.
        assert!(host.check("elsewhere").is_err());
        assert!(host.check("elsewhere/project").is_ok());
    }

    #[test]
    fn another_path_to_a_home_is_that_home() {
        let host = Host::new();
        symlink(host.at("homes/ann"), host.at("elsewhere/link")).unwrap();
        assert!(host.check("elsewhere/link").is_err());
        let mut renamed = Place::find(&host.at("homes/ann")).unwrap();
        // As a bind mount of it has it: another path, the same folder.
        renamed.path = host.at("elsewhere/bound");
        assert!(host.guard.check(&renamed).is_err());
    }

    #[test]
    fn what_is_no_folder_is_said_with_its_path() {
        let host = Host::new();
        fs::write(host.at("file"), "").unwrap();
        symlink(host.at("gone"), host.at("dangling")).unwrap();
        for (path, words) in [
            ("nope", "No such file"),
            ("dangling", "No such file"),
            ("file", "not a folder"),
            ("file/below", "Not a directory"),
        ] {
            let error = Place::find(&host.at(path)).expect_err(path);
            let line = error.line();
            assert!(line.contains(words) && line.contains(path), "{line}");
            assert_eq!((error.code(), error.hint().is_some()), (125, true));
        }
    }

    #[test]
    fn a_folder_that_cannot_be_read_is_said() {
        let host = Host::new();
        let path = host.at("elsewhere/project");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o300)).unwrap();
        if fs::read_dir(&path).is_ok() {
            skipped::because("this user reads everything");
            return;
        }
        assert!(
            Place::find(&path)
                .unwrap_err()
                .line()
                .contains("Permission denied")
        );
    }

    #[test]
    fn what_is_opened_is_what_was_looked_at() {
        let host = Host::new();
        let path = host.at("elsewhere/project");
        let place = Place::find(&path).unwrap();
        place.open().unwrap();
        fs::rename(&path, host.at("elsewhere/moved")).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(place.open().unwrap_err().line().contains("became another one"));
        fs::remove_dir(&path).unwrap();
        // Links and names are a guest's, if it has the folder above.
        let named = host.at("homes/\x1b]0;x\x07");
        fs::create_dir(&named).unwrap();
        symlink(&named, &path).unwrap();
        assert!(place.open().is_err());
        let again = Place::again(&path).unwrap_err();
        assert!(again.line().contains("is a link now"), "{}", again.line());
        let hint = again.hint().unwrap();
        assert!(
            !hint.contains(char::is_control) && hint.contains("/homes/"),
            "{hint}"
        );
    }
}
