//! A descriptor beside the first byte of a message, to a process on this host.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::fd::BorrowedFd,
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::{
    io::{AsyncWriteExt, Interest},
    net::UnixStream,
};

/// Writes all of `message`, which is not empty, and `descriptor` with the first piece of it.
pub(crate) async fn write_with(
    stream: &mut UnixStream,
    message: &[u8],
    descriptor: BorrowedFd<'_>,
) -> io::Result<()> {
    let sent = stream
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let descriptors = [descriptor];
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
            let message = [IoSlice::new(message)];
            Ok(sendmsg(&*stream, &message, &mut ancillary, SendFlags::NOSIGNAL)?)
        })
        .await?;
    stream.write_all(message.get(sent..).unwrap_or_default()).await
}
