//! `coffer-agent`, started by the kernel as `/init`. The order of the boot is the text of [`run`].

use std::{path::Path, process::ExitCode, sync::Arc};

use guest_agent::{Agent, Cgroups, EarlyDial, Error, Guest, HostVsock, Parts, boot};

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("coffer-agent: starts as the first process of a sandbox, not by hand");
        return ExitCode::from(2);
    }
    if let Err(error) = run() {
        guest_agent::report_fatal(&error);
    }
    guest_agent::restart()
}

/// Returns when the host has shut the machine down, or with the reason why it cannot come up.
fn run() -> Result<(), Error> {
    boot::mount_kernel_filesystems()?;
    boot::protect_this_process();
    let later = boot::load_modules(Path::new("/modules"))?;
    // The host answers while the disks are mounted; nothing it says is read before the root is there.
    let dialing = EarlyDial::start(HostVsock)?;
    let root = boot::enter_root()?;
    boot::bring_up_loopback();
    let agent = Agent::new(Parts {
        dialer: Box::new(HostVsock),
        machine: Box::new(Guest::new(root.scratch)),
        root: Path::new("/").into(),
        cgroups: Cgroups::open(Path::new("/sys/fs/cgroup")).ok(),
    })?;
    let link = dialing.finish();
    later.load_in_background();
    Arc::new(agent).serve(link);
    Ok(())
}
