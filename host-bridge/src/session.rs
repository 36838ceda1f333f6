//! A machine this process owns, from the empty directory to the last word of its VMM.

mod network;
mod sharing;

use std::{
    future::Future,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use agent_protocol::{GuestInfo, Request, StreamId, TerminalSize};
use egress_policy::control::Spent;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use vmm_api::{
    CONFIG_VERSION, Console, Disk, DiskMode, ExitReason, GuestCid, MachineConfig, Response, Vsock,
};

use crate::{
    BootImage, Error, Result,
    agent::{Link, LinkState, Operation},
    console,
    folders::Folders,
    machine::{End, Machine},
    net::{
        Egress, NetPlan, Surroundings,
        publish::{Listening, Publish, Serving},
    },
    process::ProcessId,
    scratch,
    shape::Shape,
    share::{Guard, Opened, SharedFolder},
    state::{RECORD_VERSION, Record, SessionDir, State, unix_ms},
};

pub use sharing::Removal;

/// An emulated machine needs many seconds to boot what hardware boots in one.
pub const BOOT_DEADLINE: Duration = Duration::from_secs(120);
/// Time for processes in the guest between SIGTERM and SIGKILL.
pub const STOP_GRACE: Duration = Duration::from_secs(10);
/// After the grace: killing what is left, syncing and unmounting the disk.
const POWER_OFF_DEADLINE: Duration = Duration::from_secs(20);
/// When the agent vanishes, the machine behind it says why within this time.
const FATE_DEADLINE: Duration = Duration::from_secs(3);
/// What a guest may write to its console and have kept.
const CONSOLE_BYTES: u64 = 1 << 20;

/// Whoever can run operations in a session: the session itself, or a client of the keeper that owns it.
pub trait Host {
    fn start(&self, request: Request) -> impl Future<Output = Result<Operation>> + Send;
    fn signal(&self, id: StreamId, signal: i32) -> impl Future<Output = Result<()>> + Send;
    fn resize(&self, id: StreamId, size: TerminalSize) -> impl Future<Output = Result<()>> + Send;
    /// Why an operation broke off: waits for the machine to say, within reason.
    fn fate(&self) -> impl Future<Output = Error> + Send;
}

/// Everything a session is started from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    pub image: BootImage,
    pub shape: Shape,
    /// Variables of every command in the session.
    pub env: Vec<(String, String)>,
    /// Those a person shares; the session's own come by themselves.
    pub folders: Vec<SharedFolder>,
    pub net: NetPlan,
    pub publish: Vec<Publish>,
    /// The VMM's program.
    pub vmm: PathBuf,
    pub boot_deadline: Duration,
}

/// Owns a machine. Dropped, the machine is killed, and an ephemeral session's directory with it.
#[derive(Debug)]
pub struct Session {
    // In the order they go: the machine before the directory its files are in.
    machine: Machine,
    /// `None` once the session has ended.
    egress: Mutex<Option<Arc<Egress>>>,
    /// `None` until it is ready and once it has ended.
    published: Mutex<Option<Serving>>,
    link: Arc<Link>,
    folders: Folders,
    record: Mutex<Record>,
    directory: SessionDir,
}

impl Session {
    /// Starts the machine and waits until its agent is ready for work.
    pub async fn start(mut directory: SessionDir, plan: Plan, ephemeral: bool) -> Result<Self> {
        let fresh = !directory.scratch().exists();
        // Until its disk is made there is nothing in it to keep.
        directory.discard_at_end(ephemeral || fresh);
        // Before anything is written: a session that cannot have its folders stays as it was.
        let guard = Guard::of(directory.paths());
        let folders: Vec<SharedFolder> = plan
            .folders
            .iter()
            .cloned()
            .chain(directory.own_folders()?)
            .collect();
        let opened: Result<Vec<Opened>> = folders.iter().map(|folder| folder.open(&guard)).collect();
        let opened = opened?;
        let listening = Listening::at(&plan.publish).await?;
        let mut record = first_record(&directory, &plan, ephemeral);
        record.publish = listening.places();
        record.write(directory.path())?;
        if fresh {
            scratch::make(directory.paths().cache(), plan.shape.disk, &directory.scratch())?;
        }
        directory.discard_at_end(ephemeral);
        let env = plan.image.env.iter().chain(&plan.env);
        let env = env
            .map(|(key, value)| (key.clone().into_bytes(), value.clone().into_bytes()))
            .collect();
        let config = machine_config(&directory, &plan)?;
        let agent_socket = directory.paths().socket(directory.name(), AGENT_SOCKET)?;
        let link = Arc::new(Link::listen(&agent_socket, directory.name().to_string(), env)?);
        for log in [
            directory.console(),
            directory.machine_log(),
            directory.egress_log(),
        ] {
            let _ = std::fs::remove_file(log);
        }
        let (asked, shut_down) = oneshot::channel();
        link.shut_down_when(shut_down);
        let log = directory.machine_log();
        let around = surroundings(&directory, &link, &record)?;
        let (machine, egress) = both(
            Machine::start(&plan.vmm, &config, &log, asked),
            Egress::start(&plan.net, around),
        )
        .await?;
        record.machine = machine.id();
        record.write(directory.path())?;
        let session = Session {
            machine,
            egress: Mutex::new(Some(Arc::new(egress))),
            published: Mutex::default(),
            link,
            folders: Folders::new(directory.name().clone(), folders),
            record: Mutex::new(record),
            directory,
        };
        match session.become_ready(opened, plan.boot_deadline).await {
            Ok(()) => {
                session.publish(listening);
                Ok(session)
            }
            Err(error) => {
                session.machine.kill().await;
                session.end_network().await;
                session.record_end(&error.line());
                Err(error)
            }
        }
    }

    async fn become_ready(&self, opened: Vec<Opened>, deadline: Duration) -> Result<()> {
        let ready = async {
            self.share_from_start(&opened).await?;
            self.connect_network().await?;
            self.link.ready().await
        };
        tokio::select! {
            ready = ready => ready.map(drop),
            end = self.machine.ended() => Err(self.why_ended(&end)),
            () = tokio::time::sleep(deadline) => Err(Error::BootDeadline {
                waited: deadline,
                log: console::last_lines_quoted(&self.directory.console()),
            }),
        }?;
        let mut record = self.record();
        record.state = State::Running;
        record.started_unix_ms = Some(unix_ms());
        record.write(self.directory.path())
    }

    pub fn directory(&self) -> &SessionDir {
        &self.directory
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn machine_pid(&self) -> Option<u32> {
        self.machine.id().map(|id| id.pid)
    }

    /// What the guest said of itself. Untrusted.
    pub fn guest(&self) -> Option<GuestInfo> {
        match self.link.state() {
            LinkState::Ready(info) => Some(info),
            _ => None,
        }
    }

    /// Waits for the machine's end and says why it came.
    pub async fn ended(&self) -> Error {
        let end = self.machine.ended().await;
        self.why_ended(&end)
    }

    /// Asks the guest to switch itself off, and ends the machine when it does not in time.
    pub async fn shut_down(&self, grace: Duration) -> End {
        let orderly = async {
            self.link.shut_down(grace).await.ok()?;
            tokio::time::timeout(grace + POWER_OFF_DEADLINE, self.machine.ended())
                .await
                .ok()
        };
        match orderly.await {
            Some(end) => end,
            None => self.stop_machine().await,
        }
    }

    async fn stop_machine(&self) -> End {
        if let Ok(Response::Done) = self.machine.control(&vmm_api::Request::Stop).await
            && let Ok(end) = tokio::time::timeout(FATE_DEADLINE, self.machine.ended()).await
        {
            return end;
        }
        self.machine.kill().await
    }

    /// Ends a machine whose disk nobody will look at again.
    pub async fn kill(&self) {
        self.machine.kill().await;
    }

    /// Notes in the record that the session is stopped and why.
    pub fn record_end(&self, why: &str) {
        let mut record = self.record();
        record.state = State::Stopped;
        record.ended = Some(why.to_owned());
        record.ended_unix_ms = Some(unix_ms());
        record.owner = None;
        record.machine = None;
        record.publish.iter_mut().for_each(|publish| publish.bound = None);
        if let Some(egress) = self.egress() {
            record.net_spent = egress.spent();
        }
        // A full disk here leaves a record that the next start settles.
        let _ = record.write(self.directory.path());
    }

    /// From now on the session's disk, record and logs stay when it ends.
    pub fn keep(&mut self) {
        self.record().ephemeral = false;
        self.directory.discard_at_end(false);
    }

    pub async fn status(&self) -> Result<Response> {
        self.machine.control(&vmm_api::Request::Status).await
    }

    fn why_ended(&self, end: &End) -> Error {
        let log = self.directory.console();
        let reset = matches!(
            end,
            End::Exited(ExitReason::Reset | ExitReason::PowerOff | ExitReason::TripleFault)
        );
        if reset && let Some(line) = console::panic_line(&log) {
            return Error::Panicked { line };
        }
        match end {
            End::Failed { why } => Error::MachineFailed {
                why: console::safe(why.as_bytes()),
            },
            End::Exited(reason) => Error::Ended {
                why: reason_text(reason, self.link.state() == LinkState::ShuttingDown),
                log: console::last_lines_quoted(&log),
            },
            End::Died { how } => Error::Ended {
                why: how.clone(),
                log: console::last_lines_quoted(&self.directory.machine_log()),
            },
        }
    }
}

impl Host for Session {
    async fn start(&self, mut request: Request) -> Result<Operation> {
        if let Request::Exec(exec) = &mut request
            && exec.cwd.is_none()
        {
            exec.cwd = self.folders.first();
        }
        self.link.start(request).await
    }

    async fn signal(&self, id: StreamId, signal: i32) -> Result<()> {
        self.link.signal(id, signal).await
    }

    async fn resize(&self, id: StreamId, size: TerminalSize) -> Result<()> {
        self.link.resize(id, size).await
    }

    async fn fate(&self) -> Error {
        tokio::time::timeout(FATE_DEADLINE, self.ended())
            .await
            .unwrap_or(Error::AgentGone)
    }
}

/// Where the machine carries the agent's connections: the name the VMM makes of a base and a port.
const AGENT_SOCKET: &str = "vsock_1024";
const VSOCK_BASE: &str = "vsock";
const CONTROL_SOCKET: &str = "control";

pub(crate) fn control_socket(directory: &SessionDir) -> Result<PathBuf> {
    directory.paths().socket(directory.name(), CONTROL_SOCKET)
}

/// A session whose network cannot be guarded has no machine either. What is left of the one that started is gone
/// before the error is told.
async fn both(
    machine: impl Future<Output = Result<Machine>>,
    egress: impl Future<Output = Result<Egress>>,
) -> Result<(Machine, Egress)> {
    match tokio::join!(machine, egress) {
        (Ok(machine), Ok(egress)) => Ok((machine, egress)),
        (Ok(machine), Err(error)) => {
            machine.kill().await;
            Err(error)
        }
        (Err(error), egress) => {
            if let Ok(egress) = egress {
                egress.finish().await;
            }
            Err(error)
        }
    }
}

fn surroundings<'a>(
    directory: &'a SessionDir,
    link: &Arc<Link>,
    record: &Record,
) -> Result<Surroundings<'a>> {
    Ok(Surroundings {
        session: directory.name(),
        journal: directory.paths().net(),
        log: directory.egress_log(),
        control: control_socket(directory)?,
        guest: Arc::downgrade(link),
        spent: record.net_spent,
    })
}

fn machine_config(directory: &SessionDir, plan: &Plan) -> Result<MachineConfig> {
    let disk = |path, mode| Disk { path, mode };
    Ok(MachineConfig {
        version: CONFIG_VERSION,
        vcpus: plan.shape.cpus,
        memory: plan.shape.memory,
        kernel: plan.image.kernel.clone(),
        initramfs: Some(plan.image.initramfs.clone()),
        kernel_args: Vec::new(),
        disks: vec![
            disk(plan.image.rootfs.clone(), DiskMode::ReadOnly),
            disk(directory.scratch(), DiskMode::Scratch),
        ],
        vsock: Some(Vsock {
            cid: GuestCid::ONLY,
            socket: directory.paths().socket(directory.name(), VSOCK_BASE)?,
            ports: vec![agent_protocol::PORT],
        }),
        net: true,
        console: Console {
            log: directory.console(),
            max_bytes: CONSOLE_BYTES,
        },
        control: control_socket(directory)?,
    })
}

/// What a session that is started again keeps of its former life is when it was made, and what it has used up.
fn first_record(directory: &SessionDir, plan: &Plan, ephemeral: bool) -> Record {
    let now = unix_ms();
    let former = Record::read(directory.path()).ok();
    Record {
        version: RECORD_VERSION,
        name: directory.name().clone(),
        state: State::Starting,
        ephemeral,
        image: plan.image.name.clone(),
        image_id: plan.image.id.clone(),
        shape: plan.shape,
        env: plan.env.clone(),
        folders: plan.folders.clone(),
        net: plan.net.policy.clone(),
        net_spent: former
            .as_ref()
            .map_or_else(Spent::default, |former| former.net_spent),
        publish: plan.publish.clone(),
        created_unix_ms: former.map_or(now, |former| former.created_unix_ms),
        started_unix_ms: None,
        ended_unix_ms: None,
        ended: None,
        owner: ProcessId::current(),
        machine: None,
    }
}

fn reason_text(reason: &ExitReason, in_order: bool) -> String {
    match reason {
        ExitReason::PowerOff | ExitReason::Reset if in_order => "it shut down in order".to_owned(),
        ExitReason::PowerOff => "its kernel switched the machine off".to_owned(),
        ExitReason::Reset => "its kernel reset the machine".to_owned(),
        ExitReason::Stopped => "the machine was stopped".to_owned(),
        ExitReason::OwnerGone => "the machine's owner went away".to_owned(),
        ExitReason::TripleFault => "its kernel crashed with a triple fault".to_owned(),
        ExitReason::KvmError { text } => format!("KVM could not go on: {}", console::safe(text.as_bytes())),
        ExitReason::DeviceError { text } => {
            format!(
                "a device of the machine failed: {}",
                console::safe(text.as_bytes())
            )
        }
    }
}
