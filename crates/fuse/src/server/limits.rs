//! How much of anything a guest gets.

/// What one READ may ask for. Large requests cost one trip for many pages; beyond this the trip is no longer what
/// counts, and a vCPU should not be held longer.
pub const MAX_READ: usize = 1 << 20;

/// As [`MAX_READ`].
pub const MAX_WRITE: usize = 1 << 20;

/// What INIT says of both.
pub(super) const MAX_PAGES: u16 = 256;

/// The longest request there is: a WRITE of [`MAX_WRITE`] with its header, in a page of its own.
pub const MAX_REQUEST: usize = MAX_WRITE + 4096;

/// The longest value of an extended attribute, and list of their names (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
pub(super) const MAX_XATTR: usize = 1 << 16;

/// The longest text of a symbolic link (`PATH_MAX` without its NUL).
pub(super) const MAX_LINK_TEXT: usize = 4095;

/// Bodies up to this size are copied to the stack: every operation with up to two names.
pub(super) const SMALL_BODY: usize = 640;

/// Bodies up to this size are copied at all; SETXATTR has the longest.
pub(super) const LARGE_BODY: usize = MAX_XATTR + 512;

/// Buffers of [`LARGE_BODY`] that are kept; as many more as there are threads may exist for the time of one request.
pub(super) const KEPT_BUFFERS: usize = 4;

/// What one COPY_FILE_RANGE copies; the caller asks again for the rest. Bounds how long a worker is held.
pub(super) const MAX_COPY: u64 = 64 << 20;

/// Requests the kernel may have in flight that no process waits for: read-ahead and asynchronous direct I/O.
pub(super) const MAX_BACKGROUND: u16 = 64;

/// Where it starts to hold read-ahead back: three quarters, as the kernel's own default has it.
pub(super) const CONGESTION: u16 = MAX_BACKGROUND / 4 * 3;

const _: () = assert!(MAX_PAGES as usize * 4096 == MAX_READ && MAX_READ == MAX_WRITE);
