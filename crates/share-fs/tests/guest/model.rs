//! The same operations in a share and in a plain folder of the host come to the same tree.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use fuse::{Reply, testing::Message};
use proptest::prelude::*;
use rustix::{
    fs::{CWD, FallocateFlags, RenameFlags, XattrFlags},
    io::Errno,
};

use crate::world::{EXCHANGE, NO_REPLACE, O_EXCL, O_TRUNC, S_IFREG, World};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// One to three names.
type Place = Vec<usize>;

#[derive(Clone, Debug)]
enum Step {
    Create {
        at: Place,
        exclusive: bool,
        truncate: bool,
    },
    Node {
        at: Place,
    },
    Directory {
        at: Place,
    },
    Symlink {
        at: Place,
    },
    Link {
        from: Place,
        to: Place,
    },
    Unlink {
        at: Place,
    },
    Rmdir {
        at: Place,
    },
    Rename {
        from: Place,
        to: Place,
        how: u32,
    },
    Write {
        at: Place,
        offset: u16,
        len: u8,
    },
    Append {
        at: Place,
        len: u8,
    },
    Truncate {
        at: Place,
        size: u16,
    },
    Chmod {
        at: Place,
        permissions: u32,
    },
    Punch {
        at: Place,
        offset: u16,
    },
    Copy {
        from: Place,
        to: Place,
        len: u16,
    },
    Xattr {
        at: Place,
        value: u8,
    },
    Read {
        at: Place,
    },
    Forget {
        at: Place,
    },
}

fn place() -> impl Strategy<Value = Place> {
    prop::collection::vec(0..NAMES.len(), 1..=3)
}

fn step() -> impl Strategy<Value = Step> {
    use Step::*;
    prop_oneof![
        3 => (place(), any::<bool>(), any::<bool>())
            .prop_map(|(at, exclusive, truncate)| Create { at, exclusive, truncate }),
        1 => place().prop_map(|at| Node { at }),
        4 => place().prop_map(|at| Directory { at }),
        1 => place().prop_map(|at| Symlink { at }),
        2 => (place(), place()).prop_map(|(from, to)| Link { from, to }),
        2 => place().prop_map(|at| Unlink { at }),
        1 => place().prop_map(|at| Rmdir { at }),
        4 => (place(), place(), 0..3_u32).prop_map(|(from, to, how)| Rename { from, to, how }),
        3 => (place(), any::<u16>(), any::<u8>()).prop_map(|(at, offset, len)| Write { at, offset, len }),
        1 => (place(), any::<u8>()).prop_map(|(at, len)| Append { at, len }),
        1 => (place(), any::<u16>()).prop_map(|(at, size)| Truncate { at, size }),
        1 => (place(), 0..0o1000_u32).prop_map(|(at, permissions)| Chmod { at, permissions }),
        1 => (place(), any::<u16>()).prop_map(|(at, offset)| Punch { at, offset }),
        1 => (place(), place(), any::<u16>()).prop_map(|(from, to, len)| Copy { from, to, len }),
        1 => (place(), any::<u8>()).prop_map(|(at, value)| Xattr { at, value }),
        1 => place().prop_map(|at| Read { at }),
        1 => place().prop_map(|at| Forget { at }),
    ]
}

fn bytes(len: u8) -> Vec<u8> {
    (0..len).map(|number| number ^ len).collect()
}

/// The steps as a guest does them.
struct Guest<'a>(&'a World);

impl Guest<'_> {
    fn node(&self, at: &[usize]) -> Reply<u64> {
        at.iter().try_fold(self.0.root, |parent, name| {
            self.0.lookup(parent, NAMES[*name].as_bytes())
        })
    }

    fn parent<'p>(&self, at: &'p [usize]) -> Reply<(u64, &'static [u8])> {
        let (name, parent): (&'p usize, &'p [usize]) = at.split_last().unwrap();
        Ok((self.node(parent)?, NAMES[*name].as_bytes()))
    }

    fn take(&self, step: &Step) -> Reply<Vec<u8>> {
        let world = self.0;
        let message = match step {
            Step::Create {
                at,
                exclusive,
                truncate,
            } => {
                let (parent, name) = self.parent(at)?;
                let flags = if *exclusive { O_EXCL } else { 0 } | if *truncate { O_TRUNC } else { 0 };
                let made = world.create(parent, name, flags, 0o644)?;
                Message::release(made, 1)
            }
            Step::Node { at } => {
                let (parent, name) = self.parent(at)?;
                Message::mknod(parent, name, S_IFREG | 0o600)
            }
            Step::Directory { at } => {
                let (parent, name) = self.parent(at)?;
                Message::mkdir(parent, name, 0o755)
            }
            Step::Symlink { at } => {
                let (parent, name) = self.parent(at)?;
                Message::symlink(parent, name, b"text")
            }
            Step::Link { from, to } => {
                let node = self.node(from)?;
                let (parent, name) = self.parent(to)?;
                Message::link(node, parent, name)
            }
            Step::Unlink { at } => {
                let (parent, name) = self.parent(at)?;
                Message::unlink(parent, name)
            }
            Step::Rmdir { at } => {
                let (parent, name) = self.parent(at)?;
                Message::rmdir(parent, name)
            }
            Step::Rename { from, to, how } => {
                let flags = [0, NO_REPLACE, EXCHANGE][*how as usize];
                Message::rename2(self.parent(from)?, self.parent(to)?, flags)
            }
            Step::Write { at, offset, len } => {
                Message::write(self.node(at)?, u64::from(*offset), &bytes(*len))
            }
            Step::Append { at, len } => Message::write_with(self.node(at)?, 0, &bytes(*len), (0o2000, 0)),
            Step::Truncate { at, size } => {
                return world
                    .truncate(self.node(at)?, u64::from(*size))
                    .map(|_| Vec::new());
            }
            Step::Chmod { at, permissions } => {
                return world.chmod(self.node(at)?, *permissions).map(|_| Vec::new());
            }
            Step::Punch { at, offset } => Message::fallocate(self.node(at)?, (u64::from(*offset), 100), 3),
            Step::Copy { from, to, len } => {
                Message::copy_file_range((self.node(from)?, 3), (self.node(to)?, 7), u64::from(*len) + 1)
            }
            Step::Xattr { at, value } => Message::setxattr(self.node(at)?, b"user.x", &[*value], 0),
            Step::Read { at } => return world.read(self.node(at)?, 0, 1 << 17),
            Step::Forget { at } => {
                let node = self.node(at)?;
                world.forget(node, 1);
                return Ok(Vec::new());
            }
        };
        world.done(&message).map(|()| Vec::new())
    }
}

/// The steps as a program of the host does them.
struct Host<'a>(&'a Path);

impl Host<'_> {
    /// No link is followed on the way.
    fn path(&self, at: &[usize]) -> Reply<PathBuf> {
        let (name, parents) = at.split_last().unwrap();
        let mut path = self.0.to_owned();
        for parent in parents {
            path.push(NAMES[*parent]);
            let stat = fs::symlink_metadata(&path).map_err(errno)?;
            if !stat.is_dir() {
                return Err(Errno::NOTDIR);
            }
        }
        Ok(path.join(NAMES[*name]))
    }

    fn there(&self, at: &[usize]) -> Reply<PathBuf> {
        let path = self.path(at)?;
        fs::symlink_metadata(&path).map_err(errno)?;
        Ok(path)
    }

    fn open(&self, at: &[usize], write: bool) -> Reply<fs::File> {
        let path = self.there(at)?;
        let stat = fs::symlink_metadata(&path).unwrap();
        if stat.is_dir() {
            return Err(Errno::ISDIR);
        }
        if !stat.is_file() {
            return Err(Errno::INVAL);
        }
        let opened = fs::OpenOptions::new().read(true).write(write).open(path);
        opened.map_err(errno)
    }

    fn take(&self, step: &Step) -> Reply<Vec<u8>> {
        let nothing = |()| Vec::new();
        match step {
            Step::Create {
                at,
                exclusive,
                truncate,
            } => {
                let path = self.path(at)?;
                if let Ok(stat) = fs::symlink_metadata(&path) {
                    if *exclusive {
                        return Err(Errno::EXIST);
                    }
                    if !stat.is_file() {
                        // The guest's kernel is told what is there, and refuses.
                        return Ok(Vec::new());
                    }
                }
                let mut how = fs::OpenOptions::new();
                how.write(true).create(true).truncate(*truncate).mode(0o644);
                how.open(path).map(drop).map(nothing).map_err(errno)
            }
            Step::Node { at } => {
                let mut how = fs::OpenOptions::new();
                how.write(true).create_new(true).mode(0o600);
                how.open(self.path(at)?).map(drop).map(nothing).map_err(errno)
            }
            Step::Directory { at } => {
                let path = self.path(at)?;
                fs::create_dir(&path).map_err(errno)?;
                let mode = fs::Permissions::from_mode(0o755);
                fs::set_permissions(path, mode).map(nothing).map_err(errno)
            }
            Step::Symlink { at } => std::os::unix::fs::symlink("text", self.path(at)?)
                .map(nothing)
                .map_err(errno),
            Step::Link { from, to } => {
                let from = self.there(from)?;
                let to = self.path(to)?;
                if fs::symlink_metadata(&from).unwrap().is_dir() {
                    return Err(Errno::PERM);
                }
                fs::hard_link(from, to).map(nothing).map_err(errno)
            }
            Step::Unlink { at } => {
                let path = self.path(at)?;
                rustix::fs::unlink(path).map(nothing)
            }
            Step::Rmdir { at } => rustix::fs::rmdir(self.path(at)?).map(nothing),
            Step::Rename { from, to, how } => {
                let flags = [
                    RenameFlags::empty(),
                    RenameFlags::NOREPLACE,
                    RenameFlags::EXCHANGE,
                ];
                // The parents first, as the guest finds them.
                let (from, to) = (self.path(from)?, self.path(to)?);
                rustix::fs::renameat_with(CWD, from, CWD, to, flags[*how as usize]).map(nothing)
            }
            Step::Write { at, offset, len } => self
                .open(at, true)?
                .write_all_at(&bytes(*len), u64::from(*offset))
                .map(nothing)
                .map_err(errno),
            Step::Append { at, len } => {
                self.open(at, true)?;
                let path = self.path(at)?;
                let opened = fs::OpenOptions::new().append(true).open(path);
                let mut file = opened.map_err(errno)?;
                file.write_all(&bytes(*len)).map(nothing).map_err(errno)
            }
            Step::Truncate { at, size } => self
                .open(at, true)?
                .set_len(u64::from(*size))
                .map(nothing)
                .map_err(errno),
            Step::Chmod { at, permissions } => {
                let path = self.there(at)?;
                if fs::symlink_metadata(&path).unwrap().is_symlink() {
                    return Err(Errno::OPNOTSUPP);
                }
                let mode = fs::Permissions::from_mode(*permissions);
                fs::set_permissions(path, mode).map(nothing).map_err(errno)
            }
            Step::Punch { at, offset } => {
                let file = self.open(at, true)?;
                let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(file, mode, u64::from(*offset), 100).map(nothing)
            }
            Step::Copy { from, to, len } => {
                let (from, to) = (self.open_found(from, to, false)?, self.open(to, true)?);
                let len = usize::from(*len) + 1;
                rustix::fs::copy_file_range(from, Some(&mut 3), to, Some(&mut 7), len)
                    .map(drop)
                    .map(nothing)
            }
            Step::Xattr { at, value } => {
                let path = self.there(at)?;
                if fs::symlink_metadata(&path).unwrap().is_symlink() {
                    return Err(Errno::PERM);
                }
                rustix::fs::setxattr(path, "user.x", &[*value], XattrFlags::empty()).map(nothing)
            }
            Step::Read { at } => {
                self.open(at, false)?;
                fs::read(self.path(at)?).map_err(errno)
            }
            Step::Forget { at } => self.there(at).map(|_| Vec::new()),
        }
    }

    /// The guest finds both before it asks for either.
    fn open_found(&self, at: &[usize], other: &[usize], write: bool) -> Reply<fs::File> {
        self.there(at)?;
        self.there(other)?;
        self.open(at, write)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap()
}

/// Paths with what they are: kind and mode, links, content or text, an attribute.
fn tree(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    collect(root, root, &mut lines);
    lines.sort();
    lines
}

fn collect(root: &Path, directory: &Path, lines: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let stat = fs::symlink_metadata(&path).unwrap();
        let content = if stat.is_file() {
            fs::read(&path).unwrap().escape_ascii().to_string()
        } else {
            String::new()
        };
        let mut value = [0; 10];
        let xattr = rustix::fs::lgetxattr(&path, "user.x", &mut value).ok();
        let links = if stat.is_dir() { 0 } else { stat.nlink() };
        let name = path.strip_prefix(root).unwrap().display();
        lines.push(format!(
            "{name} {:o} {links} {xattr:?} {value:?} {content}",
            stat.mode()
        ));
        if stat.is_dir() {
            collect(root, &path, lines);
        }
    }
}

/// Which of two names is looked at first is not the point: the guest's kernel looks at each in its own time.
fn alike(result: Reply<Vec<u8>>) -> Reply<Vec<u8>> {
    match result {
        Err(Errno::NOENT | Errno::NOTDIR) => Err(Errno::NOENT),
        other => other,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_share_is_what_a_folder_is(steps in prop::collection::vec(step(), 1..80)) {
        let base = tempfile::tempdir().unwrap();
        let world = World::new(base.path());
        let plain = world.outside.join("plain");
        fs::create_dir(&plain).unwrap();
        let (guest, host) = (Guest(&world), Host(&plain));
        for step in &steps {
            let (ours, theirs) = (guest.take(step), host.take(step));
            prop_assert_eq!(alike(ours), alike(theirs), "{:?}", step);
        }
        prop_assert_eq!(tree(&world.share), tree(&plain));
    }
}
