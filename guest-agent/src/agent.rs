//! What every part of the running agent shares.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use crate::{
    Dialer, Error, Machine,
    control::{self, Link},
    exec::Cgroups,
    folders::Folders,
    jobs::Jobs,
    lock::lock,
    owners::Owners,
    reap,
};

/// What an agent is made of; the tests put in their own.
pub struct Parts {
    pub dialer: Box<dyn Dialer>,
    pub machine: Box<dyn Machine>,
    /// Where `etc` and `sessions` are.
    pub root: PathBuf,
    /// Without them commands run all the same; see [`Cgroups`] for what is lost.
    pub cgroups: Option<Cgroups>,
}

pub struct Agent {
    parts: Parts,
    jobs: Arc<Jobs>,
    folders: Arc<Folders>,
    owners: Owners,
    session: Mutex<Option<Arc<Session>>>,
}

/// Who this machine is since the host's Welcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) home: PathBuf,
    pub(crate) env: Vec<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Agent {
            parts,
            jobs,
            folders,
            owners,
            session,
        } = self;
        f.debug_struct("Agent")
            .field("parts", parts)
            .field("jobs", jobs)
            .field("folders", folders)
            .field("owners", owners)
            .field("session", session)
            .finish()
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("root", &self.root)
            .field("cgroups", &self.cgroups)
            .finish_non_exhaustive()
    }
}

impl Agent {
    pub fn new(parts: Parts) -> Result<Self, Error> {
        reap::start().map_err(Error::Thread)?;
        Ok(Agent {
            parts,
            jobs: Arc::default(),
            folders: Arc::default(),
            owners: Owners::default(),
            session: Mutex::default(),
        })
    }

    /// Serves the host, dialing it again whenever the connection is lost, until it shuts us down.
    pub fn serve(self: Arc<Self>, first: Option<Link>) {
        control::serve(&self, first);
    }

    pub(crate) fn dialer(&self) -> &dyn Dialer {
        &*self.parts.dialer
    }

    pub(crate) fn machine(&self) -> &dyn Machine {
        &*self.parts.machine
    }

    pub(crate) fn root(&self) -> &Path {
        &self.parts.root
    }

    pub(crate) fn cgroups(&self) -> Option<&Cgroups> {
        self.parts.cgroups.as_ref()
    }

    pub(crate) fn jobs(&self) -> &Arc<Jobs> {
        &self.jobs
    }

    pub(crate) fn folders(&self) -> &Arc<Folders> {
        &self.folders
    }

    pub(crate) fn owners(&self) -> &Owners {
        &self.owners
    }

    pub(crate) fn session(&self) -> Option<Arc<Session>> {
        lock(&self.session).clone()
    }

    pub(crate) fn become_session(&self, session: Session) {
        *lock(&self.session) = Some(Arc::new(session));
    }
}
