//! What a session leaves on disk, and who owns it now.
//!
//! A session is a directory. Its owner, the process that holds the machine, holds a lock on it from the
//! first moment to the last, so "is anybody there" is a question to the kernel and never to a file that a
//! crash left behind. Whoever makes, removes or looks at sessions holds the table's lock meanwhile.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use egress_policy::{EgressPolicy, control::Spent};
use rustix::{
    fs::{FlockOperation, Mode, OFlags},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use vmm_api::{ShareMode, ShareName};

use crate::{
    Error, Paths, Result, SessionName,
    error::Context,
    net::publish::Publish,
    paths::{make_owned, make_private},
    process::ProcessId,
    shape::Shape,
    share::{FolderRules, OUTPUTS, SharedFolder, UPLOADS},
};

/// A reader refuses a record of any later version.
pub const RECORD_VERSION: u32 = 3;
/// Before there were folders (1) and before there was a network (2). Such a record is read as one of a session without.
const FIRST_VERSION: u64 = 1;
/// The table is held for milliseconds, or seconds while a dead session's machine is ended.
const TABLE_DEADLINE: Duration = Duration::from_secs(15);
/// flock has no deadline of its own, so a busy lock is asked again this often.
const TABLE_RETRY: Duration = Duration::from_millis(10);

/// `session.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub version: u32,
    pub name: SessionName,
    pub state: State,
    /// Made by `coffer run` for one command: nothing of it stays.
    pub ephemeral: bool,
    pub image: String,
    /// The root file system this session's disk belongs on top of.
    #[serde(default)]
    pub image_id: Option<String>,
    pub shape: Shape,
    pub env: Vec<(String, String)>,
    /// In the order in which they were shared.
    #[serde(default)]
    pub folders: Vec<SharedFolder>,
    /// What it may reach.
    #[serde(default)]
    pub net: EgressPolicy,
    /// Of the policy's budgets, in all its runs until the last end.
    #[serde(default)]
    pub net_spent: Spent,
    /// Ports of this host that lead into it.
    #[serde(default)]
    pub publish: Vec<Publish>,
    pub created_unix_ms: u64,
    pub started_unix_ms: Option<u64>,
    pub ended_unix_ms: Option<u64>,
    /// Why it ended last, for a person.
    pub ended: Option<String>,
    pub owner: Option<ProcessId>,
    pub machine: Option<ProcessId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Starting,
    Running,
    Stopped,
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Running => "running",
            State::Stopped => "stopped",
        }
    }
}

pub(crate) fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl Record {
    pub fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(RECORD_FILE);
        let text = fs::read_to_string(&path).context("session record cannot be read", &path)?;
        let damaged = |source| Error::Record {
            path: path.clone(),
            source,
        };
        let value: serde_json::Value = serde_json::from_str(&text).map_err(damaged)?;
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(FIRST_VERSION..=LAST_VERSION) => {
                let record: Record = serde_json::from_value(value).map_err(damaged)?;
                Ok(Record {
                    version: RECORD_VERSION,
                    ..record
                })
            }
            found => Err(Error::RecordVersion {
                path,
                found: found.unwrap_or(0),
            }),
        }
    }

    /// Complete or not at all, whatever happens in between.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let path = directory.join(RECORD_FILE);
        let partial = directory.join("session.json.partial");
        let act = "session record cannot be written";
        let mut text = serde_json::to_vec_pretty(self).map_err(|source| Error::Record {
            path: path.clone(),
            source,
        })?;
        text.push(b'\n');
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial);
        file.and_then(|mut file| file.write_all(&text))
            .context(act, &partial)?;
        fs::rename(&partial, &path).context(act, &path)
    }
}

const LAST_VERSION: u64 = RECORD_VERSION as u64;
const RECORD_FILE: &str = "session.json";
const LOCK_FILE: &str = "lock";

/// All sessions of this user, and the right to change which there are.
#[derive(Debug)]
pub struct Table {
    paths: Paths,
    _lock: File,
}

/// One row: a session's record, or why it cannot be read, and whether somebody owns it.
#[derive(Debug)]
pub struct Entry {
    pub name: SessionName,
    pub alive: bool,
    pub record: Result<Record>,
}

impl Table {
    /// Waits for the table and settles what dead owners left.
    pub fn open(paths: &Paths) -> Result<Self> {
        make_private(&paths.sessions())?;
        let path = paths.sessions().join(".lock");
        let lock = open_lock(&path)?;
        let start = Instant::now();
        while !try_lock(&lock).context("session table cannot be locked", &path)? {
            if start.elapsed() > TABLE_DEADLINE {
                return Err(Error::Busy {
                    path,
                    waited: TABLE_DEADLINE,
                });
            }
            std::thread::sleep(TABLE_RETRY);
        }
        let table = Table {
            paths: paths.clone(),
            _lock: lock,
        };
        crate::reap::settle_dead(&table)?;
        Ok(table)
    }

    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Every session, by name.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let directory = self.paths.sessions();
        let listed = fs::read_dir(&directory).context("sessions cannot be listed", &directory)?;
        let mut names: Vec<SessionName> = listed
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        names.sort();
        Ok(names.into_iter().map(|name| self.entry(name)).collect())
    }

    /// The session of this name, or an error that says which one was meant.
    pub fn find(&self, name: &SessionName) -> Result<Entry> {
        if self.paths.session(name).is_dir() {
            return Ok(self.entry(name.clone()));
        }
        let all: Vec<SessionName> = self.entries()?.into_iter().map(|entry| entry.name).collect();
        let closest = name.closest(&all).cloned();
        Err(Error::UnknownSession {
            name: name.clone(),
            closest,
        })
    }

    fn entry(&self, name: SessionName) -> Entry {
        let directory = self.paths.session(&name);
        Entry {
            alive: is_owned(&directory),
            record: Record::read(&directory),
            name,
        }
    }

    /// Makes a session of this name or, when nobody cares, of a new one.
    pub fn create(&self, name: Option<SessionName>) -> Result<SessionDir> {
        if let Some(name) = name {
            return self
                .create_named(name)?
                .map_err(|name| match is_owned(&self.paths.session(&name)) {
                    true => Error::NameInUse { name },
                    false => Error::NameTaken { name },
                });
        }
        loop {
            if let Ok(made) = self.create_named(SessionName::generate())? {
                return Ok(made);
            }
        }
    }

    fn create_named(&self, name: SessionName) -> Result<Result<SessionDir, SessionName>> {
        let directory = self.paths.session(&name);
        match fs::create_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(Err(name)),
            made => made.context("directory cannot be made", &directory)?,
        }
        make_owned(&directory)?;
        let owned = self.own(name, directory.clone());
        if owned.is_err() {
            let _ = fs::remove_dir_all(&directory);
        }
        owned.map(Ok)
    }

    /// Takes a session nobody owns, to start it again.
    pub fn take(&self, name: &SessionName) -> Result<SessionDir> {
        crate::reap::settle(self, &self.entry(name.clone()))?;
        self.own(name.clone(), self.paths.session(name))
    }

    fn own(&self, name: SessionName, directory: PathBuf) -> Result<SessionDir> {
        let path = directory.join(LOCK_FILE);
        let lock = open_lock(&path)?;
        if !try_lock(&lock).context("session cannot be locked", &path)? {
            return Err(Error::NameInUse { name });
        }
        let sockets = self.paths.sockets(&name);
        let sockets_lock = own_sockets(&name, &sockets)?;
        Ok(SessionDir {
            paths: self.paths.clone(),
            name,
            directory,
            sockets,
            ephemeral: false,
            _locks: (lock, sockets_lock),
        })
    }

    /// Removes all there is of a session nobody owns, but for its outputs, and says where those are.
    pub fn remove(&self, name: &SessionName) -> Result<Option<PathBuf>> {
        crate::reap::settle(self, &self.entry(name.clone()))?;
        remove(&self.paths, name)
    }

    pub(crate) fn forget(&self, name: &SessionName) -> Result<()> {
        remove(&self.paths, name).map(drop)
    }
}

/// Moves what a session left in its outputs to where it outlives the session. Says where; nothing left, nowhere.
fn move_outputs(paths: &Paths, name: &SessionName) -> Result<Option<PathBuf>> {
    let from = outputs_of(&paths.session(name));
    let act = "outputs of the session cannot be kept";
    match fs::symlink_metadata(&from) {
        Ok(found) if found.is_dir() => {}
        _ => return Ok(None),
    }
    // A guest may have forbidden us its folder, and a folder that moves must be ours to write.
    fs::set_permissions(&from, fs::Permissions::from_mode(0o700)).context(act, &from)?;
    if fs::read_dir(&from).context(act, &from)?.next().is_none() {
        return Ok(None);
    }
    make_private(&paths.outputs())?;
    let plain = std::iter::once(name.to_string());
    for candidate in plain.chain((2..u32::MAX).map(|n| format!("{name}-{n}"))) {
        let to = paths.outputs().join(candidate);
        match fs::create_dir(&to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made.context(act, &to)?,
        }
        // A directory takes the place of an empty one, and of nothing else.
        fs::rename(&from, &to).context(act, &to)?;
        return Ok(Some(to));
    }
    Ok(None)
}

fn remove(paths: &Paths, name: &SessionName) -> Result<Option<PathBuf>> {
    let outputs = move_outputs(paths, name)?;
    for directory in [paths.sockets(name), paths.session(name)] {
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done.context("session cannot be removed", &directory)?,
        }
    }
    Ok(outputs)
}

/// Two state directories may share a runtime directory, so the sockets are locked for themselves. What a
/// dead session left in there is cleared.
fn own_sockets(name: &SessionName, sockets: &Path) -> Result<OwnedFd> {
    // The directory above too: who owns that could put another in this one's place.
    for directory in sockets.parent().into_iter().chain([sockets]) {
        make_owned(directory)?;
    }
    let act = "directory of the session's sockets cannot be used";
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let lock = rustix::fs::open(sockets, flags, Mode::empty()).context(act, sockets)?;
    if !try_lock(&lock).context(act, sockets)? {
        return Err(Error::NameInUse { name: name.clone() });
    }
    for entry in fs::read_dir(sockets).context(act, sockets)? {
        let path = entry.context(act, sockets)?.path();
        fs::remove_file(&path).context(act, &path)?;
    }
    Ok(lock)
}

fn open_lock(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    options.open(path).context("lock file cannot be opened", path)
}

fn try_lock(file: impl std::os::fd::AsFd) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Asked under the table's lock, so that nobody takes the question for an owner.
fn is_owned(directory: &Path) -> bool {
    File::open(directory.join(LOCK_FILE)).is_ok_and(|lock| matches!(try_lock(&lock), Ok(false)))
}

/// A session's directory, owned by this process until the value is dropped.
#[derive(Debug)]
pub struct SessionDir {
    paths: Paths,
    name: SessionName,
    directory: PathBuf,
    sockets: PathBuf,
    ephemeral: bool,
    _locks: (File, OwnedFd),
}

impl SessionDir {
    pub fn name(&self) -> &SessionName {
        &self.name
    }

    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// From now on all of it goes when this value does.
    pub fn discard_at_end(&mut self, discard: bool) {
        self.ephemeral = discard;
    }

    /// The folders every session has, made now if they are not there.
    pub(crate) fn own_folders(&self) -> Result<Vec<SharedFolder>> {
        let own = [(OUTPUTS, ShareMode::ReadWrite), (UPLOADS, ShareMode::ReadOnly)];
        own.into_iter()
            .map(|(name, mode)| self.own_folder(name, mode))
            .collect()
    }

    fn own_folder(&self, name: &str, mode: ShareMode) -> Result<SharedFolder> {
        let act = "folder of the session cannot be made";
        let typed = self.directory.join(name);
        // A guest may have forbidden us its folder; that does not keep the session from starting again.
        if fs::symlink_metadata(&typed).is_ok_and(|found| found.is_dir()) {
            fs::set_permissions(&typed, fs::Permissions::from_mode(0o700)).context(act, &typed)?;
        }
        make_private(&typed)?;
        Ok(SharedFolder {
            name: ShareName::try_from(name.to_owned())
                .map_err(io::Error::other)
                .context(act, &typed)?,
            path: fs::canonicalize(&typed).context(act, &typed)?,
            rules: FolderRules::new(mode),
            // It is among our own, which nobody else may share.
            i_know: true,
        })
    }

    /// Moves what is in the outputs to where it stays when the session goes, and says where.
    pub fn keep_outputs(&self) -> Result<Option<PathBuf>> {
        move_outputs(&self.paths, &self.name)
    }

    pub fn scratch(&self) -> PathBuf {
        self.directory.join("scratch.img")
    }

    pub fn console(&self) -> PathBuf {
        console_of(&self.directory)
    }

    pub fn machine_log(&self) -> PathBuf {
        machine_log_of(&self.directory)
    }

    pub fn egress_log(&self) -> PathBuf {
        egress_log_of(&self.directory)
    }
}

pub fn outputs_of(directory: &Path) -> PathBuf {
    directory.join(OUTPUTS)
}

pub fn uploads_of(directory: &Path) -> PathBuf {
    directory.join(UPLOADS)
}

pub fn console_of(directory: &Path) -> PathBuf {
    directory.join("console.log")
}

pub fn machine_log_of(directory: &Path) -> PathBuf {
    directory.join("vmm.log")
}

pub fn egress_log_of(directory: &Path) -> PathBuf {
    directory.join("egress.log")
}

pub fn keeper_log_of(directory: &Path) -> PathBuf {
    directory.join("keeper.log")
}

impl Drop for SessionDir {
    fn drop(&mut self) {
        // What cannot be removed now is found by the next start: the locks go with this process.
        if self.ephemeral {
            let _ = remove(&self.paths, &self.name);
        } else {
            let _ = fs::remove_dir_all(&self.sockets);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
