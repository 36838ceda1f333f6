//! The decision.

use crate::{Effect, Kind, RelPath, Standing, pattern_set::PatternSet, standing::Starts};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    ReadOnly,
    ReadWrite,
    /// Changes are collected and wait for a person. No policy has this mode yet: [`SharePolicy::new`] refuses it.
    Review,
}

/// What is to happen to an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow,
    Deny(Refusal),
    /// As if there were nothing of that name.
    Hide,
    /// A person decides; the request waits. Nothing returns it yet, and whoever meets it refuses.
    Ask,
    /// Allowed once a journal holds what it destroys. Nothing returns it yet, and whoever has no journal refuses.
    AllowWithUndo,
}

impl Decision {
    /// Whether the effect may happen right away. `Ask` and `AllowWithUndo` need somebody to carry them out, and
    /// there is nobody yet.
    pub fn permits(self) -> bool {
        self == Decision::Allow
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    #[error("the folder is shared read-only")]
    ReadOnly,
    /// A tool of the host runs it unasked.
    #[error("protected")]
    Protected,
    /// A name may not come to be where the guest does not see it.
    #[error("hidden")]
    Hidden,
    /// A symbolic link in the place of a directory such as `.git/hooks` would lead the host's tools to files that
    /// nobody protects.
    #[error("on the way to something protected, where a symbolic link may not be")]
    WayToProtected,
}

/// Whether moving a directory makes the patterns say something else of what is below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Of nothing, whatever is below: the directory may move as it is.
    Nothing,
    /// Ask [`SharePolicy::verdict_for_moved`] about everything below it first.
    Maybe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error(
        "the mode \"review\" is not there yet: a later version will have it; until then share read-only or read-write"
    )]
    ReviewNotYet,
}

/// What a guest may do in one share.
#[derive(Clone, Debug)]
pub struct SharePolicy {
    mode: Mode,
    hidden: PatternSet,
    protected: PatternSet,
    starts: Starts,
}

impl SharePolicy {
    pub fn new(mode: Mode, hidden: PatternSet, protected: PatternSet) -> Result<Self, PolicyError> {
        if mode == Mode::Review {
            return Err(PolicyError::ReviewNotYet);
        }
        let starts = Starts::of([&hidden, &protected]);
        Ok(SharePolicy {
            mode,
            hidden,
            protected,
            starts,
        })
    }

    /// For a file system that finds a file by names which it does not list: they are hidden, if anything is hidden or
    /// protected.
    pub fn without_other_names(self) -> Self {
        if self.hidden.is_empty() && self.protected.is_empty() {
            return self;
        }
        let hidden = self.hidden.and_other_names();
        let starts = Starts::of([&hidden, &self.protected]);
        SharePolicy {
            hidden,
            starts,
            ..self
        }
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// In a read-only share the answer to every effect is the same, so that it tells nothing of what is hidden.
    pub fn decide(&self, effect: &Effect<'_>) -> Decision {
        let standing = self.standing(effect.path());
        match *effect {
            Effect::Create { kind, .. } | Effect::RenameOver { kind, .. } => self.decide_new(standing, kind),
            Effect::Symlink { .. } => self.decide_new(standing, Kind::Symlink),
            // Whoever may not write to a file may not make a name under which it could.
            Effect::Link { from, kind, .. } => match self.decide_change(self.standing(from)) {
                Decision::Allow => self.decide_new(standing, kind),
                refused => refused,
            },
            Effect::Write { .. }
            | Effect::Truncate { .. }
            | Effect::Delete { .. }
            | Effect::RemoveDirectory { .. }
            | Effect::RenameOut { .. }
            | Effect::Mode { .. }
            | Effect::Time { .. }
            | Effect::Xattr { .. } => self.decide_change(standing),
        }
    }

    /// What [`Self::decide`] says of any effect on something that is there, for whoever knows its standing.
    pub fn decide_change(&self, standing: Standing) -> Decision {
        match self.mode {
            Mode::ReadOnly | Mode::Review => Decision::Deny(Refusal::ReadOnly),
            Mode::ReadWrite if standing.is_hidden() => Decision::Hide,
            Mode::ReadWrite if standing.is_protected() => Decision::Deny(Refusal::Protected),
            Mode::ReadWrite => Decision::Allow,
        }
    }

    /// What [`Self::decide`] says of something of this kind getting a name of this standing.
    pub fn decide_new(&self, standing: Standing, kind: Kind) -> Decision {
        match self.decide_change(standing) {
            Decision::Hide => Decision::Deny(Refusal::Hidden),
            Decision::Allow if kind == Kind::Symlink && standing.is_way() => {
                Decision::Deny(Refusal::WayToProtected)
            }
            decision => decision,
        }
    }

    /// Whether the guest does not see the path, or a directory above it. `!` cannot take back what is below a hidden
    /// directory: nobody gets there.
    pub fn hides(&self, path: &RelPath) -> bool {
        self.hides_components(path.components())
    }

    /// Whether the guest may not change the path.
    pub fn protects(&self, path: &RelPath) -> bool {
        self.protects_components(path.components())
    }

    /// As [`Self::hides`], without a path: the components from the share's root down. Does not allocate.
    pub fn hides_components<'a>(&self, path: impl IntoIterator<Item = &'a [u8], IntoIter: Clone>) -> bool {
        self.standing_components(path).is_hidden()
    }

    /// As [`Self::protects`], without a path: the components from the share's root down. Does not allocate.
    pub fn protects_components<'a>(&self, path: impl IntoIterator<Item = &'a [u8], IntoIter: Clone>) -> bool {
        self.standing_components(path).is_protected()
    }

    /// Whether the path is a directory on the way to something that a pattern can match (`.git`, `.git/hooks`,
    /// `.vscode`): a symbolic link may not be there.
    pub fn is_way_to_protected(&self, path: &RelPath) -> bool {
        self.standing(path).is_way()
    }

    pub fn standing(&self, path: &RelPath) -> Standing {
        self.standing_components(path.components())
    }

    /// As [`Self::standing`], without a path: the components from the share's root down. Does not allocate. Quick for
    /// what is plain, some microseconds for the rest.
    pub fn standing_components<'a>(
        &self,
        path: impl IntoIterator<Item = &'a [u8], IntoIter: Clone>,
    ) -> Standing {
        let components = path.into_iter();
        if !components.clone().any(|name| self.may_leave_plain(name)) {
            return Standing::default();
        }
        Standing::new(self.hidden.judge(&components), self.protected.judge(&components))
    }

    /// The quick question of every lookup. False: whatever has this name in a directory that
    /// [is plain](Standing::is_plain) is plain itself, and nobody needs to ask further. True, or the directory is not
    /// plain: ask [`Self::standing_components`]. The share's root counts as plain.
    ///
    /// So whoever keeps one bit for every directory, whether it is plain, asks about paths only below `.git` and its
    /// like. The bit changes when the directory or one above it is renamed, unless
    /// [`Self::renames_reach_patterns`] says that nothing does.
    pub fn may_leave_plain(&self, name: &[u8]) -> bool {
        self.starts.may_begin_with(name)
    }

    /// False: no pattern ends in something that matches `last`, so a path with this last component is hidden or
    /// protected exactly if its parent directory is. Only that: it may be a [way](Standing::is_way) all the same.
    ///
    /// True for every name as soon as one pattern ends in `*`, as a default does (`.git/hooks/*`).
    /// [`Self::may_leave_plain`] is the one that spares work.
    pub fn may_match_name(&self, last: &[u8]) -> bool {
        let mut rules = self.hidden.rules().iter().chain(self.protected.rules());
        rules.any(|rule| rule.last().is_some_and(|glob| glob.matches(last)))
    }

    /// Whether a directory that moves from `from` to `to` may have something below it of which the patterns say
    /// something else there than here. `mv .git x` would free its hooks, `mv x .git` make hooks of what the guest
    /// wrote. What stays as protected or as hidden as it was may move along: `mv project other` works, with
    /// everything in it.
    ///
    /// The directory itself is asked about as [`Effect::RenameOut`] and [`Effect::Create`], in either case.
    pub fn renames_reach_patterns(&self, from: &RelPath, to: &RelPath) -> Reach {
        let alike = |set: &PatternSet| set.goes_on_alike(&from.components(), &to.components());
        if alike(&self.hidden) && alike(&self.protected) {
            Reach::Nothing
        } else {
            Reach::Maybe
        }
    }

    /// Whether something found below a directory that moves may come to lie at `new` instead of `old`. If it is not
    /// allowed, the directory does not move; nor does it if something below it cannot be read. Between the walk and the
    /// move the guest must not change what is below.
    pub fn verdict_for_moved(&self, old: &RelPath, new: &RelPath, kind: Kind) -> Decision {
        let (before, after) = (self.standing(old), self.standing(new));
        let plain = self.decide_change(Standing::default());
        if !plain.permits() {
            plain
        } else if before.is_hidden() != after.is_hidden() {
            Decision::Deny(Refusal::Hidden)
        } else if before.is_protected() != after.is_protected() {
            Decision::Deny(Refusal::Protected)
        } else if kind == Kind::Symlink && after.is_way() && !before.is_way() {
            Decision::Deny(Refusal::WayToProtected)
        } else {
            Decision::Allow
        }
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
