//! One operation: a thread, a stream, and whatever the host asked for.

use std::{sync::Arc, thread};

use agent_protocol::{Failure, FailureKind, Reply, Request, StreamId};

use crate::{
    Agent, connect, exec,
    failure::failure,
    files,
    jobs::{MAX_JOBS, Refused, Slot},
    log,
    stream::Stream,
};

/// No operation recurses, and buffers live on the heap.
const STACK: usize = 256 * 1024;

/// Takes its place in the table at once, so that a signal right behind it finds it. Never fails for the
/// caller: the host hears of it on the stream it waits for.
pub(crate) fn start(agent: &Arc<Agent>, id: StreamId, request: Request) {
    let slot = match agent.jobs().begin(id) {
        Ok(slot) => slot,
        Err(Refused::Full) => {
            let message = format!("{MAX_JOBS} operations run in the sandbox already");
            return refuse(agent, id, failure(FailureKind::Exhausted, message));
        }
        Err(Refused::Known) => {
            return refuse(
                agent,
                id,
                failure(FailureKind::Invalid, "an operation of this number runs already"),
            );
        }
    };
    let worker = Arc::clone(agent);
    let thread = thread::Builder::new().name("operation".into()).stack_size(STACK);
    if let Err(error) = thread.spawn(move || operate(&worker, id, &request, &slot)) {
        log::warn(format_args!("cannot start a thread: {error}"));
        refuse(
            agent,
            id,
            failure(
                FailureKind::Exhausted,
                "the sandbox has no room for another thread",
            ),
        );
    }
}

fn operate(agent: &Agent, id: StreamId, request: &Request, slot: &Slot) {
    let Some(session) = agent.session() else { return };
    let stream = match Stream::dial(agent.dialer(), id) {
        Ok(stream) => stream,
        Err(error) => return log::warn(format_args!("cannot dial for an operation: {error}")),
    };
    match request {
        Request::Exec(exec) => exec::run(agent.root(), &session, agent.cgroups(), exec, (stream, slot)),
        Request::Connect { port } => connect::run(*port, stream),
        Request::AttachFolder(_) | Request::DetachFolder { .. } => agent.folders().run(request, stream),
        other => files::run(&session.home, id, other, stream),
    }
}

/// Does not wait for the host to close: the control connection waits meanwhile.
fn refuse(agent: &Agent, id: StreamId, failure: Failure) {
    if let Ok(mut stream) = Stream::dial(agent.dialer(), id)
        && stream.queue(&Reply::Failed(failure)).is_ok()
    {
        let _ = stream.flush();
    }
}
