//! Requests as the kernel sends them. Names are any bytes: that is what they are here for.

use zerocopy::{Immutable, IntoBytes};

use crate::{
    Caller, Changes, TimeChange,
    wire::{
        BatchForgetIn, CopyFileRangeIn, CreateIn, FAllocateIn, FSyncIn, ForgetIn, ForgetOne, GetAttrIn,
        GetXattrIn, InHeader, InitExtIn, InitFlags, InitIn, LSeekIn, LinkIn, MkDirIn, MkNodIn, Opcode,
        OpenIn, ReadIn, ReleaseIn, Rename2In, RenameIn, SetAttrIn, SetAttrValid, SetXattrIn, StatXIn,
        SyncFsIn, WriteIn,
    },
};

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message(Vec<u8>);

/// Where these stand in the header.
const LEN: std::ops::Range<usize> = 0..4;
const CALLER: std::ops::Range<usize> = 24..36;

impl Message {
    /// Only a header, of whatever number.
    pub fn of(opcode: u32, node: u64) -> Self {
        let header = InHeader {
            len: size_of::<InHeader>() as u32,
            opcode,
            // Any number will do, as long as another one in the reply shows.
            unique: 0x1234_5678_0000_0000 | u64::from(opcode),
            node,
            uid: 1000,
            gid: 1000,
            pid: 42,
            ..InHeader::default()
        };
        Message(header.as_bytes().to_vec())
    }

    /// More bytes at the end, and counted.
    #[must_use]
    pub fn and(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        let len = (self.0.len() as u32).to_ne_bytes();
        self.replace(LEN, &len)
    }

    #[must_use]
    pub fn by(self, caller: Caller) -> Self {
        let bytes = [caller.uid, caller.gid, caller.pid].as_bytes().to_vec();
        self.replace(CALLER, &bytes)
    }

    /// With other bytes at `at`.
    #[must_use]
    pub fn replace(mut self, at: std::ops::Range<usize>, bytes: &[u8]) -> Self {
        if let Some(place) = self.0.get_mut(at) {
            place.copy_from_slice(bytes);
        }
        self
    }

    /// Only so many bytes of it, and the header says so.
    #[must_use]
    pub fn cut(mut self, len: usize) -> Self {
        self.0.truncate(len);
        self.and(&[])
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn plain(opcode: Opcode, node: u64) -> Self {
        Message::of(opcode as u32, node)
    }

    fn with(opcode: Opcode, node: u64, body: &(impl IntoBytes + Immutable)) -> Self {
        Message::plain(opcode, node).and(body.as_bytes())
    }

    fn text(self, text: &[u8]) -> Self {
        self.and(text).and(&[0])
    }
}

/// One for each operation.
impl Message {
    /// Offering every flag there is.
    pub fn init() -> Self {
        Message::init_with(7, 40, !0)
    }

    /// Flags of both words.
    pub fn init_with(major: u32, minor: u32, flags: u64) -> Self {
        let input = InitIn {
            major,
            minor,
            max_readahead: 128 << 10,
            flags: flags as u32,
        };
        let message = Message::with(Opcode::Init, 0, &input);
        if flags & InitFlags::INIT_EXT.bits() == 0 {
            return message;
        }
        message.and(
            InitExtIn {
                flags2: (flags >> 32) as u32,
                ..InitExtIn::default()
            }
            .as_bytes(),
        )
    }

    pub fn destroy() -> Self {
        Message::plain(Opcode::Destroy, 0)
    }

    pub fn lookup(parent: u64, name: &[u8]) -> Self {
        Message::plain(Opcode::Lookup, parent).text(name)
    }

    pub fn forget(node: u64, lookups: u64) -> Self {
        Message::with(Opcode::Forget, node, &ForgetIn { lookups })
    }

    pub fn batch_forget(forgets: &[(u64, u64)]) -> Self {
        let head = BatchForgetIn {
            count: forgets.len() as u32,
            padding: 0,
        };
        let message = Message::with(Opcode::BatchForget, 0, &head);
        forgets.iter().fold(message, |message, &(node, lookups)| {
            message.and(ForgetOne { node, lookups }.as_bytes())
        })
    }

    pub fn getattr(node: u64) -> Self {
        Message::with(Opcode::GetAttr, node, &GetAttrIn::default())
    }

    pub fn statx(node: u64) -> Self {
        Message::with(Opcode::StatX, node, &StatXIn::default())
    }

    pub fn setattr(node: u64, changes: &Changes) -> Self {
        let mut input = SetAttrIn {
            mode: changes.permissions.unwrap_or_default(),
            uid: changes.uid.unwrap_or_default(),
            gid: changes.gid.unwrap_or_default(),
            size: changes.size.unwrap_or_default(),
            ..SetAttrIn::default()
        };
        let mut valid = SetAttrValid::empty();
        valid.set(SetAttrValid::MODE, changes.permissions.is_some());
        valid.set(SetAttrValid::UID, changes.uid.is_some());
        valid.set(SetAttrValid::GID, changes.gid.is_some());
        valid.set(SetAttrValid::SIZE, changes.size.is_some());
        valid.set(SetAttrValid::KILL_SUIDGID, changes.kill_privileges);
        if let Some(change) = changes.accessed {
            valid |= SetAttrValid::ATIME;
            match change {
                TimeChange::Now => valid |= SetAttrValid::ATIME_NOW,
                TimeChange::To(time) => {
                    input.atime = time.seconds.cast_unsigned();
                    input.atime_nsec = time.nanoseconds;
                }
            }
        }
        if let Some(change) = changes.modified {
            valid |= SetAttrValid::MTIME;
            match change {
                TimeChange::Now => valid |= SetAttrValid::MTIME_NOW,
                TimeChange::To(time) => {
                    input.mtime = time.seconds.cast_unsigned();
                    input.mtime_nsec = time.nanoseconds;
                }
            }
        }
        input.valid = valid.bits();
        Message::with(Opcode::SetAttr, node, &input)
    }

    pub fn readlink(node: u64) -> Self {
        Message::plain(Opcode::ReadLink, node)
    }

    pub fn symlink(parent: u64, name: &[u8], text: &[u8]) -> Self {
        Message::plain(Opcode::Symlink, parent).text(name).text(text)
    }

    /// `mode` with its type.
    pub fn mknod(parent: u64, name: &[u8], mode: u32) -> Self {
        let input = MkNodIn {
            mode,
            ..MkNodIn::default()
        };
        Message::with(Opcode::MkNod, parent, &input).text(name)
    }

    pub fn mkdir(parent: u64, name: &[u8], mode: u32) -> Self {
        Message::with(Opcode::MkDir, parent, &MkDirIn { mode, umask: 0o022 }).text(name)
    }

    pub fn unlink(parent: u64, name: &[u8]) -> Self {
        Message::plain(Opcode::Unlink, parent).text(name)
    }

    pub fn rmdir(parent: u64, name: &[u8]) -> Self {
        Message::plain(Opcode::RmDir, parent).text(name)
    }

    pub fn rename(from: (u64, &[u8]), to: (u64, &[u8])) -> Self {
        let input = RenameIn { new_parent: to.0 };
        Message::with(Opcode::Rename, from.0, &input)
            .text(from.1)
            .text(to.1)
    }

    pub fn rename2(from: (u64, &[u8]), to: (u64, &[u8]), flags: u32) -> Self {
        let input = Rename2In {
            new_parent: to.0,
            flags,
            padding: 0,
        };
        Message::with(Opcode::Rename2, from.0, &input)
            .text(from.1)
            .text(to.1)
    }

    pub fn link(node: u64, parent: u64, name: &[u8]) -> Self {
        Message::with(Opcode::Link, parent, &LinkIn { node }).text(name)
    }

    pub fn open(node: u64, flags: u32) -> Self {
        Message::with(Opcode::Open, node, &OpenIn { flags, open_flags: 0 })
    }

    pub fn opendir(node: u64) -> Self {
        Message::with(Opcode::OpenDir, node, &OpenIn::default())
    }

    pub fn create(parent: u64, name: &[u8], flags: u32, mode: u32) -> Self {
        let input = CreateIn {
            flags,
            mode,
            ..CreateIn::default()
        };
        Message::with(Opcode::Create, parent, &input).text(name)
    }

    pub fn tmpfile(parent: u64, mode: u32) -> Self {
        let input = CreateIn {
            mode,
            ..CreateIn::default()
        };
        Message::with(Opcode::TmpFile, parent, &input).text(b"/")
    }

    pub fn release(node: u64, fh: u64) -> Self {
        let input = ReleaseIn {
            fh,
            ..ReleaseIn::default()
        };
        Message::with(Opcode::Release, node, &input)
    }

    pub fn releasedir(node: u64) -> Self {
        Message::with(Opcode::ReleaseDir, node, &ReleaseIn::default())
    }

    pub fn read(node: u64, offset: u64, size: u32) -> Self {
        Message::reading(Opcode::Read, node, offset, size)
    }

    pub fn readdir(node: u64, offset: u64, size: u32) -> Self {
        Message::reading(Opcode::ReadDir, node, offset, size)
    }

    pub fn readdirplus(node: u64, offset: u64, size: u32) -> Self {
        Message::reading(Opcode::ReadDirPlus, node, offset, size)
    }

    fn reading(opcode: Opcode, node: u64, offset: u64, size: u32) -> Self {
        let input = ReadIn {
            offset,
            size,
            ..ReadIn::default()
        };
        Message::with(opcode, node, &input)
    }

    pub fn write(node: u64, offset: u64, data: &[u8]) -> Self {
        Message::write_with(node, offset, data, (0, 0))
    }

    /// Flags of the file as it is open, and those of the request.
    pub fn write_with(node: u64, offset: u64, data: &[u8], (flags, write_flags): (u32, u32)) -> Self {
        let input = WriteIn {
            offset,
            size: data.len() as u32,
            flags,
            write_flags,
            ..WriteIn::default()
        };
        Message::with(Opcode::Write, node, &input).and(data)
    }

    pub fn statfs(node: u64) -> Self {
        Message::plain(Opcode::StatFs, node)
    }

    pub fn fsync(node: u64, data_only: bool) -> Self {
        Message::syncing(Opcode::FSync, node, data_only)
    }

    pub fn fsyncdir(node: u64, data_only: bool) -> Self {
        Message::syncing(Opcode::FSyncDir, node, data_only)
    }

    fn syncing(opcode: Opcode, node: u64, data_only: bool) -> Self {
        let input = FSyncIn {
            flags: data_only.into(),
            ..FSyncIn::default()
        };
        Message::with(opcode, node, &input)
    }

    pub fn syncfs(node: u64) -> Self {
        Message::with(Opcode::SyncFs, node, &SyncFsIn::default())
    }

    pub fn setxattr(node: u64, name: &[u8], value: &[u8], flags: u32) -> Self {
        let input = SetXattrIn {
            size: value.len() as u32,
            flags,
        };
        Message::with(Opcode::SetXattr, node, &input)
            .text(name)
            .and(value)
    }

    pub fn getxattr(node: u64, name: &[u8], size: u32) -> Self {
        Message::with(Opcode::GetXattr, node, &GetXattrIn { size, padding: 0 }).text(name)
    }

    pub fn listxattr(node: u64, size: u32) -> Self {
        Message::with(Opcode::ListXattr, node, &GetXattrIn { size, padding: 0 })
    }

    pub fn removexattr(node: u64, name: &[u8]) -> Self {
        Message::plain(Opcode::RemoveXattr, node).text(name)
    }

    pub fn fallocate(node: u64, (offset, len): (u64, u64), mode: u32) -> Self {
        let input = FAllocateIn {
            offset,
            len,
            mode,
            ..FAllocateIn::default()
        };
        Message::with(Opcode::FAllocate, node, &input)
    }

    pub fn lseek(node: u64, offset: u64, whence: u32) -> Self {
        let input = LSeekIn {
            offset,
            whence,
            ..LSeekIn::default()
        };
        Message::with(Opcode::LSeek, node, &input)
    }

    pub fn copy_file_range(from: (u64, u64), to: (u64, u64), len: u64) -> Self {
        let input = CopyFileRangeIn {
            offset_in: from.1,
            node_out: to.0,
            offset_out: to.1,
            len,
            ..CopyFileRangeIn::default()
        };
        Message::with(Opcode::CopyFileRange, from.0, &input)
    }

    pub fn interrupt(unique: u64) -> Self {
        Message::with(Opcode::Interrupt, 0, &unique)
    }
}
