//! A name server that says what it is told to, and counts who asks.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use hickory_resolver::proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::CNAME},
};
use rustix::event::{PollFd, PollFlags, poll};

pub(crate) struct Dns {
    pub(crate) address: SocketAddr,
    asked: Arc<AtomicUsize>,
    socket: UdpSocket,
}

/// What is said of a name: to the first who asks for version 4, to the second, and so on; the last goes on.
#[derive(Clone)]
pub(crate) enum Says {
    Addresses(Vec<&'static [&'static str]>),
    Alias(&'static str),
    /// ServFail.
    Fails,
    Nothing,
}

impl Dns {
    pub(crate) fn start(names: &[(&str, Says)]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let dns = Dns {
            address: socket.local_addr().unwrap(),
            asked: Arc::clone(&asked),
            socket: socket.try_clone().unwrap(),
        };
        let mut zone: Zone = names
            .iter()
            .map(|(name, says)| (Name::from_ascii(format!("{name}.")).unwrap(), (0, says.clone())))
            .collect();
        thread::spawn(move || {
            let mut packet = [0; 4096];
            // Counted while it is still in the queue: when that is empty, all are counted.
            while socket.peek_from(&mut packet).is_ok() {
                asked.fetch_add(1, Ordering::SeqCst);
                let (len, from) = socket.recv_from(&mut packet).unwrap();
                if let Some(answer) = answer(&mut zone, &packet[..len]) {
                    socket.send_to(&answer, from).unwrap();
                }
            }
        });
        dns
    }

    /// How many packets have come until now.
    pub(crate) fn asked(&self) -> usize {
        let now = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let queued = || {
            let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
            poll(&mut polled, Some(&now)).unwrap() > 0
        };
        while queued() {
            thread::yield_now();
        }
        self.asked.load(Ordering::SeqCst)
    }
}

type Zone = HashMap<Name, (usize, Says)>;

fn answer(zone: &mut Zone, packet: &[u8]) -> Option<Vec<u8>> {
    let mut message = Message::from_vec(packet).unwrap();
    let query = message.queries[0].clone();
    message.metadata.message_type = MessageType::Response;
    message.metadata.recursion_available = true;
    let mut name = query.name().clone();
    name.set_fqdn(true);
    loop {
        let wanted = name.to_lowercase();
        let Some((times, says)) = zone
            .iter_mut()
            .find(|(known, _)| known.to_lowercase() == wanted)
            .map(|(_, says)| says)
        else {
            message.metadata.response_code = ResponseCode::NXDomain;
            break;
        };
        match says {
            Says::Addresses(answers) => {
                let at = (*times).min(answers.len() - 1);
                *times += usize::from(query.query_type() == RecordType::A);
                for address in answers[at] {
                    add(&mut message, &name, query.query_type(), address.parse().unwrap());
                }
                break;
            }
            Says::Alias(to) => {
                let to = Name::from_ascii(format!("{to}.")).unwrap();
                message.add_answer(Record::from_rdata(
                    name.clone(),
                    0,
                    RData::CNAME(CNAME(to.clone())),
                ));
                name = to;
            }
            Says::Fails => {
                message.metadata.response_code = ResponseCode::ServFail;
                break;
            }
            Says::Nothing => return None,
        }
    }
    Some(message.to_vec().unwrap())
}

fn add(message: &mut Message, name: &Name, kind: RecordType, address: IpAddr) {
    let data = RData::from(address);
    if data.record_type() == kind {
        message.add_answer(Record::from_rdata(name.clone(), 0, data));
    }
}
