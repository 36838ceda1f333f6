//! Scatter/gather I/O straight between a host file or socket and guest memory, with no copy in between.
//!
//! Guest memory is only ever handed to the kernel here, as addresses: no Rust reference to it exists, so
//! what the guest does to it meanwhile is between the guest and the bytes it gets.

#![allow(
    unsafe_code,
    reason = "the kernel takes addresses, and no safe wrapper takes memory that is not &[u8]"
)]

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd, AsRawFd},
    ptr,
};

use rustix::io::ReadWriteFlags;
use vm_memory::VolatileSlice;

/// Pieces for one system call: a whole request of a queue of 256, four kilobytes of stack. The kernel
/// takes up to 1024.
pub(crate) const MAX_IOVECS: usize = 256;

/// Pieces of guest memory, in the order in which bytes go into or come out of them.
pub(crate) struct IoVecs<'m> {
    pieces: [libc::iovec; MAX_IOVECS],
    count: usize,
    /// The memory stays mapped as long as this lives.
    memory: PhantomData<VolatileSlice<'m>>,
}

impl<'m> IoVecs<'m> {
    pub(crate) fn new() -> Self {
        IoVecs {
            pieces: [libc::iovec {
                iov_base: ptr::null_mut(),
                iov_len: 0,
            }; MAX_IOVECS],
            count: 0,
            memory: PhantomData,
        }
    }

    /// Adds a piece; false when there is no room for it.
    pub(crate) fn push(&mut self, slice: &VolatileSlice<'m>) -> bool {
        let Some(piece) = self.pieces.get_mut(self.count) else {
            return false;
        };
        *piece = libc::iovec {
            iov_base: slice.ptr_guard_mut().as_ptr().cast(),
            iov_len: slice.len(),
        };
        self.count += 1;
        true
    }

    /// Reads from `file` at `offset` into the pieces; fewer bytes than fit is no error, as with `read`.
    pub(crate) fn read_at(&self, file: impl AsFd, offset: u64) -> io::Result<usize> {
        let offset = file_offset(offset)?;
        // SAFETY:
        // - the descriptor is open, for it is borrowed;
        // - the first `count` pieces were made by `push` and `count` is at most MAX_IOVECS;
        // - each was a VolatileSlice<'m>: mapped, writable and of that length for 'm, which outlives self;
        // - what is written there aliases no Rust reference: guest memory is only accessed volatile.
        retry(|| unsafe {
            libc::preadv(
                file.as_fd().as_raw_fd(),
                self.pieces.as_ptr(),
                self.count as libc::c_int,
                offset,
            )
        })
    }

    /// Writes the pieces to `file` at `offset`; fewer bytes than there are is no error, as with `write`.
    pub(crate) fn write_at(&self, file: impl AsFd, offset: u64) -> io::Result<usize> {
        self.write_with(file, offset, ReadWriteFlags::empty())
    }

    /// As [`Self::write_at`], but in the way `flags` says; with APPEND the offset counts for nothing.
    pub(crate) fn write_with(
        &self,
        file: impl AsFd,
        offset: u64,
        flags: ReadWriteFlags,
    ) -> io::Result<usize> {
        let offset = file_offset(offset)?;
        // SAFETY: as in `read_at`; the kernel only reads the pieces.
        retry(|| unsafe {
            libc::pwritev2(
                file.as_fd().as_raw_fd(),
                self.pieces.as_ptr(),
                self.count as libc::c_int,
                offset,
                flags.bits().cast_signed(),
            )
        })
    }

    /// Reads from `socket` into the pieces without waiting.
    pub(crate) fn receive(&self, socket: impl AsFd) -> io::Result<usize> {
        let mut message = self.message();
        // SAFETY: as in `read_at`; `message` names the pieces and nothing else.
        retry(|| unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) })
    }

    /// Writes the pieces to `socket` without waiting, and without SIGPIPE when nobody reads there.
    pub(crate) fn send(&self, socket: impl AsFd) -> io::Result<usize> {
        let message = self.message();
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: as in `read_at`; the kernel only reads `message` and the pieces.
        retry(|| unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, flags) })
    }

    fn message(&self) -> libc::msghdr {
        libc::msghdr {
            msg_name: ptr::null_mut(),
            msg_namelen: 0,
            msg_iov: self.pieces.as_ptr().cast_mut(),
            msg_iovlen: self.count,
            msg_control: ptr::null_mut(),
            msg_controllen: 0,
            msg_flags: 0,
        }
    }
}

fn file_offset(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(done) => return Ok(done),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

    use super::*;

    #[test]
    fn bytes_go_through_the_pieces_in_order_and_back() {
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"xxabcdef").unwrap();
        let mut pieces = IoVecs::new();
        assert!(pieces.push(&memory.get_slice(GuestAddress(0x800), 2).unwrap()));
        assert!(pieces.push(&memory.get_slice(GuestAddress(0x100), 4).unwrap()));

        assert_eq!(pieces.read_at(&file, 2).unwrap(), 6);
        assert_eq!(memory.read_obj::<[u8; 2]>(GuestAddress(0x800)).unwrap(), *b"ab");
        assert_eq!(memory.read_obj::<[u8; 4]>(GuestAddress(0x100)).unwrap(), *b"cdef");

        assert_eq!(pieces.write_at(&file, 0).unwrap(), 6);
        assert_eq!(pieces.read_at(&file, 4).unwrap(), 4, "the file ends there");
        assert_eq!(memory.read_obj::<[u8; 2]>(GuestAddress(0x800)).unwrap(), *b"ef");
    }

    #[test]
    fn an_appending_write_goes_to_the_end_whatever_its_offset() {
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        memory.write_slice(b"tail", GuestAddress(0)).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"head ").unwrap();
        let mut pieces = IoVecs::new();
        assert!(pieces.push(&memory.get_slice(GuestAddress(0), 4).unwrap()));
        let flags = ReadWriteFlags::APPEND | ReadWriteFlags::DSYNC;
        assert_eq!(pieces.write_with(&file, 1, flags).unwrap(), 4);
        assert_eq!(std::fs::read(file.path()).unwrap(), b"head tail");
    }

    #[test]
    fn pieces_beyond_the_limit_are_refused() {
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        let slice = memory.get_slice(GuestAddress(0), 1).unwrap();
        let mut pieces = IoVecs::new();
        for _ in 0..MAX_IOVECS {
            assert!(pieces.push(&slice));
        }
        assert!(!pieces.push(&slice));
    }
}
