//! What the kernel offers a jail: tried, not looked up.
#![allow(unsafe_code, reason = "system calls that no wrapper we use has")]

use std::{
    io,
    process::{Command, Stdio},
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    thread::UnshareFlags,
};

use super::{Check, Level};

/// The Landlock ABI that handles truncation, without which read-only is not.
const TRUNCATE_ABI: i64 = 3;

/// In a process of its own, which stays behind its new walls and ends there.
pub(super) fn namespaces() -> Check {
    let tried = std::env::current_exe().and_then(|program| {
        Command::new(program)
            .args(["probe", "namespaces"])
            .stdin(Stdio::null())
            .output()
    });
    let what = "namespaces";
    match tried {
        Ok(output) if output.status.success() => Check::new(
            what,
            Level::Ok,
            "user, mount, pid, network and ipc namespaces can be made".into(),
            "",
        ),
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let found =
                format!("an unprivileged user cannot make them: {why}: one wall fewer around the VMM");
            Check::new(what, Level::Weak, found, NAMESPACE_HINT)
        }
        Err(error) => Check::new(
            what,
            Level::Weak,
            format!("the probe cannot be started: {error}"),
            "",
        ),
    }
}

const NAMESPACE_HINT: &str = "sudo sysctl kernel.unprivileged_userns_clone=1 \
    (Debian) or kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu)";

/// The probe's own process: it must have one thread.
pub(super) fn try_namespaces() -> io::Result<()> {
    let flags = UnshareFlags::NEWUSER
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWIPC;
    // SAFETY: no descriptor table is unshared, and the process ends right after.
    unsafe { rustix::thread::unshare_unsafe(flags) }?;
    Ok(())
}

/// How a folder's files are opened without ever leaving it. Every session has a folder.
pub(super) fn beneath() -> Check {
    let here = rustix::fs::openat2(
        rustix::fs::CWD,
        "/",
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS,
    );
    let what = "folders";
    match here {
        Ok(_) => Check::new(
            what,
            Level::Ok,
            "can be opened without a way out (openat2)".into(),
            "",
        ),
        Err(error) => Check::new(
            what,
            Level::Missing,
            format!("openat2 is not available: {error}: no folder can be shared safely"),
            "use a kernel of 5.6 or later, and a container that allows openat2",
        ),
    }
}

pub(super) fn landlock() -> Check {
    const CREATE_RULESET_VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the call takes no attributes: a null pointer of length zero is what it asks for.
    let abi = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0usize,
            CREATE_RULESET_VERSION,
        )
    };
    let what = "Landlock";
    match abi {
        TRUNCATE_ABI.. => Check::new(what, Level::Ok, format!("ABI {abi}"), ""),
        1.. => Check::new(
            what,
            Level::Weak,
            format!("ABI {abi}, which cannot stop truncation: one wall fewer around the VMM"),
            "a kernel of 6.2 or later has it",
        ),
        _ => Check::new(
            what,
            Level::Weak,
            format!(
                "not available: {}: one wall fewer around the VMM",
                io::Error::last_os_error()
            ),
            "boot with lsm=landlock added, on a kernel of 6.2 or later",
        ),
    }
}

pub(super) fn seccomp() -> Check {
    let action: u32 = libc::SECCOMP_RET_KILL_PROCESS;
    // SAFETY: the call only reads the action it is pointed at, which outlives it.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            &raw const action,
        )
    };
    let what = "seccomp";
    match answer {
        0 => Check::new(what, Level::Ok, "filters can kill a process".into(), ""),
        _ => Check::new(
            what,
            Level::Weak,
            format!(
                "not available: {}: one wall fewer around the VMM",
                io::Error::last_os_error()
            ),
            "use a kernel with CONFIG_SECCOMP_FILTER",
        ),
    }
}
