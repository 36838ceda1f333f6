//! SIGTERM, SIGINT and SIGHUP as something to wait for, and the signal that stops a virtual CPU.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};

/// What ends the machine when it is sent to the VMM.
const TERMINATING: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

#[derive(Debug)]
pub(crate) struct Signals(OwnedFd);

impl Signals {
    /// Blocks them in this thread and those it starts: call it before any.
    #[allow(unsafe_code, reason = "signal sets and signalfd have no safe wrapper here")]
    pub(crate) fn take() -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the whole set it is given.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        for signal in TERMINATING {
            // SAFETY: the set is initialised and the signal number valid.
            unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
        }
        // SAFETY: the set is initialised; the old mask is not asked for.
        let blocked = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut()) };
        if blocked != 0 {
            return Err(io::Error::from_raw_os_error(blocked));
        }
        // SAFETY: -1 asks for a new descriptor; the set is initialised.
        let fd = unsafe { libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Signals(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Whether one came since the last call.
    pub(crate) fn came(&self) -> bool {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        rustix::io::read(&self.0, &mut info).is_ok_and(|n| n > 0)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes `signal` interrupt KVM in the thread it is sent to, and nothing else: a virtual CPU's thread also makes
/// system calls for its guest, and those go on (SA_RESTART). Running a virtual CPU never does.
#[allow(unsafe_code, reason = "signal actions have no safe wrapper here")]
pub(crate) fn interrupt_kvm_by(signal: libc::c_int) -> io::Result<()> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: the structure is plain data, for which zeroes are a valid value: no flags, an empty mask.
    let action = unsafe { action.assume_init_mut() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the action is initialised, its handler has the signature for its flags and touches nothing; the old
    // action is not asked for.
    match unsafe { libc::sigaction(signal, action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Being interrupted is all there is to it.
extern "C" fn nothing(_: libc::c_int) {}
