//! Folders: the machine keeps what it is given, the "guest" has a link to each in `mnt`.

use std::{
    collections::HashMap,
    fs, io,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use agent_protocol::{Failure, FailureKind, Folder};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recv, recvmsg};
use vmm_api::{Response, Share, ShareCounts, ShareName, ShareStatus};

use crate::Machine;

/// What the machine was given.
#[derive(Default)]
pub(crate) struct Shares(Mutex<HashMap<ShareName, (Share, OwnedFd)>>);

impl Shares {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ShareName, (Share, OwnedFd)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, share: Share, folder: Option<OwnedFd>) -> Response {
        let refused = |why: &str| Response::Refused { why: why.into() };
        let Some(folder) = folder else {
            return refused("no descriptor came with it");
        };
        let path_only = rustix::fs::OFlags::PATH;
        if !rustix::fs::fcntl_getfl(&folder).unwrap().contains(path_only) {
            return refused("the folder is open for more than its path");
        }
        if share.name.as_str().starts_with("fake-refused") || self.lock().contains_key(&share.name) {
            return refused("this machine does not want it");
        }
        self.lock().insert(share.name.clone(), (share, folder));
        Response::Done
    }

    pub(crate) fn remove(&self, name: &ShareName) -> Response {
        match self.lock().remove(name) {
            Some(_) => Response::Done,
            None => Response::Refused {
                why: "no such folder".into(),
            },
        }
    }

    pub(crate) fn statuses(&self) -> Vec<ShareStatus> {
        let shares = self.lock();
        let status = |(share, folder): &(Share, OwnedFd)| ShareStatus {
            name: share.name.clone(),
            mode: share.mode,
            cache: share.cache,
            lost: rustix::fs::fstat(folder).unwrap().st_nlink == 0,
            counts: ShareCounts {
                read_bytes: 4096,
                ..ShareCounts::default()
            },
        };
        shares.values().map(status).collect()
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        let name = ShareName::try_from(name.to_owned()).unwrap();
        let shares = self.lock();
        let (_, folder) = shares.get(&name)?;
        Some(fs::read_link(format!("/proc/self/fd/{}", folder.as_raw_fd())).unwrap())
    }

    fn json(&self, name: &str) -> String {
        let name = ShareName::try_from(name.to_owned()).unwrap();
        serde_json::to_string(&self.lock()[&name].0).unwrap()
    }
}

/// A line, and the descriptor that came beside its first byte; `None` at the end of the connection.
pub(crate) fn receive_line(stream: &UnixStream) -> Option<(String, Option<OwnedFd>)> {
    let (mut line, mut descriptor) = (Vec::new(), None);
    while !line.ends_with(b"\n") {
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let into = &mut [io::IoSliceMut::new(&mut bytes)];
        let received = recvmsg(stream, into, &mut ancillary, RecvFlags::CMSG_CLOEXEC).unwrap();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
                assert!(line.is_empty(), "it comes with the first byte");
                descriptor = descriptors.next();
            }
        }
        if received.bytes == 0 {
            return None;
        }
        line.extend_from_slice(&bytes[..received.bytes]);
    }
    Some((String::from_utf8(line).unwrap(), descriptor))
}

/// The guest mounts a folder: one that the machine does not have cannot be.
pub(crate) fn attach(machine: &Machine, folder: &Folder) -> Result<(), Failure> {
    let name = String::from_utf8(folder.name.clone()).unwrap();
    let path = machine.shares.path(&name).filter(|_| name != "fake-unmountable");
    let Some(path) = path else {
        return Err(failure(FailureKind::NotFound, &format!("cannot mount {name}")));
    };
    let link = machine.home.join("mnt").join(&name);
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink(path, link).unwrap();
    let told = serde_json::json!({ "read_only": folder.read_only, "share": machine.shares.json(&name) });
    fs::write(machine.home.join(format!("{name}.mounted")), told.to_string()).unwrap();
    Ok(())
}

pub(crate) fn detach(
    machine: &Machine,
    name: &[u8],
    wait: Duration,
    cut: bool,
    stream: &UnixStream,
) -> Result<(), Failure> {
    let name = std::str::from_utf8(name).unwrap();
    if name.starts_with("fake-deaf") {
        loop {
            std::thread::park();
        }
    }
    let link = machine.home.join("mnt").join(name);
    let Ok(path) = fs::read_link(&link) else {
        return Err(failure(FailureKind::NotFound, name));
    };
    if !wait.is_zero() {
        fs::write(machine.home.join(format!("{name}.waited-for")), "").unwrap();
    }
    let start = Instant::now();
    while let Some(holder) = holder(machine, &path) {
        if cut {
            break;
        }
        if start.elapsed() >= wait {
            return Err(failure(FailureKind::Busy, &holder));
        }
        if matches!(
            recv(stream, &mut [0u8; 1][..], RecvFlags::PEEK | RecvFlags::DONTWAIT),
            Ok((_, 0))
        ) {
            return Err(failure(FailureKind::Other, "nobody waits any more"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    fs::remove_file(link).unwrap();
    fs::remove_file(machine.home.join(format!("{name}.mounted"))).unwrap();
    Ok(())
}

/// A command that stands in the folder.
fn holder(machine: &Machine, folder: &Path) -> Option<String> {
    let groups = machine.groups.lock().unwrap();
    let stands_in =
        |pid: &&u32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
    groups
        .values()
        .find(stands_in)
        .map(|pid| format!("it is in use by sh (pid {pid})"))
}

fn failure(kind: FailureKind, message: &str) -> Failure {
    Failure {
        kind,
        message: message.into(),
    }
}
