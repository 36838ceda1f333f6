//! A socket, as something to read from or write to without waiting.

use std::{future::Future, io, os::fd::AsFd};

use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use tokio::{
    io::Interest,
    net::{TcpStream, UnixStream},
};

use super::carry::Stop;

pub(crate) trait Half: AsFd {
    /// What it means when this one breaks.
    const BROKEN: Stop;

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize>;
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;
    fn readable(&self) -> impl Future<Output = io::Result<()>>;
    fn writable(&self) -> impl Future<Output = io::Result<()>>;

    /// Nothing more is said to it.
    fn finish(&self) -> Result<(), Stop> {
        shutdown(self.as_fd(), Shutdown::Write).map_err(|_| Self::BROKEN)
    }
}

impl Half for UnixStream {
    const BROKEN: Stop = Stop::Guest;

    // Each call says that it does not wait: the socket came from the machine, which can make it one that waits.
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        UnixStream::try_io(self, Interest::READABLE, || {
            Ok(recv(self, buffer, RecvFlags::DONTWAIT)?.0)
        })
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        UnixStream::try_io(self, Interest::WRITABLE, || {
            Ok(send(self, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
        })
    }

    fn readable(&self) -> impl Future<Output = io::Result<()>> {
        UnixStream::readable(self)
    }

    fn writable(&self) -> impl Future<Output = io::Result<()>> {
        UnixStream::writable(self)
    }
}

impl Half for TcpStream {
    const BROKEN: Stop = Stop::Remote;

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        TcpStream::try_read(self, buffer)
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        TcpStream::try_write(self, bytes)
    }

    fn readable(&self) -> impl Future<Output = io::Result<()>> {
        TcpStream::readable(self)
    }

    fn writable(&self) -> impl Future<Output = io::Result<()>> {
        TcpStream::writable(self)
    }
}

/// Reads what is there; `None` when that is nothing yet, and 0 bytes at the end.
pub(crate) fn read_now<S: Half>(from: &S, buffer: &mut [u8]) -> Result<Option<usize>, Stop> {
    match from.try_read(buffer) {
        Ok(count) => Ok(Some(count)),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock => Ok(None),
            io::ErrorKind::Interrupted => Ok(None),
            _ => Err(S::BROKEN),
        },
    }
}

/// Writes what fits.
pub(crate) fn write_now<S: Half>(to: &S, mut bytes: &[u8]) -> Result<usize, Stop> {
    let given = bytes.len();
    while !bytes.is_empty() {
        match to.try_write(bytes) {
            Ok(0) => return Err(S::BROKEN),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(_) => return Err(S::BROKEN),
        }
    }
    Ok(given.saturating_sub(bytes.len()))
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::net::UnixStream as Blocking, sync::mpsc, thread, time::Duration};

    use super::*;

    /// Reads all there is and writes all that fits, on a socket that the machine has made one that waits.
    fn to_the_end() -> (usize, bool) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (mut machine, ours) = Blocking::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            // The machine keeps the same open socket.
            let kept = ours.try_clone().unwrap();
            let guest = UnixStream::from_std(ours).unwrap();
            machine.write_all(b"12345").unwrap();
            guest.readable().await.unwrap();
            guest.writable().await.unwrap();
            kept.set_nonblocking(false).unwrap();
            let mut buffer = [0; 8];
            let first = read_now(&guest, &mut buffer).unwrap();
            assert_eq!(read_now(&guest, &mut buffer).unwrap(), None);
            let most = vec![0; 64 << 20];
            let written = write_now(&guest, &most).unwrap();
            (first.unwrap_or_default(), written < most.len())
        })
    }

    #[test]
    fn a_machine_cannot_make_this_process_wait_for_it() {
        let (tell, told) = mpsc::channel();
        thread::spawn(move || tell.send(to_the_end()));
        assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok((5, true)));
    }
}
