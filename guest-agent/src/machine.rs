//! What of the machine itself the agent changes: the seam between serving a host and being PID 1.

use std::{io, os::fd::OwnedFd, path::Path, time::Duration};

use agent_protocol::Network;
use rustix::{
    mount::mount,
    system::sethostname,
    time::{ClockId, Timespec, clock_settime},
};

use crate::{
    folders::{SAFE, TAG},
    network, shutdown,
};

pub trait Machine: Send + Sync {
    fn set_hostname(&self, name: &str) -> io::Result<()>;
    fn set_clock(&self, unix_ns: u64) -> io::Result<()>;
    /// Mounts the device that lists the folders of the host.
    fn mount_folders(&self, at: &Path) -> io::Result<()>;
    /// Gives the network card its addresses and the way out.
    fn set_network(&self, network: &Network) -> io::Result<()>;
    /// Ends every process, giving them `grace` between asking and killing, and makes the disks whole.
    fn stop_everything(&self, grace: Duration);
}

/// The virtual machine this process is the first process of.
#[derive(Debug)]
pub struct Guest {
    scratch: Option<OwnedFd>,
}

impl Guest {
    /// `scratch` is the root directory of the scratch disk, when there is one.
    pub fn new(scratch: Option<OwnedFd>) -> Self {
        Guest { scratch }
    }
}

impl Machine for Guest {
    fn set_hostname(&self, name: &str) -> io::Result<()> {
        Ok(sethostname(name.as_bytes())?)
    }

    fn set_clock(&self, unix_ns: u64) -> io::Result<()> {
        let time = Duration::from_nanos(unix_ns);
        let time = Timespec::try_from(time).map_err(io::Error::other)?;
        Ok(clock_settime(ClockId::Realtime, time)?)
    }

    fn mount_folders(&self, at: &Path) -> io::Result<()> {
        Ok(mount(TAG, at, "virtiofs", SAFE, c"")?)
    }

    fn set_network(&self, network: &Network) -> io::Result<()> {
        network::set_up(&network::card()?, network)
    }

    fn stop_everything(&self, grace: Duration) {
        shutdown::end_all_processes(grace);
        if shutdown::settle_folders() {
            shutdown::settle_others();
        }
        shutdown::settle_disks(self.scratch.as_ref());
    }
}
