//! What an allowed name may lead to.

use std::net::{IpAddr, UdpSocket};

use egress_policy::{Reason, control::What};

use crate::{
    dns::{Dns, Says},
    machine::{Machine, address, name, with_dns, with_hosts},
    servers::{Server, echo},
};

fn leading_to(address: &'static str) -> Says {
    let answer: &'static [&'static str] = Box::leak(Box::new([address]));
    Says::Addresses(vec![answer])
}

#[test]
fn an_allowed_name_that_leads_to_a_special_address_is_refused_with_what_it_is() {
    let table = [
        ("loopback.test", "127.0.0.1", Reason::Loopback),
        ("loopback6.test", "::1", Reason::Loopback),
        ("mapped.test", "::ffff:127.0.0.1", Reason::Loopback),
        ("metadata.test", "169.254.169.254", Reason::Metadata),
        ("private.test", "10.1.2.3", Reason::Private),
        ("local6.test", "fd00::1", Reason::Private),
        ("link.test", "169.254.1.1", Reason::LinkLocal),
        ("carrier.test", "100.64.0.1", Reason::CarrierNat),
        ("multicast.test", "224.0.0.1", Reason::Multicast),
        ("nowhere.test", "0.0.0.0", Reason::Unspecified),
    ];
    let names: Vec<_> = table
        .iter()
        .map(|(name, address, _)| (*name, leading_to(address)))
        .collect();
    let dns = Dns::start(&names);
    let server = Server::start(echo);
    let mut machine = Machine::start(&with_dns(&["*.test"], dns.address));
    for (text, leads_to, reason) in table {
        assert_eq!(machine.refused(name(text), server.port), reason, "{text}");
        let told = machine.record(|record| record.target == Some(name(text)));
        let What::Refused { address, rule, .. } = told.what else {
            panic!("{told:?}");
        };
        assert_eq!(address, Some(leads_to.parse::<IpAddr>().unwrap().to_canonical()));
        assert_eq!(rule.as_deref(), Some("*.test"));
    }
    assert_eq!(server.came(), 0);
}

#[test]
fn an_alias_of_an_allowed_name_to_a_metadata_service_is_refused() {
    let dns = Dns::start(&[
        ("allowed.test", Says::Alias("middle.test")),
        ("middle.test", Says::Alias("metadata.test")),
        ("metadata.test", leading_to("169.254.169.254")),
    ]);
    let mut machine = Machine::start(&with_dns(&["allowed.test"], dns.address));
    assert_eq!(machine.refused(name("allowed.test"), 80), Reason::Metadata);
}

/// The address that this host sends from; no packet leaves for finding it.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    match socket.connect("198.51.100.1:9") {
        Ok(()) => socket.local_addr().unwrap().ip(),
        Err(_) => "127.0.0.1".parse().unwrap(),
    }
}

#[test]
fn an_allowed_name_that_leads_to_this_host_is_refused() {
    let own = own_address();
    let server = Server::at(own, 0, echo);
    let mut config = with_hosts(&["host.test"], &[]);
    config.resolver.hosts = vec![(own, vec!["host.test".to_owned()])];
    let mut machine = Machine::start(&config);
    let reason = machine.refused(name("host.test"), server.port);
    assert!(
        matches!(
            reason,
            Reason::ThisHost | Reason::Private | Reason::Loopback | Reason::CarrierNat | Reason::Reserved
        ),
        "{reason:?}"
    );
    assert_eq!(server.came(), 0);
}

#[test]
fn a_range_opens_what_names_lead_to_on_its_ports_only() {
    let dns = Dns::start(&[("a.test", leading_to("127.0.0.1"))]);
    let (server, other) = (Server::start(echo), Server::start(echo));
    let range = format!("127.0.0.1:{}", server.port);
    let mut machine = Machine::start(&with_dns(&["a.test", &range], dns.address));
    machine.open(name("a.test"), server.port).unwrap();
    assert_eq!(machine.refused(name("a.test"), other.port), Reason::Loopback);
    assert_eq!(other.came(), 0);
}

/// Says one address first and another when asked again. Each connection is to what was checked for it.
#[test]
fn a_name_that_changes_its_mind_is_checked_each_time() {
    let dns = Dns::start(&[("a.test", Says::Addresses(vec![&["127.0.0.1"], &["127.0.0.2"]]))]);
    let good = Server::start(echo);
    let bad = Server::at("127.0.0.2".parse().unwrap(), good.port, echo);
    let mut machine = Machine::start(&with_dns(&["a.test", "127.0.0.1"], dns.address));
    machine.open(name("a.test"), good.port).unwrap();
    assert_eq!(dns.asked(), 2, "once for each family, and never again");
    assert_eq!(machine.refused(name("a.test"), good.port), Reason::Loopback);
    assert_eq!((good.came(), bad.came()), (1, 0));
}

#[test]
fn bad_addresses_among_good_ones_are_skipped_and_told() {
    let dns = Dns::start(&[(
        "a.test",
        Says::Addresses(vec![&["169.254.169.254", "127.0.0.3", "127.0.0.1"]]),
    )]);
    let server = Server::start(echo);
    let bad = Server::at("127.0.0.3".parse().unwrap(), server.port, echo);
    let mut machine = Machine::start(&with_dns(&["a.test", "127.0.0.1"], dns.address));
    machine.open(name("a.test"), server.port).unwrap();
    machine.told_refused(Reason::Metadata);
    machine.told_refused(Reason::Loopback);
    assert_eq!((server.came(), bad.came()), (1, 0));
}

#[test]
fn the_second_address_is_tried_when_the_first_refuses() {
    let dns = Dns::start(&[("a.test", Says::Addresses(vec![&["127.0.0.2", "127.0.0.1"]]))]);
    let server = Server::start(echo);
    let mut machine = Machine::start(&with_dns(&["a.test", "127.0.0.0/8"], dns.address));
    machine.open(name("a.test"), server.port).unwrap();
    let opened = machine.record(|record| matches!(record.what, What::Opened { .. }));
    let What::Opened { address, rule, .. } = opened.what else {
        panic!("{opened:?}");
    };
    assert_eq!((address, rule.as_str()), ("127.0.0.1".parse().unwrap(), "a.test"));
}

#[test]
fn an_address_somebody_asks_for_needs_a_range() {
    let server = Server::start(echo);
    let mut machine = Machine::start(&with_hosts(&["*"], &[]));
    assert_eq!(
        machine.refused(address("127.0.0.1"), server.port),
        Reason::Loopback
    );
    assert_eq!(
        machine.refused(address("::ffff:127.0.0.1"), server.port),
        Reason::Loopback
    );
    assert_eq!(machine.refused(address("192.0.2.1"), 443), Reason::NoRule);
    machine.change(crate::machine::allow(&["127.0.0.1"]));
    let opened = (0..1000).any(|_| machine.open(address("127.0.0.1"), server.port).is_ok());
    assert!(opened);
}
