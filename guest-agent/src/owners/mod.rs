//! Whose port is it? The host asks, so that its record of the network names a command.
//!
//! Looked up in a thread of its own, one question after another, each in bounded time: the control connection never
//! waits for it. Best effort: what is gone, or has not been found in time, is nobody's.

mod sockets;

use std::{
    fs::File,
    io::Read,
    path::Path,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use agent_protocol::{GuestMessage, MAX_OWNER_ARGUMENTS, PortOwner, PortProtocol};

use crate::{control::Writer, jobs::Jobs, lock::lock, log};

/// The host waits for 300 ms.
const DEADLINE: Duration = Duration::from_millis(250);

/// Questions that wait for the one looked at; what comes on top is answered with nobody.
const MAX_WAITING: usize = 16;

/// A name, a line and a path at a time.
const STACK: usize = 256 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Owners(Mutex<Option<SyncSender<Question>>>);

#[derive(Debug)]
pub(crate) struct Question {
    nonce: u64,
    protocol: PortProtocol,
    port: u16,
    until: Instant,
    asker: Writer,
}

impl Question {
    pub(crate) fn new(nonce: u64, protocol: PortProtocol, port: u16, asker: Writer) -> Self {
        Question {
            nonce,
            protocol,
            port,
            until: Instant::now() + DEADLINE,
            asker,
        }
    }

    /// A connection that is lost by now has nobody at its end who still asks.
    fn answer(&self, owner: Option<PortOwner>) {
        let nonce = self.nonce;
        let _ = self.asker.write(&GuestMessage::Owner { nonce, owner });
    }
}

impl Owners {
    pub(crate) fn ask(&self, jobs: &Arc<Jobs>, question: Question) {
        let mut queue = lock(&self.0);
        if queue.is_none() {
            *queue = start(jobs);
        }
        let refused = match &*queue {
            Some(queue) => queue.try_send(question).err().map(|error| match error {
                std::sync::mpsc::TrySendError::Full(question)
                | std::sync::mpsc::TrySendError::Disconnected(question) => question,
            }),
            None => Some(question),
        };
        if let Some(question) = refused {
            question.answer(None);
        }
    }
}

/// At the first question: most sessions ask none.
fn start(jobs: &Arc<Jobs>) -> Option<SyncSender<Question>> {
    let (queue, questions) = sync_channel(MAX_WAITING);
    let jobs = Arc::clone(jobs);
    let thread = thread::Builder::new().name("owners".into()).stack_size(STACK);
    match thread.spawn(move || serve(&jobs, &questions)) {
        Ok(_) => Some(queue),
        Err(error) => {
            log::warn(format_args!("cannot start a thread: {error}"));
            None
        }
    }
}

fn serve(jobs: &Jobs, questions: &Receiver<Question>) {
    for question in questions {
        question.answer(find(jobs, &question));
    }
}

fn find(jobs: &Jobs, question: &Question) -> Option<PortOwner> {
    let proc = Path::new("/proc");
    let inode = sockets::inode(
        &proc.join("net"),
        question.protocol,
        question.port,
        question.until,
    )?;
    let pid = sockets::holder(proc, inode, question.until)?;
    Some(PortOwner {
        pid,
        argv: arguments(&proc.join(pid.to_string())),
        operation: jobs.operation_of(pid),
    })
}

/// The last one may be cut short.
fn arguments(process: &Path) -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(process.join("cmdline")) {
        let _ = file.take(MAX_OWNER_ARGUMENTS as u64).read_to_end(&mut bytes);
    }
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    match bytes.is_empty() {
        true => Vec::new(),
        false => bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect(),
    }
}
