//! What a guest is about to do to a path.

use crate::RelPath;

/// What a name stands for. Nothing else is ever made in a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    File,
    Directory,
    Symlink,
}

/// One change. An operation that is several is asked about one by one, and happens only if all of them may:
///
/// | operation | effects |
/// |---|---|
/// | create, mkdir, mknod, O_TMPFILE's later link | `Create` |
/// | symlink | `Symlink` |
/// | link | `Link` |
/// | write, fallocate, copy into, shared mapping | `Write` |
/// | O_TRUNC, ftruncate, hole punching and zeroing | `Truncate` |
/// | unlink; rmdir | `Delete`; `RemoveDirectory` |
/// | rename | `RenameOut` of the old path; `RenameOver` at the new one if something is there, else `Create` |
/// | rename that exchanges | `RenameOut` of both paths, `Create` of each with the kind that comes there |
/// | chmod; utimens; setxattr and removexattr | `Mode`; `Time`; `Xattr` |
///
/// `kind` is that of the thing which gets the name. A renamed directory takes along what is below it: see
/// [`SharePolicy::renames_reach_patterns`](crate::SharePolicy::renames_reach_patterns).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect<'a> {
    /// A name appears where none was.
    Create {
        path: &'a RelPath,
        kind: Kind,
    },
    /// `overwrites`: some of the bytes were there before.
    Write {
        path: &'a RelPath,
        overwrites: bool,
    },
    /// `discards`: some of the bytes that go were there before.
    Truncate {
        path: &'a RelPath,
        discards: bool,
    },
    Delete {
        path: &'a RelPath,
    },
    RemoveDirectory {
        path: &'a RelPath,
    },
    /// Something else takes the name of what is there.
    RenameOver {
        path: &'a RelPath,
        kind: Kind,
    },
    /// What is there goes to another name.
    RenameOut {
        path: &'a RelPath,
    },
    /// `to` becomes another name of what is at `from`.
    Link {
        from: &'a RelPath,
        to: &'a RelPath,
        kind: Kind,
    },
    Symlink {
        path: &'a RelPath,
    },
    Mode {
        path: &'a RelPath,
    },
    Time {
        path: &'a RelPath,
    },
    Xattr {
        path: &'a RelPath,
    },
}

/// Effects as an audit counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EffectClass {
    Create,
    Write,
    Truncate,
    Delete,
    RemoveDirectory,
    RenameOver,
    RenameOut,
    Link,
    Symlink,
    Mode,
    Time,
    Xattr,
}

impl<'a> Effect<'a> {
    /// Whether content that was there before is destroyed: what an undo journal has to save first. Names, modes,
    /// times and attributes are no content; they are small, and known to whoever changes them. `Delete` is taken to
    /// destroy, though other hard links may keep the content.
    pub fn destroys(&self) -> bool {
        match self {
            Effect::Write { overwrites, .. } => *overwrites,
            Effect::Truncate { discards, .. } => *discards,
            Effect::Delete { .. } | Effect::RenameOver { .. } => true,
            Effect::Create { .. }
            | Effect::RemoveDirectory { .. }
            | Effect::RenameOut { .. }
            | Effect::Link { .. }
            | Effect::Symlink { .. }
            | Effect::Mode { .. }
            | Effect::Time { .. }
            | Effect::Xattr { .. } => false,
        }
    }

    /// The path that changes; of a link, the new name.
    pub fn path(&self) -> &'a RelPath {
        match self {
            Effect::Create { path, .. }
            | Effect::Write { path, .. }
            | Effect::Truncate { path, .. }
            | Effect::Delete { path }
            | Effect::RemoveDirectory { path }
            | Effect::RenameOver { path, .. }
            | Effect::RenameOut { path }
            | Effect::Link { to: path, .. }
            | Effect::Symlink { path }
            | Effect::Mode { path }
            | Effect::Time { path }
            | Effect::Xattr { path } => path,
        }
    }

    pub fn class(&self) -> EffectClass {
        match self {
            Effect::Create { .. } => EffectClass::Create,
            Effect::Write { .. } => EffectClass::Write,
            Effect::Truncate { .. } => EffectClass::Truncate,
            Effect::Delete { .. } => EffectClass::Delete,
            Effect::RemoveDirectory { .. } => EffectClass::RemoveDirectory,
            Effect::RenameOver { .. } => EffectClass::RenameOver,
            Effect::RenameOut { .. } => EffectClass::RenameOut,
            Effect::Link { .. } => EffectClass::Link,
            Effect::Symlink { .. } => EffectClass::Symlink,
            Effect::Mode { .. } => EffectClass::Mode,
            Effect::Time { .. } => EffectClass::Time,
            Effect::Xattr { .. } => EffectClass::Xattr,
        }
    }
}

impl EffectClass {
    pub const ALL: [EffectClass; 12] = [
        EffectClass::Create,
        EffectClass::Write,
        EffectClass::Truncate,
        EffectClass::Delete,
        EffectClass::RemoveDirectory,
        EffectClass::RenameOver,
        EffectClass::RenameOut,
        EffectClass::Link,
        EffectClass::Symlink,
        EffectClass::Mode,
        EffectClass::Time,
        EffectClass::Xattr,
    ];
}
