//! Extended attributes: those of the `user.` namespace, and no others.
//!
//! `security.` holds file capabilities and labels, `trusted.` is the host's, `system.` holds access lists that would
//! grant what the guest's one user has not. None of them is stored, shown or removed.

use fuse::{FileKind, Name, Reply, XattrFlags};
use rustix::io::Errno;

use super::{HostFs, nodes::Slot};

const OURS: &[u8] = b"user.";
/// What Linux takes for a value, and for all names of a file.
const MAX_BYTES: usize = 64 * 1024;

impl HostFs {
    pub(super) fn set_user_xattr(
        &self,
        slot: Slot,
        name: Name<'_>,
        value: &[u8],
        flags: XattrFlags,
    ) -> Reply<()> {
        self.check_xattr(slot, name)?;
        let file = self.any(slot)?;
        self.quota.before_xattr(&file, value.len() as u64)?;
        let mut how = rustix::fs::XattrFlags::empty();
        how.set(rustix::fs::XattrFlags::CREATE, flags.contains(XattrFlags::CREATE));
        how.set(
            rustix::fs::XattrFlags::REPLACE,
            flags.contains(XattrFlags::REPLACE),
        );
        rustix::fs::fsetxattr(file, name.as_c_str(), value, how)
    }

    pub(super) fn user_xattr(&self, slot: Slot, name: Name<'_>) -> Reply<Vec<u8>> {
        if !name.as_bytes().starts_with(OURS) {
            return Err(Errno::OPNOTSUPP);
        }
        if !self.carries_xattrs(slot)? {
            return Err(Errno::NODATA);
        }
        let file = self.any(slot)?;
        let mut value = vec![0; MAX_BYTES];
        let n = rustix::fs::fgetxattr(file, name.as_c_str(), &mut value[..])?;
        value.truncate(n);
        Ok(value)
    }

    pub(super) fn user_xattrs(&self, slot: Slot) -> Reply<Vec<u8>> {
        if !self.carries_xattrs(slot)? {
            return Ok(Vec::new());
        }
        let file = self.any(slot)?;
        let mut names = vec![0; MAX_BYTES];
        let n = rustix::fs::flistxattr(file, &mut names[..])?;
        let mut ours = Vec::new();
        for name in names
            .get(..n)
            .unwrap_or_default()
            .split_inclusive(|byte| *byte == 0)
        {
            if name.starts_with(OURS) {
                ours.extend_from_slice(name);
            }
        }
        Ok(ours)
    }

    pub(super) fn remove_user_xattr(&self, slot: Slot, name: Name<'_>) -> Reply<()> {
        self.check_xattr(slot, name)?;
        rustix::fs::fremovexattr(self.any(slot)?, name.as_c_str())
    }

    fn check_xattr(&self, slot: Slot, name: Name<'_>) -> Reply<()> {
        if !name.as_bytes().starts_with(OURS) {
            return Err(Errno::OPNOTSUPP);
        }
        if self.carries_xattrs(slot)? {
            Ok(())
        } else {
            Err(Errno::PERM)
        }
    }

    fn carries_xattrs(&self, slot: Slot) -> Reply<bool> {
        let nodes = self.nodes();
        let node = nodes.get(slot).ok_or(Errno::STALE)?;
        Ok(matches!(node.identity.kind, FileKind::File | FileKind::Directory))
    }
}
