//! The network: `fake-connect NAME PORT` is a client in the "guest", and the double its cable.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::Mutex,
};

use agent_protocol::{Channel, Exec, Exit, PortOwner, PortProtocol, Reply, Status, Usage};
use egress_policy::{
    HostName, Target,
    link::{FromEgress, Id, MAX_MESSAGE, Protocol, ToEgress, VERSION, decode, encode},
};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    recv, sendmsg, socketpair,
};
use vmm_api::Response;

use crate::{Machine, send, send_data};

/// The port of every client here, so that it can be told whose it is.
const CLIENT_PORT: u16 = 40_000;

/// The link of the moment and the number of the last question on it.
pub(crate) struct Link {
    refuses: bool,
    now: Mutex<Option<(OwnedFd, u64)>>,
}

impl Link {
    pub(crate) fn new(refuses: bool) -> Self {
        let now = Mutex::default();
        Link { refuses, now }
    }

    pub(crate) fn take(&self, link: Option<OwnedFd>) -> Response {
        let refused = |why: &str| Response::Refused { why: why.into() };
        let Some(link) = link.filter(|_| !self.refuses) else {
            return refused(if self.refuses {
                "no card"
            } else {
                "no descriptor came with it"
            });
        };
        say(&link, &ToEgress::Hello { version: VERSION }, None);
        assert_eq!(hear(&link), Some(FromEgress::Hello { version: VERSION }));
        *self.now.lock().unwrap() = Some((link, 0));
        Response::Done
    }

    /// One question and its answer; `None` when nobody is there to answer.
    fn ask(&self, question: impl Fn(Id) -> ToEgress) -> Option<FromEgress> {
        let mut link = self.now.lock().unwrap();
        let (link, last) = link.as_mut()?;
        *last += 1;
        let question = question(Id(*last));
        let opens = matches!(question, ToEgress::Open { .. });
        let pair = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        say(link, &question, opens.then_some(&pair.1));
        drop(pair.1);
        hear(link)
    }
}

fn say(link: &OwnedFd, message: &ToEgress, beside: Option<&OwnedFd>) {
    let bytes = encode(message).unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = beside.iter().map(|fd| fd.as_fd()).collect();
    if !descriptors.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
    }
    // One that is gone is found when it is heard.
    let _ = sendmsg(
        link,
        &[std::io::IoSlice::new(&bytes)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    );
}

fn hear(link: &OwnedFd) -> Option<FromEgress> {
    let mut bytes = [0; MAX_MESSAGE];
    let (_, len) = recv(link, &mut bytes[..], RecvFlags::empty()).ok()?;
    decode(&bytes[..len])
}

/// Asks for the name, then for a connection, as a client would; says what came of it and fails when nothing did.
pub(crate) fn connect(machine: &Machine, exec: &Exec, stream: &mut std::os::unix::net::UnixStream) {
    let word = |at: usize| String::from_utf8(exec.argv[at].clone()).unwrap();
    let (name, port): (HostName, u16) = (word(1).try_into().unwrap(), word(2).parse().unwrap());
    let asked = machine.link.ask(|id| ToEgress::Name {
        id,
        name: name.clone(),
        protocol: Protocol::Udp,
        port: CLIENT_PORT,
    });
    let said = match asked {
        Some(FromEgress::Name { allowed: true, .. }) => open(machine, &name, port),
        Some(FromEgress::Name { .. }) => "no such name",
        _ => "no network",
    };
    send(stream, &Reply::Started { pid: 1 });
    let _ = send_data(stream, Channel::Stdout, format!("{said}\n").as_bytes());
    send(
        stream,
        &Reply::Exited(Exit {
            status: Status::Code(i32::from(said != "opened")),
            timed_out: false,
            out_of_memory: false,
            usage: Usage::default(),
        }),
    );
}

fn open(machine: &Machine, name: &HostName, port: u16) -> &'static str {
    let answer = machine.link.ask(|id| ToEgress::Open {
        id,
        source: CLIENT_PORT,
        target: Target::Name(name.clone()),
        port,
    });
    match answer {
        Some(FromEgress::Opened { .. }) => "opened",
        Some(FromEgress::Refused { .. }) => "refused",
        _ => "no network",
    }
}

/// A name that would move the cursor, were it printed as it is.
pub(crate) fn owner(_: PortProtocol, port: u16) -> PortOwner {
    assert_eq!(port, CLIENT_PORT);
    PortOwner {
        pid: 7,
        argv: vec![b"fake-connect".to_vec(), b"\x1b[2J".to_vec()],
        operation: None,
    }
}
