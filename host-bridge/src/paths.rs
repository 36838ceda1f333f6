//! Where everything lives on the host: the XDG directories, owned by the user alone.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::{Error, Result, SessionName, error::Context, users};

/// The name of our directory under each of the XDG directories.
const OURS: &str = "cofferdam";
/// `sockaddr_un.sun_path` holds 108 bytes, the last of them a NUL.
const MAX_SOCKET_PATH: usize = 107;

#[derive(Clone, Debug)]
pub struct Paths {
    data: PathBuf,
    state: PathBuf,
    cache: PathBuf,
    runtime: PathBuf,
    config: PathBuf,
}

impl Paths {
    /// From the environment, as the XDG base directory specification says. Nothing is made yet.
    pub fn from_environment() -> Result<Self> {
        let state = base("XDG_STATE_HOME", ".local/state")?.join(OURS);
        Ok(Paths {
            data: base("XDG_DATA_HOME", ".local/share")?.join(OURS),
            cache: base("XDG_CACHE_HOME", ".cache")?.join(OURS),
            config: base("XDG_CONFIG_HOME", ".config")?.join(OURS),
            runtime: runtime_base().map_or_else(|| state.join("run"), |base| base.join(OURS)),
            state,
        })
    }

    /// Everything below one directory.
    pub fn below(root: &Path) -> Self {
        let below = |name: &str| root.join(name).join(OURS);
        Paths {
            data: below("data"),
            state: below("state"),
            cache: below("cache"),
            runtime: below("run"),
            config: below("config"),
        }
    }

    pub fn images(&self) -> PathBuf {
        self.data.join("images")
    }

    pub fn cache(&self) -> &Path {
        &self.cache
    }

    pub fn sessions(&self) -> PathBuf {
        self.state.join("sessions")
    }

    /// Where outputs of sessions go that are no more.
    pub fn outputs(&self) -> PathBuf {
        self.state.join("outputs")
    }

    /// What happened on the networks of sessions.
    pub fn net(&self) -> PathBuf {
        self.state.join("net")
    }

    /// Sets of rules that are files.
    pub fn sets(&self) -> PathBuf {
        self.config.join("sets")
    }

    /// Every directory of ours: what is in them decides what a session may do.
    pub(crate) fn all(&self) -> Vec<PathBuf> {
        let all = [&self.data, &self.state, &self.cache, &self.runtime, &self.config];
        all.map(Clone::clone).into()
    }

    pub fn session(&self, name: &SessionName) -> PathBuf {
        self.sessions().join(name.as_str())
    }

    pub fn sockets(&self, name: &SessionName) -> PathBuf {
        self.runtime.join(name.as_str())
    }

    /// A socket of a session, refused here when its path is longer than the kernel takes.
    pub fn socket(&self, name: &SessionName, file: &str) -> Result<PathBuf> {
        let path = self.sockets(name).join(file);
        if path.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(Error::SocketPath {
                path,
                max: MAX_SOCKET_PATH,
            });
        }
        Ok(path)
    }
}

/// Makes a directory and its missing parents, 0700, and tells an unusable one now rather than later.
pub fn make_private(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .context("directory cannot be made", path)?;
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
        .map_err(io::Error::from)
        .context("directory cannot be written", path)
}

/// As [`make_private`], for a directory nobody but us may have made.
pub fn make_owned(path: &Path) -> Result<()> {
    make_private(path)?;
    let found = fs::symlink_metadata(path).context("directory cannot be read", path)?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(Error::ForeignDirectory {
            path: path.to_owned(),
        });
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .context("directory cannot be made private", path)?;
    }
    Ok(())
}

fn base(variable: &'static str, below_home: &str) -> Result<PathBuf> {
    match absolute(variable) {
        Some(path) => Ok(path),
        None => Ok(home().ok_or(Error::NoHome)?.join(below_home)),
    }
}

/// A relative path in an XDG variable is to be ignored, says the specification.
fn absolute(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
}

fn home() -> Option<PathBuf> {
    absolute("HOME").or_else(|| users::home_of(rustix::process::geteuid().as_raw()))
}

fn runtime_base() -> Option<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let ours =
        |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|found| found.is_dir() && found.uid() == uid);
    absolute("XDG_RUNTIME_DIR").or_else(|| Some(PathBuf::from(format!("/run/user/{uid}"))).filter(ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_path_longer_than_the_kernel_takes_is_refused_with_its_value() {
        let name: SessionName = "a".repeat(40).parse().unwrap();
        assert!(
            Paths::below(Path::new("/short"))
                .socket(&name, "vsock_1024")
                .is_ok()
        );
        let deep = Path::new("/deep").join("d".repeat(60));
        let error = Paths::below(&deep).socket(&name, "vsock_1024").unwrap_err();
        assert!(error.to_string().contains("dddd"), "{error}");
    }

    #[test]
    fn a_directory_that_others_can_read_is_made_private() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        make_owned(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_directory_below_a_file_is_an_error_that_names_it() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        let error = make_private(&file.join("sub")).unwrap_err();
        assert!(error.to_string().contains("file/sub"), "{error}");
    }
}
