//! Policies that change.

use std::io::{Read, Write};

use egress_policy::{
    Reason, Unknown,
    control::{End, Request, ResolverConfig},
};

use crate::{
    machine::{Machine, address, allow, name, with_hosts},
    servers::{Server, echo},
};

#[test]
fn a_rule_that_changes_cuts_what_it_allowed_and_nothing_else() {
    let server = Server::start(echo);
    let mut machine = Machine::start(&with_hosts(
        &["a.test", "b.test", "127.0.0.1"],
        &["a.test", "b.test"],
    ));
    let (cut, mut guest) = machine.open(name("a.test"), server.port).unwrap();
    let (_, mut stays) = machine.open(name("b.test"), server.port).unwrap();
    machine.change(allow(&["*.test", "!a.test", "127.0.0.1"]));
    machine.broken(cut);
    assert_eq!(machine.closed(cut).0, End::Cut);
    assert_eq!(guest.read(&mut [0]).unwrap_or(0), 0);
    assert_eq!(machine.refused(name("a.test"), server.port), Reason::Denied);
    stays.write_all(b"still here\n").unwrap();
    let mut said = [0; 11];
    stays.read_exact(&mut said).unwrap();
}

#[test]
fn a_rule_about_an_address_cuts_what_a_name_led_to() {
    let server = Server::start(echo);
    let mut machine = Machine::start(&with_hosts(&["a.test", "127.0.0.1"], &["a.test"]));
    let (cut, _guest) = machine.open(name("a.test"), server.port).unwrap();
    machine.change(allow(&["a.test"]));
    machine.broken(cut);
    assert_eq!(machine.closed(cut).0, End::Cut);
}

#[test]
fn what_somebody_would_be_asked_about_is_refused_while_nobody_can_be() {
    let mut config = with_hosts(&["a.test"], &[]);
    config.policy.unknown = Unknown::Ask;
    let mut machine = Machine::start(&config);
    assert!(!machine.ask_name("b.test"));
    assert_eq!(machine.refused(name("b.test"), 443), Reason::NobodyToAsk);
    assert_eq!(machine.refused(address("192.0.2.1"), 443), Reason::NobodyToAsk);
}

#[test]
fn a_resolver_can_be_exchanged() {
    let server = Server::start(echo);
    let mut machine = Machine::start(&with_hosts(&["a.test", "127.0.0.1"], &[]));
    assert_eq!(machine.refused(name("a.test"), server.port), Reason::Resolver);
    let resolver = ResolverConfig {
        nameservers: Vec::new(),
        hosts: vec![("127.0.0.1".parse().unwrap(), vec!["a.test".to_owned()])],
    };
    machine.write(&Request::Resolver { resolver });
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while machine.open(name("a.test"), server.port).is_err() {
        assert!(std::time::Instant::now() < deadline);
    }
}

#[test]
fn with_no_rule_there_is_no_way_out() {
    let server = Server::start(echo);
    let mut machine = Machine::start(&with_hosts(&[], &["a.test"]));
    assert!(!machine.ask_name("a.test"));
    assert_eq!(machine.refused(name("a.test"), server.port), Reason::NoRule);
    assert_eq!(machine.refused(address("192.0.2.1"), server.port), Reason::NoRule);
    assert_eq!(server.came(), 0);
}
