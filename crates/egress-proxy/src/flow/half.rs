//! A socket, as something to read from or write to without waiting.

use std::{future::Future, io, os::fd::AsFd};

use rustix::net::{Shutdown, shutdown};
use tokio::net::{TcpStream, UnixStream};

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

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        UnixStream::try_read(self, buffer)
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        UnixStream::try_write(self, bytes)
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
