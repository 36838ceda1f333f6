//! The folders a running session has, and which of them are just coming or going.

use std::sync::{Mutex, MutexGuard, PoisonError};

use vmm_api::ShareName;

use crate::{
    Error, Result, SessionName,
    share::{Asked, MAX_FOLDERS, SharedFolder, is_own, name_taken},
};

/// ```text
/// reserve ──▶ Coming ── settle ──▶ There ── leave ──▶ Going ── forget ──▶ (gone)
///                └── forget ──▶ (gone)  ◀── settle ──────┘
/// ```
#[derive(Debug)]
pub(crate) struct Folders {
    session: SessionName,
    entries: Mutex<Vec<Entry>>,
}

#[derive(Clone, Debug)]
struct Entry {
    folder: SharedFolder,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Coming,
    There,
    Going,
}

impl Folders {
    /// Those a session starts with, its own among them.
    pub(crate) fn new(session: SessionName, folders: Vec<SharedFolder>) -> Self {
        let entry = |folder| Entry {
            folder,
            stage: Stage::There,
        };
        Folders {
            session,
            entries: Mutex::new(folders.into_iter().map(entry).collect()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that the guest has or may still have.
    pub(crate) fn there(&self) -> Vec<SharedFolder> {
        let entries = self.lock();
        let there = entries.iter().filter(|entry| entry.stage != Stage::Coming);
        there.map(|entry| entry.folder.clone()).collect()
    }

    /// Those a person shared.
    pub(crate) fn shared(&self) -> Vec<SharedFolder> {
        let mut folders = self.there();
        folders.retain(|folder| !is_own(&folder.name));
        folders
    }

    /// Where a command starts: in the folder that was shared first, else in the session's home.
    pub(crate) fn first(&self) -> Option<Vec<u8>> {
        let entries = self.lock();
        let first = entries
            .iter()
            .find(|entry| entry.stage == Stage::There && !is_own(&entry.folder.name))?;
        Some(format!("/sessions/{}/mnt/{}", self.session, first.folder.name).into_bytes())
    }

    /// Finds a name for one more.
    pub(crate) fn reserve(&self, asked: Asked) -> Result<Reserved<'_>> {
        let mut entries = self.lock();
        let shared = entries.iter().filter(|entry| !is_own(&entry.folder.name)).count();
        if shared >= MAX_FOLDERS {
            return Err(Error::TooManyFolders {
                found: shared + 1,
                max: MAX_FOLDERS,
            });
        }
        let is_taken = |name: &ShareName| entries.iter().any(|entry| entry.folder.name == *name);
        let name = asked
            .name
            .settle(is_taken)
            .ok_or_else(|| name_taken(asked.name.name()))?;
        let folder = asked.called(name);
        entries.push(Entry {
            folder: folder.clone(),
            stage: Stage::Coming,
        });
        Ok(Reserved {
            folders: self,
            folder,
            on_drop: Stage::Coming,
        })
    }

    /// Begins to take one away.
    pub(crate) fn leave(&self, name: &ShareName) -> Result<Reserved<'_>> {
        if is_own(name) {
            return Err(Error::Usage {
                what: format!("every session keeps its folder {name}"),
                hint: "coffer share ls shows those that can be taken away".to_owned(),
            });
        }
        let mut entries = self.lock();
        let there: Vec<String> = entries
            .iter()
            .filter(|entry| !is_own(&entry.folder.name))
            .map(|entry| entry.folder.name.to_string())
            .collect();
        let entry = entries
            .iter_mut()
            .find(|entry| entry.folder.name == *name)
            .ok_or_else(|| Error::UnknownFolder {
                session: self.session.clone(),
                name: name.clone(),
                there: there.join(", "),
            })?;
        if entry.stage != Stage::There {
            return Err(Error::FolderChanging { name: name.clone() });
        }
        entry.stage = Stage::Going;
        Ok(Reserved {
            folders: self,
            folder: entry.folder.clone(),
            on_drop: Stage::There,
        })
    }
}

/// A folder under way, of which nobody else can change anything. Dropped, it is again what it was.
#[derive(Debug)]
pub(crate) struct Reserved<'a> {
    folders: &'a Folders,
    folder: SharedFolder,
    /// `Coming` is one that was not there before.
    on_drop: Stage,
}

impl Reserved<'_> {
    pub(crate) fn folder(&self) -> &SharedFolder {
        &self.folder
    }

    pub(crate) fn settle(mut self) {
        self.on_drop = Stage::There;
    }

    pub(crate) fn forget(mut self) {
        self.on_drop = Stage::Coming;
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut entries = self.folders.lock();
        match self.on_drop {
            Stage::Coming => entries.retain(|entry| entry.folder.name != self.folder.name),
            stage => {
                let ours = entries
                    .iter_mut()
                    .find(|entry| entry.folder.name == self.folder.name);
                if let Some(entry) = ours {
                    entry.stage = stage;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use vmm_api::ShareMode;

    use super::*;
    use crate::share::{FolderRules, NameWish};

    fn name(text: &str) -> ShareName {
        ShareName::try_from(text.to_owned()).unwrap()
    }

    fn asked(wish: NameWish) -> Asked {
        Asked {
            path: "/somewhere".into(),
            name: wish,
            rules: FolderRules::new(ShareMode::ReadWrite),
            i_know: false,
        }
    }

    fn folders(names: &[&str]) -> Folders {
        let called = |text: &&str| asked(NameWish::Like(name(text))).called(name(text));
        Folders::new("box".parse().unwrap(), names.iter().map(called).collect())
    }

    #[test]
    fn a_command_starts_in_the_first_folder_that_is_there_and_was_shared() {
        let folders = folders(&["outputs", "src", "other"]);
        let first = || folders.first().map(|path| String::from_utf8(path).unwrap());
        assert_eq!(first().as_deref(), Some("/sessions/box/mnt/src"));
        let going = folders.leave(&name("src")).unwrap();
        assert_eq!(first().as_deref(), Some("/sessions/box/mnt/other"));
        going.forget();
        folders.leave(&name("other")).unwrap().forget();
        assert_eq!(first(), None);
    }

    #[test]
    fn what_is_coming_is_not_there_and_its_name_is_taken() {
        let folders = folders(&[]);
        let coming = folders.reserve(asked(NameWish::Like(name("src")))).unwrap();
        assert!(folders.there().is_empty());
        assert!(matches!(
            folders.leave(&name("src")),
            Err(Error::FolderChanging { .. })
        ));
        assert!(folders.reserve(asked(NameWish::Exactly(name("src")))).is_err());
        let second = folders.reserve(asked(NameWish::Like(name("src")))).unwrap();
        assert_eq!(second.folder().name.as_str(), "src-2");
        coming.settle();
        drop(second);
        let names: Vec<String> = folders.there().into_iter().map(|f| f.name.into()).collect();
        assert_eq!(names, ["src"]);
    }

    #[test]
    fn one_that_could_not_be_taken_away_is_there_again() {
        let folders = folders(&["src"]);
        drop(folders.leave(&name("src")).unwrap());
        assert_eq!(folders.shared().len(), 1);
        folders.leave(&name("src")).unwrap().forget();
        assert!(folders.shared().is_empty());
        let error = folders.leave(&name("src")).unwrap_err();
        assert!(matches!(error, Error::UnknownFolder { .. }));
    }

    #[test]
    fn the_sessions_own_folders_stay() {
        let folders = folders(&["outputs", "uploads"]);
        assert_eq!(folders.leave(&name("outputs")).unwrap_err().code(), 2);
        assert!(folders.shared().is_empty() && folders.there().len() == 2);
    }
}
