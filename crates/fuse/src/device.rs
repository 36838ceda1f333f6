//! A file system mounted through `/dev/fuse`: for tests, conformance suites and benchmarks on this machine.

use std::{
    ffi::CString,
    fmt, io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    mount::{MountFlags, UnmountFlags},
};

use crate::{
    Answered, FileSystem, MAX_READ, MAX_REQUEST, Server,
    buffer::{ReplyRoom, Request},
};

/// The largest READ with its header, in a page of its own.
const MAX_REPLY: usize = MAX_READ + 4096;

/// A mounted file system. Dropping it unmounts it, also while it is in use.
pub struct Mount<F> {
    point: MountPoint,
    session: Arc<Session<F>>,
}

impl<F: FileSystem> Mount<F> {
    /// Needs the right to mount. The kernel checks permissions, and lets every user in.
    pub fn new(path: &Path, server: Server<F>) -> io::Result<Self> {
        let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let point = MountPoint::new(path, &device)?;
        let session = Arc::new(Session { device, server });
        Ok(Mount { point, session })
    }

    pub fn path(&self) -> &Path {
        &self.point.0
    }

    pub fn server(&self) -> &Server<F> {
        &self.session.server
    }

    /// Serves with so many threads until someone unmounts it.
    pub fn serve(&self, threads: usize) -> io::Result<()> {
        self.session.serve(threads)
    }
}

impl<F: FileSystem + 'static> Mount<F> {
    /// Serves in the background, with so many threads.
    pub fn start(self, threads: usize) -> Running {
        let Mount { point, session } = self;
        let thread = std::thread::spawn(move || session.serve(threads));
        Running {
            point: Some(point),
            thread: Some(thread),
        }
    }
}

impl<F> fmt::Debug for Mount<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mount")
            .field("point", &self.point)
            .finish_non_exhaustive()
    }
}

/// A mount that is served in the background. Dropping it unmounts it and waits for its threads.
#[derive(Debug)]
pub struct Running {
    point: Option<MountPoint>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Running {
    /// Unmounts it, and tells how the serving went.
    pub fn stop(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        drop(self.point.take());
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("a serving thread panicked")),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Whoever wants to know calls `stop`.
        let _ = self.end();
    }
}

/// Unmounts when dropped.
#[derive(Debug)]
struct MountPoint(PathBuf);

impl MountPoint {
    fn new(path: &Path, device: &OwnedFd) -> io::Result<Self> {
        let options = format!(
            "fd={},rootmode=40000,user_id={},group_id={},default_permissions,allow_other,max_read={MAX_READ}",
            device.as_raw_fd(),
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        rustix::mount::mount(
            // Its source in mount tables, one for each, and its type without a subtype: what xfstests knows a share by.
            path,
            path,
            c"fuse",
            MountFlags::NOSUID | MountFlags::NODEV,
            CString::new(options)?.as_c_str(),
        )?;
        Ok(MountPoint(path.to_owned()))
    }
}

impl Drop for MountPoint {
    fn drop(&mut self) {
        // It may have been unmounted already.
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

struct Session<F> {
    device: OwnedFd,
    server: Server<F>,
}

impl<F: FileSystem> Session<F> {
    fn serve(&self, threads: usize) -> io::Result<()> {
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(|| self.serve_alone())).collect();
            let mut result = self.serve_alone();
            for other in others {
                let ended = other
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("a serving thread panicked")));
                result = result.and(ended);
            }
            result
        })
    }

    fn serve_alone(&self) -> io::Result<()> {
        let mut request = vec![0; MAX_REQUEST];
        let mut reply = vec![0; MAX_REPLY];
        loop {
            let len = match rustix::io::read(&self.device, &mut request) {
                Ok(len) => len,
                Err(Errno::NODEV) => return Ok(()),
                // A signal, or the request was withdrawn while it was handed over.
                Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let mut incoming = Request(request.get(..len).unwrap_or_default());
            if let Answered::Reply(len) = self.server.answer(&mut incoming, &mut ReplyRoom(&mut reply)) {
                self.send(reply.get(..len).unwrap_or_default())?;
            }
        }
    }

    fn send(&self, reply: &[u8]) -> io::Result<()> {
        match rustix::io::write(&self.device, reply) {
            // Nobody waits for it any more.
            Ok(_) | Err(Errno::NOENT | Errno::NODEV) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}
