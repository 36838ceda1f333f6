//! A machine without a machine: speaks as `coffer-vmm` to its owner and as the agent to the bridge, and
//! runs the "guest's" commands as processes of the host. The integration tests put it where the VMM
//! belongs. Some commands make it misbehave the way real guests do; see `misbehave`.
#![allow(
    clippy::unwrap_used,
    reason = "a test double: whatever goes wrong is the test's failure"
)]

mod exec;
mod files;

use std::{
    collections::HashMap,
    io::{BufRead, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use agent_protocol::{
    Channel, GuestInfo, GuestMessage, Header, Hello, HostMessage, Limit, Reply, Request, Role, StreamId,
    decode, encode, encode_frame,
};
use serde::{Serialize, de::DeserializeOwned};
use vmm_api::{Event, ExitReason, MachineConfig, MachineState, Response, Statistics};

/// What all threads of the double share.
pub(crate) struct Machine {
    agent: PathBuf,
    console: PathBuf,
    /// The "guest's" file system: relative paths land here.
    pub(crate) home: PathBuf,
    /// The process group of each running command.
    pub(crate) groups: Mutex<HashMap<StreamId, u32>>,
}

fn main() {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
    let config = MachineConfig::parse(&line).unwrap();
    if std::fs::read(&config.kernel)
        .unwrap()
        .starts_with(b"not a kernel")
    {
        event(&Event::Failed {
            why: format!("{} is not a kernel", config.kernel.display()),
        });
        return;
    }
    let listener = UnixListener::bind(&config.control).unwrap();
    std::thread::spawn(move || control_socket(&listener));
    std::thread::spawn(|| {
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        end(ExitReason::OwnerGone);
    });
    event(&Event::Started {
        pid: std::process::id(),
    });
    std::fs::write(&config.console.log, "fake guest console: booted\n").unwrap();
    let socket = config.vsock.unwrap().socket;
    let home = config.console.log.with_file_name("guest");
    std::fs::create_dir_all(&home).unwrap();
    let machine = Machine {
        agent: PathBuf::from(format!("{}_{}", socket.display(), agent_protocol::PORT)),
        console: config.console.log,
        home,
        groups: Mutex::default(),
    };
    serve(&Arc::new(machine));
}

fn event(event: &Event) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(event).unwrap()).unwrap();
    out.flush().unwrap();
}

fn end(reason: ExitReason) -> ! {
    event(&Event::Exited { reason });
    std::process::exit(0)
}

fn control_socket(listener: &UnixListener) {
    for stream in listener.incoming() {
        let stream = stream.unwrap();
        let mut line = String::new();
        std::io::BufReader::new(&stream).read_line(&mut line).unwrap();
        let answer = match serde_json::from_str(&line).unwrap() {
            vmm_api::Request::Status => Response::Status {
                state: MachineState::Running,
                statistics: Statistics::default(),
            },
            _ => Response::Done,
        };
        writeln!(&stream, "{}", serde_json::to_string(&answer).unwrap()).unwrap();
        if line.contains("stop") {
            end(ExitReason::Stopped);
        }
    }
}

/// The agent's control connection.
fn serve(machine: &Arc<Machine>) {
    let info = GuestInfo {
        agent_version: "fake".into(),
        kernel: "none".into(),
        uptime_ms: 1,
    };
    let mut control = dial(&machine.agent, Role::Control(info));
    loop {
        match receive(&mut control) {
            HostMessage::Welcome(_) => send(&mut control, &GuestMessage::Ready),
            HostMessage::Start { id, request } => {
                let machine = Arc::clone(machine);
                std::thread::spawn(move || operate(&machine, id, request));
            }
            HostMessage::Signal { id, signal } => exec::signal_group(machine, id, signal),
            HostMessage::Shutdown { .. } => {
                send(&mut control, &GuestMessage::ShuttingDown);
                end(ExitReason::Reset);
            }
            HostMessage::Ping { nonce } => send(&mut control, &GuestMessage::Pong { nonce }),
            HostMessage::Resize { .. } | HostMessage::Clock { .. } => {}
        }
    }
}

fn operate(machine: &Machine, id: StreamId, request: Request) {
    if let Request::Exec(exec) = &request {
        misbehave(machine, &exec.argv[0]);
    }
    let mut stream = dial(&machine.agent, Role::Stream(id));
    match request {
        Request::Exec(exec) => exec::run(machine, id, &exec, stream),
        files => {
            let reply = files::serve(machine, files, &mut stream);
            send(&mut stream, &reply.unwrap_or_else(Reply::Failed));
        }
    }
}

/// Commands no real guest has.
fn misbehave(machine: &Machine, command: &[u8]) {
    match command {
        b"fake-panic" => {
            let said = "boot\n[    1.0] Kernel panic - not syncing: \x1b[31mfake\n[    1.1] CPU: 0\n";
            std::fs::write(&machine.console, said).unwrap();
            end(ExitReason::Reset);
        }
        b"fake-die" => std::process::abort(),
        b"fake-garbage" => {
            let mut stream = UnixStream::connect(&machine.agent).unwrap();
            let _ = stream.write_all(&[0xff; 4096]);
            event(&Event::Started { pid: 0 });
        }
        _ => {}
    }
}

fn dial(socket: &Path, role: Role) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap();
    send(&mut stream, &Hello::new(role));
    stream
}

pub(crate) fn send(stream: &mut UnixStream, message: &impl Serialize) {
    // The bridge may have broken the operation off.
    let _ = stream.write_all(&encode(message, Limit::ToHost).unwrap());
}

pub(crate) fn send_data(stream: &mut UnixStream, channel: Channel, data: &[u8]) -> std::io::Result<()> {
    stream.write_all(&encode_frame(channel, data))
}

/// The next frame, or `None` at the end of the connection.
pub(crate) fn receive_frame(stream: &mut UnixStream) -> Option<(Channel, Vec<u8>)> {
    let mut head = [0; Header::SIZE];
    stream.read_exact(&mut head).ok()?;
    let header = Header::parse(head, Limit::ToGuest).unwrap();
    let mut payload = vec![0; header.len()];
    stream.read_exact(&mut payload).ok()?;
    Some((header.channel(), payload))
}

fn receive<M: DeserializeOwned>(stream: &mut UnixStream) -> M {
    match receive_frame(stream) {
        Some((Channel::Message, payload)) => decode(&payload).unwrap(),
        _ => end(ExitReason::OwnerGone),
    }
}
