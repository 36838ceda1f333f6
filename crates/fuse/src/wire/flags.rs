//! Bits.

bitflags::bitflags! {
    /// What INIT negotiates; the upper half travels in a word of its own.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct InitFlags: u64 {
        const ASYNC_READ = 1 << 0;
        const BIG_WRITES = 1 << 5;
        const AUTO_INVAL_DATA = 1 << 12;
        const DO_READDIRPLUS = 1 << 13;
        const READDIRPLUS_AUTO = 1 << 14;
        const ASYNC_DIO = 1 << 15;
        const NO_OPEN_SUPPORT = 1 << 17;
        const PARALLEL_DIROPS = 1 << 18;
        const MAX_PAGES = 1 << 22;
        const NO_OPENDIR_SUPPORT = 1 << 24;
        const SUBMOUNTS = 1 << 27;
        const HANDLE_KILLPRIV_V2 = 1 << 28;
        const INIT_EXT = 1 << 30;
    }

    /// Which fields of a SETATTR count.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct SetAttrValid: u32 {
        const MODE = 1 << 0;
        const UID = 1 << 1;
        const GID = 1 << 2;
        const SIZE = 1 << 3;
        const ATIME = 1 << 4;
        const MTIME = 1 << 5;
        const FH = 1 << 6;
        const ATIME_NOW = 1 << 7;
        const MTIME_NOW = 1 << 8;
        const LOCK_OWNER = 1 << 9;
        const CTIME = 1 << 10;
        const KILL_SUIDGID = 1 << 11;
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct OpenFlags: u32 {
        const KEEP_CACHE = 1 << 1;
        const CACHE_DIR = 1 << 3;
    }
}

/// `write_flags` of a WRITE.
pub(crate) const WRITE_CACHE: u32 = 1 << 0;
pub(crate) const WRITE_KILL_SUIDGID: u32 = 1 << 2;

pub(crate) const FSYNC_DATA_ONLY: u32 = 1 << 0;

/// In the attributes: the kernel mounts a file system of its own here.
pub(crate) const ATTR_SUBMOUNT: u32 = 1 << 0;

/// Open flags as Linux on x86-64 has them.
pub(crate) const O_EXCL: u32 = 0o200;
pub(crate) const O_TRUNC: u32 = 0o1000;
pub(crate) const O_APPEND: u32 = 0o2000;
pub(crate) const O_DSYNC: u32 = 0o10000;
pub(crate) const O_SYNC: u32 = 0o4_010_000;

pub(crate) const SEEK_DATA: u32 = 3;
pub(crate) const SEEK_HOLE: u32 = 4;

/// `statx` masks.
pub(crate) const STATX_BASIC: u32 = 0x7ff;
pub(crate) const STATX_BTIME: u32 = 0x800;
