use egress_policy::{
    Reason,
    control::{End, Record},
    link::DropReason,
};

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

fn account(lines: &[Line]) -> Account {
    let mut account = Account::default();
    lines.iter().for_each(|line| account.add(line));
    account
}

#[test]
fn connections_to_one_place_are_one_row_with_what_they_carried() {
    let near = [192, 0, 2, 1];
    let account = account(&[
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
    let row = &account.reached()[0];
    assert_eq!(
        (
            what(&row.subject).as_str(),
            row.connections,
            row.sent,
            row.received
        ),
        ("a.test:443", 3, 42, 3)
    );
    let by = row.by.as_ref().map(By::text);
    assert_eq!((row.unix_ms, by.as_deref()), (2, Some("curl a.test")));
    assert_eq!(account.reached().len(), 2);
    assert_eq!((account.spent().bytes, account.spent().connections), (45, 4));
}

#[test]
fn a_flow_whose_beginning_is_lost_still_counts_for_its_place() {
    let account = account(&[closed(1, 9, 30)]);
    let row = &account.reached()[0];
    assert_eq!((row.sent, row.connections), (30, 0));
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
    let account = account(&[
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
        .refused()
        .iter()
        .map(|row| (what(&row.subject), row.count, helping_rule(row)))
        .collect();
    let row = |what: &str, count, rule: Option<&str>| (what.to_owned(), count, rule.map(str::to_owned));
    assert_eq!(
        rows,
        [
            row("a.test", 5, Some("a.test")),
            row("a.test:80", 1, None),
            row("a.test", 2, None)
        ]
    );
}

#[test]
fn the_rule_that_denies_is_told_and_one_that_allowed_the_name_before_is_not() {
    let refused = |address: Option<IpAddr>| {
        let what = What::Refused {
            reason: Reason::Denied,
            rule: Some("*.test".to_owned()),
            address,
            count: 1,
        };
        entry(1, Some(443), what)
    };
    let account = account(&[refused(None), refused(Some([192, 0, 2, 1].into()))]);
    let rules: Vec<_> = account.refused().iter().map(|row| row.rule.as_deref()).collect();
    assert_eq!(rules, [Some("*.test"), None]);
}

/// What is counted does not depend on how often it was summed up in between.
#[test]
fn totals_and_what_comes_after_them_come_to_the_same_as_all_lines() {
    let near = [192, 0, 2, 1];
    let refused = What::Refused {
        reason: Reason::Denied,
        rule: Some("a.test".to_owned()),
        address: None,
        count: 3,
    };
    let lines = vec![
        opened(1, 1, near),
        carried(1, 1, 20),
        entry(1, None, refused),
        closed(1, 1, 30),
        opened(1, 2, near),
        carried(1, 2, 5),
        carried(1, 2, 9),
        opened(2, 1, near),
        closed(2, 1, 7),
        closed(2, 9, 100),
    ];
    let all = account(&lines);
    for turn in 0..=lines.len() {
        let mut account = account(&lines[..turn]);
        let mut again = Account::default();
        let totals = account.totals();
        let rest = totals.iter().chain(&lines[turn..]);
        rest.for_each(|line| again.add(line));
        assert_eq!((again.reached(), again.refused()), (all.reached(), all.refused()));
        assert_eq!(again.spent(), all.spent());
    }
}

#[test]
fn rows_that_are_too_many_are_one_and_what_carried_most_keeps_its_own() {
    let place = |port, flow, sent| {
        let address = [192, 0, 2, 1].into();
        let rule = "a.test".to_owned();
        let flow = Id(flow);
        let opened = What::Opened { flow, address, rule };
        let closed = What::Closed {
            flow,
            sent,
            received: 1,
            end: End::Done,
        };
        [entry(1, Some(port), opened), entry(1, Some(port), closed)]
    };
    let mut lines: Vec<Line> = (1..=2000).flat_map(|n| place(n, u64::from(n), 10)).collect();
    lines.extend(place(5000, 5000, 1 << 30));
    let mut account = account(&lines);
    let spent = account.spent();
    let mut again = Account::default();
    account.totals().iter().for_each(|line| again.add(line));
    assert_eq!(again.reached().len(), rows::MAX_REACHED);
    assert_eq!(
        (
            what(&again.reached()[0].subject).as_str(),
            again.reached()[0].sent
        ),
        ("a.test:5000", 1 << 30)
    );
    assert_eq!((again.others().connections, again.others().sent), (1001, 10_010));
    assert_eq!(again.spent(), spent);
    // What still carries has its row again.
    again.add(&place(1999, 1999, 10)[0]);
    assert_eq!(again.reached().len(), rows::MAX_REACHED + 1);
}

#[test]
fn refusals_that_are_too_many_push_out_nothing_that_was_reached() {
    let refused = |n: u64| {
        let what = What::Refused {
            reason: Reason::NoRule,
            rule: None,
            address: Some(std::net::Ipv6Addr::from(u128::from(n)).into()),
            count: 2,
        };
        entry(1, None, what)
    };
    let mut lines = vec![opened(1, 1, [192, 0, 2, 1])];
    lines.extend((0..5000).map(refused));
    let mut account = account(&lines);
    let mut again = Account::default();
    account.totals().iter().for_each(|line| again.add(line));
    assert_eq!(
        (again.reached().len(), again.refused().len()),
        (1, rows::MAX_REFUSED)
    );
    let told: u64 = again.refused().iter().map(|row| row.count).sum();
    assert_eq!(told + again.others().refused, 10_000);
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
