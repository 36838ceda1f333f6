//! The FUSE ABI as it lies in memory: version 7, in the machine's own byte order.

/// Structures as C lays them out. IntoBytes refuses padding that nobody named, so none of ours can leak through it.
macro_rules! structures {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => { $(
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default,
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
        )]
        #[repr(C)]
        pub(crate) struct $name {
            $($(#[$field_doc])* pub(crate) $field: $type,)*
        }
    )* };
}

mod flags;
mod opcode;
mod reply;
mod request;

pub(crate) use flags::*;
pub(crate) use opcode::Opcode;
pub(crate) use reply::*;
pub(crate) use request::*;

pub(crate) const MAJOR: u32 = 7;
/// The newest minor version whose structures are these.
pub(crate) const MINOR: u32 = 41;
/// The first with virtio-fs (Linux 5.4); older kernels send structures we do not know.
pub(crate) const OLDEST_MINOR: u32 = 31;
