//! File systems that find a file by names which they do not list.

use super::{HostFs, ROOT};

/// By `f_type`: of FUSE and 9P it is not told what they serve.
const WITH_OTHER_NAMES: [i64; 6] = [
    0x4d44,      // MSDOS_SUPER_MAGIC, also vfat's
    0x7366_746e, // ntfs3
    0xff53_4d42, // CIFS_SUPER_MAGIC
    0xfe53_4d42, // SMB2_SUPER_MAGIC
    0x6573_5546, // FUSE_SUPER_MAGIC: ntfs-3g
    0x0102_1997, // V9FS_MAGIC: the drives of Windows in its subsystem for Linux
];

impl HostFs {
    /// True also when nobody can tell.
    pub(crate) fn has_other_names(&self) -> bool {
        let status = self.directory(ROOT).and_then(|root| rustix::fs::fstatfs(&*root));
        status.map_or(true, |status| WITH_OTHER_NAMES.contains(&status.f_type))
    }
}
