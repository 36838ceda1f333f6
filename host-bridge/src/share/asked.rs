//! What a `--share` means, once the host was looked at.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use vmm_api::{ShareMode, ShareName};

use super::{
    FolderRules, Guard, MAX_FOLDERS, SharedFolder,
    names::{self, NameWish},
    patterns,
    place::Place,
    typed::{Mode, ShareOption, Typed, invalid},
};
use crate::{Error, Result};

/// A folder to share, all but its name settled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) path: PathBuf,
    pub(crate) name: NameWish,
    pub(crate) rules: FolderRules,
    pub(crate) i_know: bool,
}

/// Reads one `--share` and looks at the folder it names.
pub(crate) fn asked_of(whole: &OsStr, guard: &Guard, i_know: bool) -> Result<Asked> {
    let typed = Typed::parse(whole)?;
    one_reading(&typed)?;
    let rules = rules_of(&typed)?;
    let place = Place::find(Path::new(&typed.path))?;
    if !i_know {
        guard.check(&place)?;
    }
    Ok(Asked {
        name: name_of(&typed, &place)?,
        path: place.path().to_owned(),
        rules,
        i_know,
    })
}

/// Nothing is there under a longer name that the same words could mean.
fn one_reading(typed: &Typed) -> Result<()> {
    let there = |reading: &&(_, _)| std::fs::symlink_metadata::<&Path>(Path::new(&reading.0)).is_ok();
    let readings: &[(std::ffi::OsString, std::ffi::OsString)] = &typed.other_readings;
    let Some((_, escaped)) = readings.iter().find(there) else {
        return Ok(());
    };
    let hint = format!(
        "write {} for that folder, {}/:… for the one before the colon",
        escaped.to_string_lossy(),
        typed.path.to_string_lossy()
    );
    Err(invalid(
        &typed.whole,
        "there is something whose name has that colon in it",
        hint,
    ))
}

fn rules_of(typed: &Typed) -> Result<FolderRules> {
    let mut rules = FolderRules::new(ShareMode::ReadWrite);
    for option in &typed.options {
        match option {
            ShareOption::Mode(Mode::ReadOnly) => rules.mode = ShareMode::ReadOnly,
            ShareOption::Mode(Mode::ReadWrite) => rules.mode = ShareMode::ReadWrite,
            ShareOption::Mode(Mode::Review) => return Err(review(typed)),
            ShareOption::Cache(cache) => rules.cache = *cache,
            ShareOption::Hide(pattern) => rules.hide.push(plain(typed, pattern, "show")?),
            ShareOption::Show(pattern) => rules.hide.push(format!("!{}", plain(typed, pattern, "hide")?)),
            ShareOption::Protect(pattern) => rules.protect.push(plain(typed, pattern, "unprotect")?),
            ShareOption::Unprotect(pattern) => {
                rules
                    .protect
                    .push(format!("!{}", plain(typed, pattern, "protect")?));
            }
            ShareOption::MaxBytes(bytes) => rules.limits.bytes = Some(*bytes),
            ShareOption::MaxFiles(files) => rules.limits.files = Some(*files),
        }
    }
    patterns::check(&patterns::hidden(&rules.hide))
        .and_then(|()| patterns::check(&patterns::protected(&rules.protect)))
        .map_err(|why| invalid(&typed.whole, &why, PATTERN_HINT))?;
    Ok(rules)
}

const PATTERN_HINT: &str =
    "a pattern is a name such as *.key, or a path such as /build/cache from the folder's root";

fn review(typed: &Typed) -> Error {
    let hint = "it will hold back what the sandbox changes until you take it; \
                use ro, or rw on a copy of the folder, until then";
    invalid(&typed.whole, "review is not there yet", hint)
}

/// What takes a pattern back has an option of its own.
fn plain(typed: &Typed, pattern: &str, opposite: &str) -> Result<String> {
    if pattern.trim().is_empty() {
        return Err(invalid(
            &typed.whole,
            "a pattern with nothing in it",
            PATTERN_HINT,
        ));
    }
    if pattern.starts_with('!') {
        let hint = format!("{opposite}=PATTERN says the opposite");
        return Err(invalid(&typed.whole, &format!("{pattern:?} begins with !"), hint));
    }
    Ok(pattern.to_owned())
}

fn name_of(typed: &Typed, place: &Place) -> Result<NameWish> {
    let refuse = |why: &str, hint| invalid(&typed.whole, why, hint);
    let Some(name) = &typed.name else {
        // `.` and `..` have no name of their own.
        let typed_name = Path::new(&typed.path).file_name();
        let name = typed_name
            .or(place.path().file_name())
            .unwrap_or(OsStr::new("root"));
        let name = names::from_host(&name.to_string_lossy());
        return name
            .map(NameWish::Like)
            .map_err(|error| refuse(&error.to_string(), ""));
    };
    let name =
        ShareName::try_from(name.clone()).map_err(|error| refuse(&error.to_string(), "PATH:OPTIONS:AS"))?;
    if names::is_own(&name) {
        let why = format!("every session has a folder called {name} of its own");
        return Err(refuse(&why, "take another name"));
    }
    Ok(NameWish::Exactly(name))
}

/// Gives each of `asked` its name, beside the folders a session has from before. One of those that is asked for again
/// becomes what is said now.
pub(crate) fn settle(former: Vec<SharedFolder>, asked: Vec<Asked>) -> Result<Vec<SharedFolder>> {
    let is_again = |folder: &SharedFolder, asked: &Asked| {
        let same_name = match &asked.name {
            NameWish::Exactly(name) => *name == folder.name,
            NameWish::Like(_) => true,
        };
        asked.path == folder.path && same_name
    };
    let mut folders = former;
    let mut fresh = Vec::new();
    for asked in asked {
        match folders.iter_mut().find(|folder| is_again(folder, &asked)) {
            Some(folder) => {
                folder.rules = asked.rules;
                folder.i_know = asked.i_know;
            }
            None => fresh.push(asked),
        }
    }
    // Who chose a name gets it, wherever in the line they stand.
    let mut order: Vec<usize> = (0..fresh.len()).collect();
    order.sort_by_key(|at| matches!(fresh[*at].name, NameWish::Like(_)));
    let mut named: Vec<Option<ShareName>> = vec![None; fresh.len()];
    for at in order {
        let taken = |name: &ShareName| {
            folders.iter().any(|folder| folder.name == *name)
                || named.iter().flatten().any(|other| other == name)
        };
        let name = fresh[at].name.settle(taken);
        named[at] = Some(name.ok_or_else(|| name_taken(fresh[at].name.name()))?);
    }
    let settled = fresh.into_iter().zip(named.into_iter().flatten());
    folders.extend(settled.map(|(asked, name)| asked.called(name)));
    match folders.len() {
        0..=MAX_FOLDERS => Ok(folders),
        found => Err(Error::TooManyFolders {
            found,
            max: MAX_FOLDERS,
        }),
    }
}

pub(crate) fn name_taken(name: &ShareName) -> Error {
    Error::Usage {
        what: format!("two folders cannot have one name: {name}"),
        hint: "take another name, or leave it to us: a number is put behind it".to_owned(),
    }
}

impl Asked {
    pub(crate) fn called(self, name: ShareName) -> SharedFolder {
        SharedFolder {
            name,
            path: self.path,
            rules: self.rules,
            i_know: self.i_know,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use vmm_api::ShareCache;

    use super::*;
    use crate::Paths;

    /// A directory with folders to share in it, and ours elsewhere.
    fn rig() -> (tempfile::TempDir, Guard) {
        let root = tempfile::tempdir().unwrap();
        for folder in ["work/src", "work/other/src", "work/a:ro", "work/.config", "ours"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let guard = Guard::of(&Paths::below(&root.path().join("ours")));
        (root, guard)
    }

    fn ask(root: &Path, guard: &Guard, text: &str) -> Result<Asked> {
        asked_of(root.join("work").join(text).as_os_str(), guard, false)
    }

    fn names(folders: &[SharedFolder]) -> Vec<&str> {
        folders.iter().map(|folder| folder.name.as_str()).collect()
    }

    #[test]
    fn options_become_rules_and_say_again_what_was_typed() {
        let (root, guard) = rig();
        let text =
            "src:ro,cache=exclusive,hide=*.key,show=.ssh,unprotect=.envrc,max-bytes=1G,max-files=9:code";
        let asked = ask(root.path(), &guard, text).unwrap();
        let rules = &asked.rules;
        assert_eq!(
            (rules.mode, rules.cache),
            (ShareMode::ReadOnly, ShareCache::Exclusive)
        );
        assert_eq!((rules.limits.bytes, rules.limits.files), (Some(1 << 30), Some(9)));
        assert_eq!(
            rules.changes(),
            [
                "hide=*.key",
                "show=.ssh",
                "unprotect=.envrc",
                "max-bytes=1G",
                "max-files=9"
            ]
        );
        let share = asked
            .called(ShareName::try_from("code".to_owned()).unwrap())
            .share();
        assert_eq!(share.hide.last().map(String::as_str), Some("!.ssh"));
        assert!(share.hide.len() > 2 && share.protect.len() > 1);
    }

    #[test]
    fn a_folder_is_called_as_it_was_typed_or_as_it_is() {
        let (root, guard) = rig();
        std::os::unix::fs::symlink(root.path().join("work/src"), root.path().join("work/link")).unwrap();
        for (text, name) in [
            ("src", "src"),
            ("src/", "src"),
            ("src/.", "src"),
            ("other/src/..", "other"),
            ("link", "link"),
            (".config", "config"),
            ("src:code", "code"),
        ] {
            let asked = ask(root.path(), &guard, text).unwrap();
            assert_eq!(asked.name.name().as_str(), name, "{text}");
        }
        let asked = ask(root.path(), &guard, "link").unwrap();
        assert_eq!(
            asked.path,
            fs::canonicalize(root.path().join("work/src")).unwrap()
        );
    }

    #[test]
    fn a_colon_that_could_belong_to_the_path_is_asked_about() {
        let (root, guard) = rig();
        fs::create_dir(root.path().join("work/a")).unwrap();
        let error = ask(root.path(), &guard, "a:ro").unwrap_err();
        assert_eq!(error.code(), 2);
        assert!(
            error.hint().unwrap().contains(r"/a\:ro for that"),
            "{:?}",
            error.hint()
        );
        let of_colon = ask(root.path(), &guard, r"a\:ro").unwrap();
        assert!(of_colon.path.ends_with("a:ro") && of_colon.rules.mode == ShareMode::ReadWrite);
        let plain = ask(root.path(), &guard, "a/:ro").unwrap();
        assert!(plain.path.ends_with("a") && plain.rules.mode == ShareMode::ReadOnly);
        // Not there without the colon: still asked, never guessed.
        fs::remove_dir(root.path().join("work/a")).unwrap();
        assert!(ask(root.path(), &guard, "a:ro").is_err());
    }

    #[test]
    fn what_cannot_be_meant_is_a_usage_error() {
        let (root, guard) = rig();
        for (text, word) in [
            ("src:review", "review is not there yet"),
            ("src:hide=!x", "begins with !"),
            ("src:hide=a[", "bracket"),
            ("src:protect=#x", "begins with #"),
            ("src:hide= ", "nothing in it"),
            ("src:rw:.hidden", "cannot be a folder's name"),
            ("src:a/b", "cannot be a folder's name"),
            ("src:outputs", "of its own"),
            ("src:ro:uploads", "of its own"),
        ] {
            let error = ask(root.path(), &guard, text).expect_err(text);
            assert!(error.line().contains(word), "{text}: {}", error.line());
            assert_eq!((error.code(), error.hint().is_some()), (2, true), "{text}");
        }
    }

    #[test]
    fn each_folder_gets_a_name_and_a_chosen_name_comes_first() {
        let (root, guard) = rig();
        let ask = |text: &str| ask(root.path(), &guard, text).unwrap();
        let settled = settle(Vec::new(), vec![ask("src"), ask("other/src"), ask("other:src")]).unwrap();
        assert_eq!(names(&settled), ["src-2", "src-3", "src"]);
        let twice = settle(Vec::new(), vec![ask("src:x"), ask("other:x")]).unwrap_err();
        assert!(twice.line().contains("one name: x"), "{}", twice.line());
        let again = settle(settled, vec![ask("other:src-2")]).unwrap_err();
        assert_eq!(again.code(), 2);
    }

    #[test]
    fn a_folder_shared_again_becomes_what_is_said_now() {
        let (root, guard) = rig();
        let ask = |text: &str| ask(root.path(), &guard, text).unwrap();
        let former = settle(Vec::new(), vec![ask("src"), ask("other")]).unwrap();
        let settled = settle(former, vec![ask("src:ro"), ask("src:second")]).unwrap();
        assert_eq!(names(&settled), ["src", "other", "second"]);
        assert_eq!(settled[0].rules.mode, ShareMode::ReadOnly);
    }

    #[test]
    fn more_folders_than_a_session_takes_are_refused() {
        let (root, guard) = rig();
        let asked: Vec<Asked> = (0..=MAX_FOLDERS)
            .map(|n| ask(root.path(), &guard, &format!("src:f{n}")).unwrap())
            .collect();
        assert!(matches!(
            settle(Vec::new(), asked),
            Err(Error::TooManyFolders { .. })
        ));
    }
}
