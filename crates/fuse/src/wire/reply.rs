//! What the kernel is answered.

structures! {
    OutHeader {
        len: u32,
        /// Zero, or an errno negated.
        error: i32,
        unique: u64,
    }

    InitOut {
        major: u32,
        minor: u32,
        max_readahead: u32,
        flags: u32,
        max_background: u16,
        congestion_threshold: u16,
        max_write: u32,
        time_granularity: u32,
        max_pages: u16,
        map_alignment: u16,
        flags2: u32,
        unused: [u32; 7],
    }

    Attr {
        inode: u64,
        size: u64,
        blocks: u64,
        atime: i64,
        mtime: i64,
        ctime: i64,
        atime_nsec: u32,
        mtime_nsec: u32,
        ctime_nsec: u32,
        mode: u32,
        links: u32,
        uid: u32,
        gid: u32,
        device: u32,
        block_size: u32,
        flags: u32,
    }

    EntryOut {
        node: u64,
        generation: u64,
        entry_valid: u64,
        attr_valid: u64,
        entry_valid_nsec: u32,
        attr_valid_nsec: u32,
        attr: Attr,
    }

    AttrOut {
        attr_valid: u64,
        attr_valid_nsec: u32,
        padding: u32,
        attr: Attr,
    }

    StatXTime { seconds: i64, nanoseconds: u32, reserved: i32, }

    StatX {
        mask: u32,
        block_size: u32,
        attributes: u64,
        links: u32,
        uid: u32,
        gid: u32,
        mode: u16,
        spare0: u16,
        inode: u64,
        size: u64,
        blocks: u64,
        attributes_mask: u64,
        accessed: StatXTime,
        born: StatXTime,
        changed: StatXTime,
        modified: StatXTime,
        device_major: u32,
        device_minor: u32,
        host_major: u32,
        host_minor: u32,
        spare2: [u64; 14],
    }

    StatXOut {
        attr_valid: u64,
        attr_valid_nsec: u32,
        flags: u32,
        spare: [u64; 2],
        statx: StatX,
    }

    OpenOut { fh: u64, open_flags: u32, padding: u32, }

    CreateOut { entry: EntryOut, open: OpenOut, }

    WriteOut { size: u32, padding: u32, }

    StatFsOut {
        blocks: u64,
        free_blocks: u64,
        available_blocks: u64,
        files: u64,
        free_files: u64,
        block_size: u32,
        name_length: u32,
        fragment_size: u32,
        padding: u32,
        spare: [u32; 6],
    }

    GetXattrOut { size: u32, padding: u32, }

    LSeekOut { offset: u64, }

    /// The name follows, then zeroes up to the next multiple of 8.
    DirEntry {
        inode: u64,
        next: u64,
        name_len: u32,
        kind: u32,
    }
}

/// The sizes the ABI fixes, where a slip would otherwise show only in a guest.
const _: () = {
    assert!(size_of::<OutHeader>() == 16);
    assert!(size_of::<super::InHeader>() == 40);
    assert!(size_of::<InitOut>() == 64);
    assert!(size_of::<Attr>() == 88);
    assert!(size_of::<EntryOut>() == 128);
    assert!(size_of::<AttrOut>() == 104);
    assert!(size_of::<StatX>() == 256);
    assert!(size_of::<StatXOut>() == 288);
    assert!(size_of::<StatFsOut>() == 80);
    assert!(size_of::<super::SetAttrIn>() == 88);
    assert!(size_of::<super::WriteIn>() == 40);
    assert!(size_of::<super::CopyFileRangeIn>() == 56);
};
