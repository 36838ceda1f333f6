//! What the kernel sends.

structures! {
    /// Before every request.
    InHeader {
        len: u32,
        opcode: u32,
        unique: u64,
        node: u64,
        uid: u32,
        gid: u32,
        pid: u32,
        /// Extensions behind the request, in units of 8 bytes; nobody negotiated any.
        extensions: u16,
        padding: u16,
    }

    /// The first 16 bytes of INIT, all there was before flags got a second word.
    InitIn {
        major: u32,
        minor: u32,
        max_readahead: u32,
        flags: u32,
    }

    InitExtIn {
        flags2: u32,
        unused: [u32; 11],
    }

    ForgetIn { lookups: u64, }
    BatchForgetIn { count: u32, padding: u32, }
    ForgetOne { node: u64, lookups: u64, }

    GetAttrIn { flags: u32, padding: u32, fh: u64, }

    StatXIn {
        flags: u32,
        reserved: u32,
        fh: u64,
        statx_flags: u32,
        mask: u32,
    }

    SetAttrIn {
        valid: u32,
        padding: u32,
        fh: u64,
        size: u64,
        lock_owner: u64,
        atime: u64,
        mtime: u64,
        ctime: u64,
        atime_nsec: u32,
        mtime_nsec: u32,
        ctime_nsec: u32,
        mode: u32,
        unused4: u32,
        uid: u32,
        gid: u32,
        unused5: u32,
    }

    MkNodIn { mode: u32, device: u32, umask: u32, padding: u32, }
    MkDirIn { mode: u32, umask: u32, }
    RenameIn { new_parent: u64, }
    Rename2In { new_parent: u64, flags: u32, padding: u32, }
    LinkIn { node: u64, }

    OpenIn { flags: u32, open_flags: u32, }
    CreateIn { flags: u32, mode: u32, umask: u32, open_flags: u32, }
    ReleaseIn { fh: u64, flags: u32, release_flags: u32, lock_owner: u64, }

    /// READ, READDIR, READDIRPLUS.
    ReadIn {
        fh: u64,
        offset: u64,
        size: u32,
        read_flags: u32,
        lock_owner: u64,
        flags: u32,
        padding: u32,
    }

    WriteIn {
        fh: u64,
        offset: u64,
        size: u32,
        write_flags: u32,
        lock_owner: u64,
        flags: u32,
        padding: u32,
    }

    FSyncIn { fh: u64, flags: u32, padding: u32, }
    SyncFsIn { padding: u64, }
    FAllocateIn { fh: u64, offset: u64, len: u64, mode: u32, padding: u32, }
    LSeekIn { fh: u64, offset: u64, whence: u32, padding: u32, }

    CopyFileRangeIn {
        fh_in: u64,
        offset_in: u64,
        node_out: u64,
        fh_out: u64,
        offset_out: u64,
        len: u64,
        flags: u64,
    }

    /// As long as SETXATTR_EXT is not negotiated.
    SetXattrIn { size: u32, flags: u32, }

    /// GETXATTR and LISTXATTR; a size of 0 asks for the size.
    GetXattrIn { size: u32, padding: u32, }
}
