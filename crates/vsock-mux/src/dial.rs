//! Which ports lead where, and the dialling itself.

use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::packet::HOST_CID;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("guest CID {0} is reserved")]
    ReservedCid(u32),
    #[error("port {0} is reserved")]
    ReservedPort(u32),
    #[error("cannot use {path:?} as a socket address")]
    Path { path: PathBuf, source: io::Error },
}

/// Who the guest is, and where each listed port leads: port `P` to the AF_UNIX socket named `socket`, an
/// underscore, and `P`.
#[derive(Debug)]
pub struct Routes {
    guest_cid: u64,
    ports: HashMap<u32, SocketAddrUnix>,
}

#[derive(Debug)]
pub(crate) enum Dialled {
    Connected(OwnedFd),
    /// The listener's backlog is full.
    Busy,
    Failed(io::Error),
}

impl Routes {
    pub fn new(guest_cid: u32, socket: &Path, ports: &[u32]) -> Result<Self, ConfigError> {
        if u64::from(guest_cid) <= HOST_CID || guest_cid == u32::MAX {
            return Err(ConfigError::ReservedCid(guest_cid));
        }
        let mut routes = HashMap::new();
        for &port in ports {
            if port == u32::MAX {
                return Err(ConfigError::ReservedPort(port));
            }
            routes.insert(port, address(socket, port)?);
        }
        Ok(Routes {
            guest_cid: guest_cid.into(),
            ports: routes,
        })
    }

    pub fn guest_cid(&self) -> u64 {
        self.guest_cid
    }

    pub(crate) fn has(&self, port: u32) -> bool {
        self.ports.contains_key(&port)
    }

    pub(crate) fn dial(&self, port: u32) -> Dialled {
        let Some(address) = self.ports.get(&port) else {
            return Dialled::Failed(io::ErrorKind::NotFound.into());
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = match socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None) {
            Ok(socket) => socket,
            Err(error) => return Dialled::Failed(error.into()),
        };
        match connect(&socket, address) {
            Ok(()) => Dialled::Connected(socket),
            Err(rustix::io::Errno::AGAIN) => Dialled::Busy,
            Err(error) => Dialled::Failed(error.into()),
        }
    }
}

fn address(socket: &Path, port: u32) -> Result<SocketAddrUnix, ConfigError> {
    let mut name = socket.as_os_str().to_owned();
    name.push(format!("_{port}"));
    let path = PathBuf::from(name);
    SocketAddrUnix::new(&path).map_err(|source| ConfigError::Path {
        path,
        source: source.into(),
    })
}
