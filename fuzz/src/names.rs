//! Names worth trying.

/// Those of the tree, those the policy speaks of, and those that want to be something else than a name.
pub(crate) const NAMES: &[&[u8]] = &[
    b"a",
    b"b",
    b"file",
    b"dir",
    b"inner",
    b".git",
    b"hooks",
    b"pre-commit",
    b"pre-commit.sample",
    b"hook-alias",
    b".envrc",
    b".ssh",
    b"id_rsa",
    b"project",
    b".idea",
    b"tasks.json",
    b".vscode",
    b"out",
    b"out-file",
    b"up",
    b"pipe",
    b"host",
    b"moved",
    b"rw",
    b"ro",
    b"tiny",
    b".coffer-events",
    b"",
    b".",
    b"..",
    b"../canary",
    b"/",
    b"a\0b",
    b".GIT",
    b".Ssh",
    b"HOOKS",
    b"Pre-Commit",
    b"GIT~1",
    b".git ",
    b".git.",
    b".g\xe2\x80\x8cit",
    b"\xff\xfe",
    b"self",
    b"fd",
    b"modules",
    b"user.a",
    b"user.b",
    b"security.capability",
    b"trusted.a",
    b"system.posix_acl_access",
    &[b'n'; 255],
    &[b'n'; 256],
];

/// For seeds: the number of a name that is in the list.
pub(crate) fn number_of(name: &[u8]) -> Option<u8> {
    let at = NAMES.iter().position(|known| *known == name)?;
    u8::try_from(at).ok()
}

pub(crate) fn name(number: u8, blob: &[u8]) -> Vec<u8> {
    NAMES.get(usize::from(number)).copied().unwrap_or(blob).to_vec()
}
