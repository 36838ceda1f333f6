use egress_policy::{Reason, control::What};

use crate::{
    dns::{Dns, Says},
    machine::{Machine, name, with_dns},
    servers::{Server, closed_port, echo},
};

#[test]
fn a_denied_name_sends_nothing_at_all() {
    let dns = Dns::start(&[("denied.test", Says::Addresses(vec![&["127.0.0.1"]]))]);
    let server = Server::start(echo);
    let mut machine = Machine::start(&with_dns(&["allowed.test", "127.0.0.1"], dns.address));
    assert!(!machine.ask_name("denied.test"));
    assert_eq!(machine.refused(name("denied.test"), server.port), Reason::NoRule);
    let record = machine.told_refused(Reason::NoRule);
    assert_eq!(record.target, Some(name("denied.test")));
    assert_eq!(dns.asked(), 0);
    assert_eq!(server.came(), 0);
}

#[test]
fn an_allowed_name_is_not_resolved_before_it_is_connected_to() {
    let dns = Dns::start(&[("allowed.test", Says::Addresses(vec![&["127.0.0.1"]]))]);
    let mut machine = Machine::start(&with_dns(&["allowed.test"], dns.address));
    assert!(machine.ask_name("allowed.test"));
    let record = machine.record(|record| matches!(record.what, What::Named { .. }));
    assert_eq!(
        (record.target, record.source),
        (Some(name("allowed.test")), Some(5353))
    );
    assert_eq!(dns.asked(), 0);
}

#[test]
fn a_name_asked_again_and_again_is_told_once_and_refusals_are_counted() {
    let mut machine = Machine::start(&with_dns(&["allowed.test"], "127.0.0.1:9".parse().unwrap()));
    for _ in 0..50 {
        assert!(machine.ask_name("allowed.test"));
        assert!(!machine.ask_name("denied.test"));
    }
    let counted = |record: &egress_policy::control::Record| match record.what {
        What::Refused { count, .. } => count,
        _ => 0,
    };
    machine.record(|record| counted(record) == 1);
    machine.record(|record| counted(record) == 49);
    let named = machine
        .seen
        .iter()
        .filter(|event| format!("{event:?}").contains("Named"))
        .count();
    assert_eq!(named, 1);
}

#[test]
fn a_name_that_does_not_exist_has_no_address() {
    let dns = Dns::start(&[("empty.test", Says::Addresses(vec![&[]]))]);
    let mut machine = Machine::start(&with_dns(&["*.test"], dns.address));
    assert_eq!(machine.refused(name("none.test"), 443), Reason::NoAddress);
    assert_eq!(machine.refused(name("empty.test"), 443), Reason::NoAddress);
    assert!(dns.asked() > 0);
}

#[test]
fn a_resolver_that_fails_or_is_dead_is_told_from_a_name_without_address() {
    let dns = Dns::start(&[("fails.test", Says::Fails), ("silence.test", Says::Nothing)]);
    let mut machine = Machine::start(&with_dns(&["*.test"], dns.address));
    assert_eq!(machine.refused(name("fails.test"), 443), Reason::Resolver);
    assert_eq!(machine.refused(name("silence.test"), 443), Reason::Resolver);
    let nobody = format!("127.0.0.1:{}", closed_port()).parse().unwrap();
    let mut machine = Machine::start(&with_dns(&["*.test"], nobody));
    assert_eq!(machine.refused(name("a.test"), 443), Reason::Resolver);
}

#[test]
fn a_host_without_name_servers_says_so_at_once() {
    let mut machine = Machine::start(&crate::machine::with_hosts(&["*.test"], &[]));
    assert_eq!(machine.refused(name("a.test"), 443), Reason::Resolver);
}
