//! What folders are called in the guest: one name each.

use vmm_api::{MAX_SHARE_NAME, ShareName, ShareNameError};

use super::{OUTPUTS, UPLOADS};

/// How a folder is to be called.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum NameWish {
    /// So, or not at all.
    Exactly(ShareName),
    /// So, or with a number behind it.
    Like(ShareName),
}

impl NameWish {
    pub(crate) fn name(&self) -> &ShareName {
        match self {
            NameWish::Exactly(name) | NameWish::Like(name) => name,
        }
    }

    /// The name to take when those that `is_taken` knows are; `None` when the one that must be is.
    pub(crate) fn settle(&self, is_taken: impl Fn(&ShareName) -> bool) -> Option<ShareName> {
        let free = |name: &ShareName| !is_own(name) && !is_taken(name);
        match self {
            NameWish::Exactly(name) => Some(name.clone()).filter(free),
            NameWish::Like(name) => std::iter::once(name.clone()).chain(numbered(name)).find(free),
        }
    }
}

/// Whether it is the name of a folder that every session has.
pub(crate) fn is_own(name: &ShareName) -> bool {
    [OUTPUTS, UPLOADS].contains(&name.as_str())
}

/// The name a folder called `text` has on its own: no leading dot, nothing that does not print.
pub(crate) fn from_host(text: &str) -> Result<ShareName, ShareNameError> {
    let printable = |c: char| if c == '/' || c.is_control() { '_' } else { c };
    let name: String = text.trim_start_matches('.').chars().map(printable).collect();
    ShareName::try_from(cut(&name, MAX_SHARE_NAME).to_owned())
        .or_else(|_| ShareName::try_from(NAMELESS.to_owned()))
}

/// For one like `...`, of whose name nothing is left.
const NAMELESS: &str = "folder";

/// `name-2`, `name-3`, …: there are fewer folders than this counts.
fn numbered(name: &ShareName) -> impl Iterator<Item = ShareName> + '_ {
    /// A dash and any `u32`.
    const SUFFIX: usize = 11;
    let stem = cut(name.as_str(), MAX_SHARE_NAME - SUFFIX);
    (2..u32::MAX).filter_map(move |n| ShareName::try_from(format!("{stem}-{n}")).ok())
}

/// At most `max` bytes of it, and no half character.
fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ShareName {
        ShareName::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn a_name_that_is_taken_gets_a_number_and_one_that_was_asked_for_does_not() {
        let taken = [name("src"), name("src-2")];
        let settle = |wish: NameWish| wish.settle(|name| taken.contains(name)).map(String::from);
        assert_eq!(settle(NameWish::Like(name("src"))).as_deref(), Some("src-3"));
        assert_eq!(settle(NameWish::Like(name("other"))).as_deref(), Some("other"));
        assert_eq!(
            settle(NameWish::Like(name("outputs"))).as_deref(),
            Some("outputs-2")
        );
        assert_eq!(settle(NameWish::Exactly(name("src"))), None);
        assert_eq!(settle(NameWish::Exactly(name("uploads"))), None);
        let long = NameWish::Like(name(&"é".repeat(127)));
        let other = long.settle(|taken| taken == long.name()).unwrap();
        assert!(other.as_str().ends_with("é-2"));
    }

    #[test]
    fn any_folder_of_the_host_gets_a_name_that_can_be_seen() {
        for (text, expected) in [
            ("src", "src"),
            (".config", "config"),
            ("a\nb", "a_b"),
            ("...", "folder"),
            ("", "folder"),
        ] {
            assert_eq!(from_host(text).unwrap().as_str(), expected);
        }
        assert!(from_host(&"\u{fffd}".repeat(255)).unwrap().as_str().len() <= MAX_SHARE_NAME);
    }
}
