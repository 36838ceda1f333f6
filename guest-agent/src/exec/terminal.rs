//! Pseudo-terminals.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use agent_protocol::TerminalSize;
use rustix::{
    fs::{Gid, Mode, OFlags, Uid, fchmod, fchown, fcntl_getfl, fcntl_setfl},
    pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{LocalModes, SpecialCodeIndex, Winsize, tcgetattr, tcgetpgrp, tcsetwinsize},
};

/// The group that may write to terminals, in every distribution.
const TTY_GROUP: u32 = 5;

pub(crate) struct Terminal {
    /// Ours; does not block.
    pub(crate) master: OwnedFd,
    /// The command's.
    pub(crate) slave: OwnedFd,
}

/// A terminal of `size`. It belongs to the user of the command, who may want to open it again by name.
pub(crate) fn open(size: TerminalSize, owner: Option<u32>) -> io::Result<Terminal> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, flags)?;
    if let Some(uid) = owner {
        fchown(&slave, Some(Uid::from_raw(uid)), Some(Gid::from_raw(TTY_GROUP)))?;
        fchmod(&slave, Mode::RUSR | Mode::WUSR | Mode::WGRP)?;
    }
    resize(&master, size);
    fcntl_setfl(&master, fcntl_getfl(&master)? | OFlags::NONBLOCK)?;
    Ok(Terminal { master, slave })
}

/// Tells the foreground group too, by SIGWINCH.
pub(crate) fn resize(master: &OwnedFd, size: TerminalSize) {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let _ = tcsetwinsize(master, size);
}

pub(crate) fn foreground_group(master: BorrowedFd<'_>) -> Option<i32> {
    let group = tcgetpgrp(master).ok()?;
    Some(group.as_raw_pid())
}

/// What end of input means here: the character a person would type for it, or nothing when the program
/// at the terminal reads characters rather than lines.
pub(crate) fn end_of_file(master: impl AsFd) -> Option<u8> {
    let modes = tcgetattr(master).ok()?;
    modes
        .local_modes
        .contains(LocalModes::ICANON)
        .then(|| modes.special_codes[SpecialCodeIndex::VEOF])
}
