//! Folders come to a machine and its guest, and go again.
//!
//! ```text
//! start   machine: ShareAdd… ── then the agent is welcomed with all of them
//! add     machine: ShareAdd ── agent: AttachFolder        (undone when the agent cannot)
//! remove  agent: DetachFolder ── machine: ShareRemove     (with `cut` whatever the agent says, and soon)
//! ```

use std::{future::Future, time::Duration};

use agent_protocol::{Failure, FailureKind, Reply, Request};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use vmm_api::{ShareName, ShareStatus};

use super::Session;
use crate::{
    Error, Host, Result,
    agent::{Aborter, Operation},
    console,
    error::Context,
    share::{Asked, Guard, Opened},
};

/// Mounting a folder is a few system calls in the guest; an emulated machine is slow about them.
const ATTACH_DEADLINE: Duration = Duration::from_secs(30);
/// What the agent may need beyond the time it was told to wait.
const DETACH_MARGIN: Duration = Duration::from_secs(15);
/// Whoever says `--cut` waits no longer for a guest than this.
const CUT_DEADLINE: Duration = Duration::from_secs(3);

/// What to do about those who use a folder that is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// Give them this long to stop.
    pub wait: Duration,
    /// Then take it away all the same.
    pub cut: bool,
}

impl Session {
    /// Gives the machine what the session starts with, then lets the guest in. The guest boots meanwhile.
    pub(super) async fn share_from_start(&self, opened: &[Opened]) -> Result<()> {
        if !self.machine.started().await {
            return Err(self.ended().await);
        }
        match self.machine.share(opened).await {
            Err(error @ Error::Control { .. }) => return Err(self.fate_or(error).await),
            done => done?,
        }
        self.tell_link();
        Ok(())
    }

    /// A machine that does not answer has often just ended, and says why.
    async fn fate_or(&self, error: Error) -> Error {
        match self.fate().await {
            Error::AgentGone => error,
            fate => fate,
        }
    }

    /// Puts one more folder into the session, and says what it is called there.
    pub(crate) async fn share_add(&self, asked: Asked) -> Result<ShareName> {
        let coming = self.folders.reserve(asked)?;
        let opened = coming.folder().open(&Guard::of(self.directory.paths()))?;
        self.machine.share(&[opened]).await?;
        let attach = Request::AttachFolder(coming.folder().for_agent());
        let attached = match self.ask_agent(attach, ATTACH_DEADLINE).await {
            Ok(Reply::Done) => Ok(()),
            Ok(reply) => Err(failed("folder cannot be mounted in the sandbox", reply)),
            Err(error) => Err(error),
        };
        let name = coming.folder().name.clone();
        if let Err(error) = attached {
            // One that cannot be undone is in nobody's way: the guest has no mount for it, and the error is told.
            let _ = self.machine.unshare(&name).await;
            return Err(error);
        }
        coming.settle();
        self.folders_changed()?;
        Ok(name)
    }

    /// Takes a folder away. Who asked may give up while the guest's processes are waited for.
    pub(crate) async fn share_remove(
        &self,
        name: &ShareName,
        how: Removal,
        gave_up: impl Future<Output = ()>,
    ) -> Result<()> {
        let going = self.folders.leave(name)?;
        let detached = tokio::select! {
            detached = self.detach(name, how) => detached,
            () = gave_up => Err(Error::Interrupted { signal: rustix::process::Signal::INT.as_raw() }),
        };
        match detached {
            Err(error @ Error::Interrupted { .. }) => return Err(error),
            Err(error) if !how.cut => return Err(error),
            // With `cut` the machine takes it away from whoever holds it.
            _ => {}
        }
        self.machine.unshare(name).await?;
        going.forget();
        self.folders_changed()
    }

    /// The agent waits or cuts; both are two requests.
    async fn detach(&self, name: &ShareName, how: Removal) -> Result<()> {
        if !how.cut || !how.wait.is_zero() {
            match self.detach_once(name, how.wait, false).await {
                Err(_) if how.cut => {}
                done => return done,
            }
        }
        self.detach_once(name, Duration::ZERO, true).await
    }

    async fn detach_once(&self, name: &ShareName, wait: Duration, cut: bool) -> Result<()> {
        let request = Request::DetachFolder {
            name: name.as_str().as_bytes().to_vec(),
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            cut,
        };
        let margin = if cut { CUT_DEADLINE } else { DETACH_MARGIN };
        let stuck = |why: String| Error::FolderStuck {
            name: name.clone(),
            why,
        };
        match self.ask_agent(request, wait.saturating_add(margin)).await {
            Ok(Reply::Done) => Ok(()),
            Ok(Reply::Failed(Failure { kind, message })) => match kind {
                FailureKind::Busy => Err(Error::FolderBusy {
                    name: name.clone(),
                    holders: console::safe(message.as_bytes()),
                }),
                // Somebody in the guest was quicker: nothing holds it there.
                FailureKind::NotFound => Ok(()),
                _ => Err(stuck(console::safe(message.as_bytes()))),
            },
            Ok(reply) => Err(failed("folder cannot be unmounted in the sandbox", reply)),
            Err(Error::AgentSilent { what }) => Err(stuck(what.to_owned())),
            Err(error) => Err(error),
        }
    }

    /// What the machine says of its folders.
    pub async fn shares(&self) -> Result<Vec<ShareStatus>> {
        self.machine.shares().await
    }

    /// The guest that dials next, and the record, hear of what there is now.
    fn folders_changed(&self) -> Result<()> {
        self.tell_link();
        let mut record = self.record();
        record.folders = self.folders.shared();
        record.write(self.directory.path())
    }

    fn tell_link(&self) {
        let folders = self.folders.there();
        self.link.has_folders(
            folders
                .iter()
                .map(crate::share::SharedFolder::for_agent)
                .collect(),
        );
    }

    /// An operation that the agent answers with one reply.
    async fn ask_agent(&self, request: Request, deadline: Duration) -> Result<Reply> {
        let silent = Error::AgentSilent {
            what: "it did not do what was asked in time",
        };
        let asked = async { one_reply(self.link.start(request).await?).await };
        tokio::time::timeout(deadline, asked).await.unwrap_or(Err(silent))
    }
}

/// Streams block, so a thread reads it; when nobody waits any more the stream is closed, and that ends the thread.
async fn one_reply(operation: Operation) -> Result<Reply> {
    let (mut reader, writer) = operation.split()?;
    let _aborter = AbortOnDrop(writer.aborter()?);
    let (tell, told) = oneshot::channel();
    std::thread::Builder::new()
        .name("folder".to_owned())
        .spawn(move || drop(tell.send(reader.reply())))
        .act("thread cannot be started")?;
    told.await.unwrap_or(Err(Error::AgentGone))
}

struct AbortOnDrop(Aborter);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn failed(what: &str, reply: Reply) -> Error {
    match reply {
        Reply::Failed(failure) => Error::Guest {
            what: what.to_owned(),
            kind: failure.kind,
            message: console::safe(failure.message.as_bytes()),
        },
        _ => Error::Unexpected {
            what: "a reply to another question",
        },
    }
}
