#![allow(
    unsafe_code,
    reason = "a child that must not outlive the double asks for that itself"
)]

use std::{
    ffi::OsStr,
    io::{ErrorKind, Read, Write},
    os::unix::{ffi::OsStrExt, net::UnixStream, process::CommandExt, process::ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use agent_protocol::{Channel, Exec, Exit, Failure, FailureKind, Reply, Status, StreamId, Usage};
use rustix::process::{Pid, Signal, kill_process_group, set_parent_process_death_signal};

use crate::{Machine, path_in, receive_frame, send, send_data};

pub(crate) fn run(machine: &Machine, id: StreamId, exec: &Exec, mut stream: UnixStream) {
    let mut child = match spawn(machine, exec) {
        Ok(child) => child,
        Err(failure) => return send(&mut stream, &Reply::Failed(failure)),
    };
    machine.groups.lock().unwrap().insert(id, child.id());
    send(&mut stream, &Reply::Started { pid: child.id() });
    let (wrote, writer) = mpsc::channel();
    let out = child.stdout.take().unwrap();
    let err = child.stderr.take().unwrap();
    let pumps = [
        std::thread::spawn(pump(out, Channel::Stdout, stream.try_clone().unwrap())),
        std::thread::spawn(pump(err, Channel::Stderr, stream.try_clone().unwrap())),
    ];
    feed(&mut child, stream.try_clone().unwrap(), wrote);
    let timed_out = Arc::new(AtomicBool::new(false));
    watch_time(exec, child.id(), timed_out.clone());
    pumps.into_iter().for_each(|pump| pump.join().unwrap());
    let status = child.wait().unwrap();
    machine.groups.lock().unwrap().remove(&id);
    send(
        &mut stream,
        &Reply::Exited(exit(status, timed_out.load(Ordering::SeqCst))),
    );
    drop(writer);
}

fn spawn(machine: &Machine, exec: &Exec) -> Result<Child, Failure> {
    let word = |bytes: &Vec<u8>| OsStr::from_bytes(bytes).to_owned();
    let mut command = Command::new(word(&exec.argv[0]));
    command
        .args(exec.argv[1..].iter().map(word))
        .envs(exec.env.iter().map(|(key, value)| (word(key), word(value))))
        .current_dir(
            exec.cwd
                .as_ref()
                .map_or(machine.home.clone(), |path| path_in(machine, path)),
        )
        .stdin(if exec.stdin { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    if let Some(size) = exec.terminal {
        command
            .env("LINES", size.rows.to_string())
            .env("COLUMNS", size.columns.to_string());
    }
    // SAFETY: between fork and exec this makes one system call and touches no memory of the parent's.
    unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?)) };
    command.spawn().map_err(|error| Failure {
        kind: match error.kind() {
            ErrorKind::NotFound => FailureKind::NotFound,
            _ => FailureKind::NotPermitted,
        },
        message: format!("{}: {error}", String::from_utf8_lossy(&exec.argv[0])),
    })
}

fn pump(mut from: impl Read, channel: Channel, mut to: UnixStream) -> impl FnOnce() {
    move || {
        let mut buffer = vec![0; agent_protocol::MAX_DATA];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            if send_data(&mut to, channel, &buffer[..n]).is_err() {
                return;
            }
        }
    }
}

/// Carries input; the end of the connection ends the command.
fn feed(child: &mut Child, mut stream: UnixStream, done: mpsc::Sender<()>) {
    let group = child.id();
    let mut stdin = child.stdin.take();
    std::thread::spawn(move || {
        let _done = done;
        while let Some((_, data)) = receive_frame(&mut stream) {
            if data.is_empty()
                || stdin
                    .as_mut()
                    .is_some_and(|stdin| stdin.write_all(&data).is_err())
            {
                stdin = None;
            }
        }
        kill(group, Signal::KILL);
    });
}

fn watch_time(exec: &Exec, group: u32, timed_out: Arc<AtomicBool>) {
    let Some(limit) = exec.timeout_ms.map(Duration::from_millis) else {
        return;
    };
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        // Said before it is done: the command may be gone, and be reported, the moment it is killed.
        timed_out.store(true, Ordering::SeqCst);
        kill(group, Signal::TERM);
    });
}

pub(crate) fn signal_group(machine: &Machine, id: StreamId, signal: i32) {
    if let (Some(group), Some(signal)) = (
        machine.groups.lock().unwrap().get(&id),
        Signal::from_named_raw(signal),
    ) {
        kill(*group, signal);
    }
}

fn kill(group: u32, signal: Signal) {
    let group = Pid::from_raw(group.cast_signed()).unwrap();
    let _ = kill_process_group(group, signal);
}

fn exit(status: ExitStatus, timed_out: bool) -> Exit {
    let status = match status.signal() {
        Some(signal) => Status::Signal(signal),
        None => Status::Code(status.code().unwrap()),
    };
    Exit {
        status,
        timed_out,
        out_of_memory: false,
        usage: Usage::default(),
    }
}
