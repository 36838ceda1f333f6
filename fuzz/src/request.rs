//! Steps as requests.

use fuse::{Caller, Changes, TimeChange, Timestamp, testing::Message};

use crate::{
    known::Known,
    names::name,
    step::{Fields, ODD_NODE, Step},
};

macro_rules! kinds {
    ($($name:ident,)*) => {
        /// What a step asks for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind {
            $($name,)*
        }

        impl Kind {
            pub const ALL: &[Kind] = &[$(Kind::$name,)*];
        }
    };
}

kinds! {
    Lookup, Forget, BatchForget, GetAttr, StatX, SetMode, SetSize, SetTimes, SetOwner, SetAll, ReadLink, Symlink,
    MkNod, MkDir, Unlink, RmDir, Rename, Rename2, Link, Open, OpenDir, Create, TmpFile, Release, ReleaseDir, Read,
    ReadDir, ReadDirPlus, Write, WriteWith, StatFs, FSync, FSyncDir, SyncFs, SetXattr, GetXattr, ListXattr,
    RemoveXattr, FAllocate, LSeek, CopyFileRange, Interrupt, Init, Destroy, Watch, News, Raw,
    // Not a request: the host does something itself.
    Host,
}

/// The guest's kernel, and its agent, which repeats what the host did.
const SOMEBODY: Caller = Caller {
    uid: 1000,
    gid: 1000,
    pid: 42,
};
const AGENT: Caller = Caller {
    uid: 0,
    gid: 0,
    pid: 7,
};
/// The file through which the agent hears of that.
pub(crate) const EVENTS: u64 = 2;

const SIZES: [u64; 12] = [
    0,
    1,
    7,
    100,
    512,
    4095,
    4096,
    4097,
    16_384,
    65_520,
    65_536,
    1 << 20,
];
const OFFSETS: [u64; 12] = [
    0,
    1,
    5,
    4095,
    4096,
    65_535,
    1 << 20,
    (1 << 32) - 1,
    i64::MAX as u64 - 1,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];
/// Room for a reply, when it is not plenty.
const ROOMS: [usize; 8] = [0, 15, 16, 17, 100, 143, 144, 4096];
const PLENTY: usize = (64 << 10) + 16;

impl Kind {
    /// For a seed: what to write down.
    pub(crate) fn number(self) -> u8 {
        self as u8
    }
}

impl Step {
    pub(crate) fn kind(&self) -> Kind {
        Kind::ALL[usize::from(self.fields.kind) % Kind::ALL.len()]
    }

    /// The bytes of the request, as broken as the step says, and the room for its reply.
    pub(crate) fn request(&self, known: &Known) -> (Vec<u8>, usize) {
        let message = self.message(known).by(self.caller());
        let room = match self.fields.twist {
            twist @ 0xe0.. => ROOMS[usize::from(twist) % ROOMS.len()],
            _ if self.size() > 65_536 => fuse::testing::ROOM,
            _ => PLENTY,
        };
        (self.twisted(message), room)
    }

    /// For a person who makes a test of it.
    pub(crate) fn describe(&self, known: &Known) -> String {
        let Fields {
            mode,
            flags,
            number,
            twist,
            ..
        } = self.fields;
        format!(
            "{:?} by {} node {:#x} {:?} other {:#x} {:?} size {} offset {} mode {mode:o} flags {flags:#x} \
             number {number:#x} twist {twist:#x} blob {:?}",
            self.kind(),
            self.caller().pid,
            self.node(self.fields.node, known),
            self.name(self.fields.name).escape_ascii().to_string(),
            self.node(self.fields.other, known),
            self.name(self.fields.new_name).escape_ascii().to_string(),
            self.size(),
            self.offset(),
            self.blob.escape_ascii().to_string(),
        )
    }

    fn caller(&self) -> Caller {
        match (self.kind(), self.fields.who % 8) {
            (Kind::Watch | Kind::News, 0..7) | (_, 7) => AGENT,
            _ => SOMEBODY,
        }
    }

    fn message(&self, known: &Known) -> Message {
        let Fields {
            mode, flags, number, ..
        } = self.fields;
        let node = self.node(self.fields.node, known);
        let other = self.node(self.fields.other, known);
        let (name, new_name) = (self.name(self.fields.name), self.name(self.fields.new_name));
        let (name, new_name) = (name.as_slice(), new_name.as_slice());
        let (size, offset) = (self.size(), self.offset());
        let blob = self.blob.as_slice();
        let mode = u32::from(mode);
        let change = |changes: Changes| Message::setattr(node, &changes);
        match self.kind() {
            Kind::Lookup => Message::lookup(node, name),
            Kind::Forget => Message::forget(node, number),
            Kind::BatchForget => Message::batch_forget(&[(node, number), (other, number)]),
            Kind::GetAttr => Message::getattr(node),
            Kind::StatX => Message::statx(node),
            Kind::SetMode => change(Changes {
                permissions: Some(mode),
                ..Changes::default()
            }),
            Kind::SetSize => change(Changes {
                size: Some(offset.wrapping_add(size)),
                kill_privileges: flags & 1 != 0,
                ..Changes::default()
            }),
            Kind::SetTimes => change(self.times()),
            Kind::SetOwner => change(Changes {
                uid: (flags & 1 != 0).then_some(1000 * (flags >> 2 & 1)),
                gid: (flags & 2 != 0).then_some(1000 * (flags >> 3 & 1)),
                ..Changes::default()
            }),
            Kind::SetAll => change(Changes {
                permissions: Some(mode),
                size: Some(size),
                uid: Some(1000),
                gid: Some(1000),
                ..self.times()
            }),
            Kind::ReadLink => Message::readlink(node),
            Kind::Symlink => Message::symlink(node, name, blob),
            Kind::MkNod => Message::mknod(node, name, mode),
            Kind::MkDir => Message::mkdir(node, name, mode),
            Kind::Unlink => Message::unlink(node, name),
            Kind::RmDir => Message::rmdir(node, name),
            Kind::Rename => Message::rename((node, name), (other, new_name)),
            Kind::Rename2 => Message::rename2((node, name), (other, new_name), flags),
            Kind::Link => Message::link(other, node, name),
            Kind::Open => Message::open(node, flags),
            Kind::OpenDir => Message::opendir(node),
            Kind::Create => Message::create(node, name, flags, mode),
            Kind::TmpFile => Message::tmpfile(node, mode),
            Kind::Release => Message::release(node, number),
            Kind::ReleaseDir => Message::releasedir(node),
            Kind::Read => Message::read(node, offset, size as u32),
            Kind::ReadDir => Message::readdir(node, offset, size as u32),
            Kind::ReadDirPlus => Message::readdirplus(node, offset, size as u32),
            Kind::Write => Message::write(node, offset, &self.data()),
            Kind::WriteWith => Message::write_with(node, offset, &self.data(), (flags, mode)),
            Kind::StatFs => Message::statfs(node),
            Kind::FSync => Message::fsync(node, flags & 1 != 0),
            Kind::FSyncDir => Message::fsyncdir(node, flags & 1 != 0),
            Kind::SyncFs => Message::syncfs(node),
            Kind::SetXattr => Message::setxattr(node, name, blob, flags),
            Kind::GetXattr => Message::getxattr(node, name, size as u32),
            Kind::ListXattr => Message::listxattr(node, size as u32),
            Kind::RemoveXattr => Message::removexattr(node, name),
            Kind::FAllocate => Message::fallocate(node, (offset, size), flags),
            Kind::LSeek => Message::lseek(node, offset, flags),
            Kind::CopyFileRange => Message::copy_file_range((node, number), (other, offset), size),
            Kind::Interrupt => Message::interrupt(number),
            Kind::Init => Message::init_with(7 + (flags & 1), u32::from(self.fields.at), number),
            Kind::Destroy => Message::destroy(),
            Kind::Watch => Message::write(EVENTS, 0, &self.watch_set(known)),
            Kind::News => Message::read(EVENTS, 0, 65_536),
            Kind::Raw | Kind::Host => Message::of(flags, node).and(blob),
        }
    }

    fn twisted(&self, message: Message) -> Vec<u8> {
        let len = message.as_bytes().len();
        let at = usize::from(self.fields.at);
        let message = match self.fields.twist {
            0xa0..0xb0 => message.cut(at.min(len)),
            0xb0..0xc0 => message.and(&self.blob),
            0xc0..0xd0 => {
                let end = (at + self.blob.len()).min(len);
                let blob = self.blob.get(..end.saturating_sub(at)).unwrap_or_default();
                message.replace(at.min(end)..end, blob)
            }
            _ => message,
        };
        let mut bytes = message.as_bytes().to_vec();
        if (0xd0..0xe0).contains(&self.fields.twist) {
            // Shorter than its header says.
            bytes.truncate(at);
        }
        bytes
    }

    fn node(&self, number: u8, known: &Known) -> u64 {
        match known.nodes.len() {
            0 => self.fields.number,
            _ if number >= ODD_NODE => self.fields.number,
            len => known.nodes[usize::from(number) % len],
        }
    }

    fn name(&self, number: u8) -> Vec<u8> {
        name(number, &self.blob)
    }

    fn size(&self) -> u64 {
        SIZES[usize::from(self.fields.size) % SIZES.len()]
    }

    fn offset(&self) -> u64 {
        let Fields { offset, number, .. } = self.fields;
        OFFSETS.get(usize::from(offset)).copied().unwrap_or(number)
    }

    fn times(&self) -> Changes {
        let Fields { flags, number, .. } = self.fields;
        let time = |set, now| match (set, now) {
            (false, _) => None,
            (true, true) => Some(TimeChange::Now),
            (true, false) => Some(TimeChange::To(Timestamp {
                seconds: number.cast_signed(),
                nanoseconds: flags >> 4,
            })),
        };
        Changes {
            accessed: time(flags & 1 != 0, flags & 2 != 0),
            modified: time(flags & 4 != 0, flags & 8 != 0),
            ..Changes::default()
        }
    }

    fn data(&self) -> Vec<u8> {
        let len = self.size().min(65_536) as usize;
        let pattern = if self.blob.is_empty() {
            b"x"
        } else {
            self.blob.as_slice()
        };
        pattern.iter().copied().cycle().take(len).collect()
    }

    /// Some of the inodes the guest knows, in the folder that the name says, or whatever the blob says.
    fn watch_set(&self, known: &Known) -> Vec<u8> {
        if !self.blob.is_empty() {
            return self.blob.clone();
        }
        let bits = self.fields.number;
        let picked = (0..64).zip(&known.inodes).filter(|(bit, _)| bits >> bit & 1 != 0);
        let folder = ["rw", "ro", "tiny"][usize::from(self.fields.name) % 3];
        picked
            .flat_map(|(_, inode)| format!("{inode} {folder}\n").into_bytes())
            .collect()
    }
}
