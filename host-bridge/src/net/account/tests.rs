use egress_policy::{Reason, control::End, link::DropReason};

use super::*;
use crate::net::journal::By;

fn entry(link: u32, port: Option<u16>, what: What) -> Line {
    let target = Target::Name("a.test".to_owned().try_into().unwrap());
    Line::Entry(Box::new(Entry {
        record: Record {
            unix_ms: u64::from(link),
            source: None,
            protocol: Protocol::Tcp,
            target: Some(target),
            port,
            what,
        },
        link,
        by: Some(By {
            pid: Some(3),
            command: "curl a.test".to_owned(),
        }),
    }))
}

fn opened(link: u32, flow: u64, address: [u8; 4]) -> Line {
    let what = What::Opened {
        flow: Id(flow),
        address: address.into(),
        rule: "a.test".to_owned(),
    };
    entry(link, Some(443), what)
}

fn closed(link: u32, flow: u64, sent: u64) -> Line {
    let what = What::Closed {
        flow: Id(flow),
        sent,
        received: 1,
        end: End::Done,
    };
    entry(link, Some(443), what)
}

fn carried(link: u32, flow: u64, sent: u64) -> Line {
    let what = What::Carried {
        flow: Id(flow),
        sent,
        received: 1,
    };
    entry(link, Some(443), what)
}

fn account(lines: Vec<Line>) -> Account {
    let mut account = Account::default();
    lines.into_iter().for_each(|line| account.add(line));
    account
}

#[test]
fn connections_to_one_place_are_one_row_with_what_they_carried() {
    let near = [192, 0, 2, 1];
    let account = account(vec![
        opened(1, 1, near),
        opened(1, 2, near),
        opened(1, 3, [192, 0, 2, 2]),
        carried(1, 1, 10),
        carried(1, 1, 20),
        closed(1, 1, 30),
        carried(1, 2, 5),
        // Another process, another flow of the same number.
        opened(2, 1, near),
        closed(2, 1, 7),
    ]);
    let row = &account.reached[0];
    assert_eq!(
        (row.what.as_str(), row.connections, row.sent, row.received),
        ("a.test:443", 3, 42, 3)
    );
    assert_eq!((row.last_unix_ms, row.by.as_deref()), (2, Some("curl a.test")));
    assert_eq!(account.reached.len(), 2);
    assert_eq!((account.spent().bytes, account.spent().connections), (45, 4));
}

#[test]
fn a_flow_whose_beginning_is_lost_still_counts_for_its_place() {
    let account = account(vec![closed(1, 9, 30)]);
    assert_eq!((account.reached[0].sent, account.reached[0].connections), (30, 0));
}

#[test]
fn refusals_of_one_place_for_one_reason_are_one_row_with_the_rule_that_would_help() {
    let refused = |port, reason, count| {
        let what = What::Refused {
            reason,
            rule: None,
            address: None,
            count,
        };
        entry(1, port, what)
    };
    let account = account(vec![
        refused(None, Reason::NoRule, 1),
        refused(None, Reason::NoRule, 4),
        refused(Some(80), Reason::OtherHost, 1),
        entry(
            1,
            None,
            What::Dropped {
                reason: DropReason::Unnamed,
                count: 2,
            },
        ),
    ]);
    let rows: Vec<_> = account
        .refused
        .iter()
        .map(|row| (row.what.as_str(), row.times, row.rule.as_deref()))
        .collect();
    assert_eq!(
        rows,
        [
            ("a.test", 5, Some("a.test")),
            ("a.test:80", 1, None),
            ("a.test", 2, None)
        ]
    );
}

#[test]
fn an_address_is_written_so_that_its_port_can_be_told() {
    let address: IpAddr = "2001:db8::1".parse().unwrap();
    assert_eq!(place(&Target::Address(address), Some(22)), "[2001:db8::1]:22");
    assert_eq!(
        place(&Target::Address([192, 0, 2, 1].into()), Some(22)),
        "192.0.2.1:22"
    );
}
