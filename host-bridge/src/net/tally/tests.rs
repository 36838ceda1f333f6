use std::net::IpAddr;

use egress_policy::{control::End, link::Protocol};

use super::*;

fn record(name: &str, what: What) -> Record {
    Record {
        unix_ms: 1,
        source: None,
        protocol: Protocol::Tcp,
        target: Some(Target::Name(name.to_owned().try_into().unwrap())),
        port: Some(443),
        what,
    }
}

fn opened(flow: u64) -> Record {
    let what = What::Opened {
        flow: Id(flow),
        address: IpAddr::from([192, 0, 2, 1]),
        rule: String::new(),
    };
    record("a.test", what)
}

fn carried(flow: u64, sent: u64) -> Record {
    let what = What::Carried {
        flow: Id(flow),
        sent,
        received: 1,
    };
    record("a.test", what)
}

fn closed(flow: u64, sent: u64) -> Record {
    let what = What::Closed {
        flow: Id(flow),
        sent,
        received: 1,
        end: End::Done,
    };
    record("a.test", what)
}

fn spent(tally: &Tally) -> (u64, u64) {
    (tally.spent().bytes, tally.spent().connections)
}

#[test]
fn bytes_of_a_flow_count_once_however_often_they_are_told() {
    let mut tally = Tally::new(Spent {
        bytes: 1000,
        connections: 5,
    });
    for told in [opened(1), carried(1, 10), carried(1, 20)] {
        tally.count(&told);
    }
    assert_eq!(spent(&tally), (1021, 6));
    tally.count(&closed(1, 30));
    assert_eq!(spent(&tally), (1031, 6));
}

#[test]
fn a_process_that_dies_leaves_what_its_flows_had_carried_spent() {
    let mut tally = Tally::default();
    for told in [opened(1), carried(1, 10)] {
        tally.count(&told);
    }
    tally.process_gone();
    // The next one numbers its flows from the start.
    for told in [opened(1), carried(1, 5)] {
        tally.count(&told);
    }
    assert_eq!(spent(&tally), (17, 2));
}

#[test]
fn numbers_that_cannot_be_are_no_reason_to_fall_over() {
    let mut tally = Tally::default();
    for told in [
        opened(1),
        carried(1, u64::MAX),
        closed(1, u64::MAX),
        closed(2, u64::MAX),
    ] {
        tally.count(&told);
    }
    assert_eq!(tally.spent().bytes, u64::MAX);
}

#[test]
fn each_refusal_is_remembered_once_and_no_more_than_so_many() {
    let mut tally = Tally::default();
    let refused = |name: &str| {
        let what = What::Refused {
            reason: Reason::NoRule,
            rule: None,
            address: None,
            count: 3,
        };
        record(name, what)
    };
    tally.count(&refused("a.test"));
    tally.count(&refused("a.test"));
    assert_eq!(tally.refusals().len(), 1);
    for n in 0..1000 {
        tally.count(&refused(&format!("n{n}.test")));
    }
    assert_eq!(tally.refusals().len(), MAX_REFUSALS);
}
