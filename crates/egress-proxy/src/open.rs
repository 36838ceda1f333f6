//! From an allowed question to a connection that stands, and on to its end.

use std::{io, net::IpAddr, rc::Rc, time::Duration};

use egress_policy::{
    Reason, Target,
    control::{End, What},
    link::FromEgress,
};
use rustix::net::sockopt::{set_socket_linger, set_socket_send_buffer_size};
use tokio::{io::Interest, net::UnixStream, time::timeout};

use crate::{
    connect::connect,
    flow::{Connected, Live, Stop, carry},
    limits::{GUEST_BUFFER, OPEN_DEADLINE},
    session::{Refusal, Session},
};

/// The life of one flow.
pub(crate) async fn run(session: Rc<Session>, live: Rc<Live>, guest: UnixStream, rule: String) {
    let opened = tokio::select! {
        biased;
        ended = live.until_cut() => Err(ended.reason.into()),
        () = gone(&guest) => Err(Reason::TimedOut.into()),
        opened = timeout(OPEN_DEADLINE, far_end(&session, &live, &rule)) => {
            opened.unwrap_or_else(|_| Err(Reason::TimedOut.into()))
        }
    };
    match opened {
        Ok(connected) => stand(&session, &live, guest, connected, rule).await,
        Err(refusal) => {
            session.budget.return_connection();
            let rule = refusal.rule.or(Some(rule));
            session.refuse(&live, Refusal { rule, ..refusal });
        }
    }
    session.flows.remove(live.id);
}

/// Ends when the machine closes its end. What it says before it hears that the flow stands waits.
async fn gone(guest: &UnixStream) {
    while let Ok(ready) = guest.ready(Interest::READABLE).await {
        if ready.is_read_closed() {
            return;
        }
        let spoken = guest.try_io(Interest::READABLE, || {
            let mut byte = [0];
            let peek = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
            Ok(rustix::net::recv(guest, &mut byte, peek)?.0)
        });
        match spoken {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => std::future::pending().await,
        }
    }
}

async fn far_end(session: &Session, live: &Live, rule: &str) -> Result<Connected, Refusal> {
    let own = session.own.now()?;
    let asked = Asked {
        session,
        live,
        rule,
        own: &own,
    };
    let connected = match session.upstream.route(&live.target, live.port) {
        Some(proxy) => proxy?.connect(asked).await?,
        None => direct(asked).await?,
    };
    if !connected.through_proxy {
        let _ = live.address.set(connected.address);
    }
    // The policy may have changed meanwhile.
    session.still_allowed(live, &own)?;
    Ok(connected)
}

/// What is asked for, and what it is held against.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) session: &'a Session,
    pub(crate) live: &'a Live,
    pub(crate) rule: &'a str,
    /// The addresses of this host.
    pub(crate) own: &'a [IpAddr],
}

async fn direct(asked: Asked<'_>) -> Result<Connected, Refusal> {
    let Asked { session, live, .. } = asked;
    let addresses = match &live.target {
        Target::Address(address) => vec![address.to_canonical()],
        Target::Name(name) => session.resolver().addresses(name.as_str()).await?,
    };
    let addresses = asked.checked(addresses)?;
    let (stream, address) = connect(&addresses, live.port).await?;
    Ok(Connected {
        stream,
        address,
        through_proxy: false,
        early: Vec::new(),
        urls: None,
    })
}

impl Asked<'_> {
    /// Those that may be connected to; the others are told.
    pub(crate) fn checked(self, addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>, Refusal> {
        let Asked { session, live, .. } = self;
        let policy = session.policy();
        let mut refused = Vec::new();
        let mut good = Vec::new();
        for address in addresses {
            match policy.decide_address(address, live.port, self.own) {
                Ok(()) => good.push(address),
                Err(reason) => refused.push((address, reason)),
            }
        }
        // Of a name that leads nowhere else, the first is told with the answer.
        let mut refused = refused.into_iter();
        let first = if good.is_empty() { refused.next() } else { None };
        for (address, reason) in refused {
            let rule = Some(self.rule.to_owned());
            session
                .records
                .refused(live.subject(), reason, rule, Some(address));
        }
        match first {
            Some((address, reason)) => Err(Refusal {
                address: Some(address),
                ..Refusal::from(reason)
            }),
            None if good.is_empty() => Err(Reason::NoAddress.into()),
            None => Ok(good),
        }
    }
}

async fn stand(session: &Session, live: &Live, guest: UnixStream, connected: Connected, rule: String) {
    // The kernel's own size does, only slower.
    let _ = set_socket_send_buffer_size(&guest, GUEST_BUFFER);
    // Whatever ends before its time, this process with it, ends with a reset: nobody takes half for the whole.
    let _ = set_socket_linger(&connected.stream, Some(Duration::ZERO));
    live.open();
    session.link.send(&FromEgress::Opened { id: live.id });
    let opened = What::Opened {
        flow: live.id,
        address: connected.address,
        rule,
    };
    session.records.flow(live.subject(), opened);
    let carried = carry(session, live, &guest, &connected).await;
    let end = carried.map_or_else(Stop::end, |()| End::Done);
    if let Err(Stop::Refused(reason)) = carried {
        session.records.refused(live.subject(), reason, None, None);
    }
    let closed = What::Closed {
        flow: live.id,
        sent: live.sent.get(),
        received: live.received.get(),
        end,
    };
    session.records.flow(live.subject(), closed);
    match carried {
        Ok(()) => {
            let _ = set_socket_linger(&connected.stream, None);
        }
        Err(_) => session
            .link
            .send_then_close(&FromEgress::Broken { id: live.id }, Some(guest)),
    }
}
