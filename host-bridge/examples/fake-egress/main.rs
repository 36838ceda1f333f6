//! `coffer-egress` without a network: decides with the real rules, opens nothing, carries nothing. What it is told it
//! appends to `egress.heard` beside the folder its program is in; a file `egress.fault` there makes it misbehave.
#![allow(
    clippy::unwrap_used,
    reason = "a test double: whatever goes wrong is the test's failure"
)]
#![allow(unsafe_code, reason = "the link is a number it was started with")]

use std::{
    fs::{self, OpenOptions},
    io::{BufRead, Write},
    net::{IpAddr, Ipv4Addr},
    os::fd::{FromRawFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use egress_policy::{
    EgressPolicy, Reason, Target, Verdict,
    control::{Config, End, Event, LINK_DESCRIPTOR, Record, Request, What},
    link::{FromEgress, Id, MAX_MESSAGE, Protocol, ToEgress, VERSION, decode, encode},
};
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// What every flow here carries, either way.
const CARRIED: u64 = 1000;

fn main() {
    let mut lines = std::io::stdin().lock().lines();
    let line = lines.next().unwrap().unwrap();
    note(&line);
    match fs::read_to_string(beside("egress.fault")).as_deref() {
        Ok("die") => std::process::exit(3),
        Ok("fail") => {
            event(&Event::Failed {
                why: "no \x1b[31msockets".into(),
            });
            std::process::exit(1);
        }
        _ => {}
    }
    let config: Config = serde_json::from_str(&line).unwrap();
    let policy = Arc::new(Mutex::new(config.policy));
    // SAFETY: it was opened for us, and nobody else here uses it.
    let link = unsafe { OwnedFd::from_raw_fd(LINK_DESCRIPTOR) };
    tell(&link, &FromEgress::Hello { version: VERSION });
    event(&Event::Ready);
    let decides = Arc::clone(&policy);
    std::thread::spawn(move || serve(&link, &decides));
    for line in lines {
        let line = line.unwrap();
        note(&line);
        if let Request::Policy { policy: changed } = serde_json::from_str(&line).unwrap() {
            *policy.lock().unwrap() = changed;
            event(&Event::Ready);
        }
    }
}

fn beside(file: &str) -> PathBuf {
    let program = fs::read_link("/proc/self/exe").unwrap();
    program.parent().unwrap().with_file_name(file)
}

fn note(line: &str) {
    let mut options = OpenOptions::new();
    let mut heard = options
        .create(true)
        .append(true)
        .open(beside("egress.heard"))
        .unwrap();
    heard.write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn event(event: &Event) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(event).unwrap()).unwrap();
    out.flush().unwrap();
}

fn tell(link: &OwnedFd, message: &FromEgress) {
    // A machine that is gone is no failure.
    let _ = send(link, &encode(message).unwrap(), SendFlags::NOSIGNAL);
}

fn serve(link: &OwnedFd, policy: &Mutex<EgressPolicy>) {
    let mut bytes = [0; MAX_MESSAGE];
    while let Ok((_, len @ 1..)) = recv(link, &mut bytes[..], RecvFlags::empty()) {
        let policy = policy.lock().unwrap().clone();
        match decode(&bytes[..len]).unwrap() {
            ToEgress::Hello { .. } | ToEgress::Dropped(_) => {}
            ToEgress::Name { id, name, port, .. } => {
                let (target, asked) = (Target::Name(name.clone()), policy.decide_name(&name));
                let allowed = matches!(asked, Verdict::Allow(_));
                if let Some(refused) = refused(&asked) {
                    record(Protocol::Udp, port, &target, None, refused);
                }
                tell(link, &FromEgress::Name { id, allowed });
            }
            ToEgress::Open {
                id,
                source,
                target,
                port,
            } => open(link, &policy, id, source, &target, port),
        }
    }
}

fn open(link: &OwnedFd, policy: &EgressPolicy, flow: Id, source: u16, target: &Target, port: u16) {
    let tell_of = |what| record(Protocol::Tcp, source, target, Some(port), what);
    match policy.decide(target, port) {
        Verdict::Allow(rule) => {
            tell_of(What::Opened {
                flow,
                address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
                rule: rule.to_string(),
            });
            tell_of(What::Closed {
                flow,
                sent: CARRIED,
                received: CARRIED,
                end: End::Done,
            });
            tell(link, &FromEgress::Opened { id: flow });
        }
        verdict => {
            tell_of(refused(&verdict).unwrap());
            let reason = Reason::NoRule;
            tell(link, &FromEgress::Refused { id: flow, reason });
        }
    }
}

fn refused(verdict: &Verdict<'_>) -> Option<What> {
    let (reason, rule) = match verdict {
        Verdict::Allow(_) => return None,
        Verdict::Ask => (Reason::NobodyToAsk, None),
        Verdict::Refuse(reason, rule) => (*reason, rule.map(ToString::to_string)),
    };
    Some(What::Refused {
        reason,
        rule,
        address: None,
        count: 1,
    })
}

fn record(protocol: Protocol, source: u16, target: &Target, port: Option<u16>, what: What) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    event(&Event::Record(Record {
        unix_ms: u64::try_from(since.as_millis()).unwrap(),
        source: Some(source),
        protocol,
        target: Some(target.clone()),
        port,
        what,
    }));
}
