//! A machine without a machine: speaks as `coffer-vmm` to its owner and as the agent to the bridge, and
//! runs the "guest's" commands as processes of the host. The integration tests put it where the VMM
//! belongs. Some commands make it misbehave the way real guests do; see `misbehave`.
#![allow(
    clippy::unwrap_used,
    reason = "a test double: whatever goes wrong is the test's failure"
)]

mod exec;
mod files;
mod folders;
mod net;
mod published;

use std::{
    collections::HashMap,
    ffi::OsStr,
    io::{BufRead, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use agent_protocol::{
    Channel, Failure, GuestInfo, GuestMessage, Header, Hello, HostMessage, Limit, Reply, Request, Role,
    StreamId, decode, encode, encode_frame,
};
use serde::{Serialize, de::DeserializeOwned};
use vmm_api::{Event, ExitReason, MachineConfig, MachineState, Response, Statistics};

/// What all threads of the double share.
pub(crate) struct Machine {
    agent: PathBuf,
    console: PathBuf,
    /// The "guest's" file system: relative paths land here.
    pub(crate) home: PathBuf,
    pub(crate) shares: Arc<folders::Shares>,
    pub(crate) link: Arc<net::Link>,
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
    let shares = Arc::new(folders::Shares::default());
    assert!(config.net, "every machine has a network card");
    let refuses = std::fs::read(&config.kernel).unwrap().starts_with(b"no network");
    let link = Arc::new(net::Link::new(refuses));
    let given = (Arc::clone(&shares), Arc::clone(&link));
    std::thread::spawn(move || control_socket(&listener, &given));
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
        shares,
        link,
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

type Given = (Arc<folders::Shares>, Arc<net::Link>);

fn control_socket(listener: &UnixListener, given: &Given) {
    for stream in listener.incoming() {
        let stream = stream.unwrap();
        let given = given.clone();
        std::thread::spawn(move || attend(&stream, &given));
    }
}

fn attend(stream: &UnixStream, (shares, link): &Given) {
    while let Some((line, descriptor)) = folders::receive_line(stream) {
        let request = serde_json::from_str(&line).unwrap();
        let stops = matches!(request, vmm_api::Request::Stop);
        let answer = match request {
            vmm_api::Request::ShareAdd { share } => shares.add(share, descriptor),
            vmm_api::Request::ShareRemove { name } => shares.remove(&name),
            vmm_api::Request::Shares => Response::Shares {
                shares: shares.statuses(),
            },
            vmm_api::Request::NetLink => link.take(descriptor),
            vmm_api::Request::Status => Response::Status {
                state: MachineState::Running,
                statistics: Statistics::default(),
            },
            _ => Response::Done,
        };
        let mut stream = stream;
        writeln!(stream, "{}", serde_json::to_string(&answer).unwrap()).unwrap();
        if stops {
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
            HostMessage::Welcome(setup) => {
                let missing = setup
                    .folders
                    .iter()
                    .find_map(|folder| folders::attach(machine, folder).err());
                let told = missing.map_or(GuestMessage::Ready, |Failure { message, .. }| {
                    GuestMessage::SetupFailed { what: message }
                });
                send(&mut control, &told);
            }
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
            HostMessage::Owner {
                nonce,
                protocol,
                port,
            } => {
                let owner = Some(net::owner(protocol, port));
                send(&mut control, &GuestMessage::Owner { nonce, owner });
            }
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
        Request::Exec(exec) if exec.argv[0] == b"fake-connect" => net::connect(machine, &exec, &mut stream),
        Request::Connect { port } => published::serve(machine, port, &mut stream),
        Request::Exec(exec) => exec::run(machine, id, &exec, stream),
        files => {
            let reply = files::serve(machine, files, &mut stream);
            send(&mut stream, &reply.unwrap_or_else(Reply::Failed));
        }
    }
}

/// A path of the "guest": its home is `/sessions/NAME`, and relative ones are relative to that.
pub(crate) fn path_in(machine: &Machine, path: &[u8]) -> PathBuf {
    let path = Path::new(OsStr::from_bytes(path));
    match path.strip_prefix("/sessions") {
        Ok(path) => machine.home.join(path.components().skip(1).collect::<PathBuf>()),
        Err(_) => machine.home.join(path),
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
