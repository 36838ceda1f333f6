//! What a session may use up.

use std::io::{Read, Write};

use egress_policy::{
    Reason,
    control::{End, Spent},
};

use crate::{
    machine::{Machine, address, with_hosts},
    servers::{Server, closed_port, echo, silent},
};

const RULES: [&str; 1] = ["127.0.0.1"];

fn machine() -> Machine {
    Machine::start(&with_hosts(&RULES, &[]))
}

#[test]
fn a_flow_too_many_is_refused() {
    let server = Server::start(silent);
    let mut machine = machine();
    let mut flows = Vec::new();
    let reason = loop {
        match machine.open(address("127.0.0.1"), server.port) {
            Ok(flow) => flows.push(flow),
            Err(reason) => break reason,
        }
    };
    assert_eq!((reason, flows.len()), (Reason::TooManyFlows, 1024));
    let (id, stream) = flows.pop().unwrap();
    drop(stream);
    machine.closed(id);
    machine.open(address("127.0.0.1"), server.port).unwrap();
}

#[test]
fn a_budget_of_bytes_is_kept_to_the_byte() {
    let server = Server::start(echo);
    let mut config = with_hosts(&RULES, &[]);
    config.policy.max_bytes = Some(1000);
    config.spent = Spent {
        bytes: 900,
        connections: 7,
    };
    let mut machine = Machine::start(&config);
    let (id, mut guest) = machine.open(address("127.0.0.1"), server.port).unwrap();
    guest.write_all(&[b'x'; 60]).unwrap();
    let mut back = Vec::new();
    let _ = guest.read_to_end(&mut back);
    assert_eq!(back.len(), 40);
    assert_eq!(machine.closed(id), (End::Budget, 60, 40));
    assert_eq!(
        machine.refused(address("127.0.0.1"), server.port),
        Reason::BudgetBytes
    );
}

#[test]
fn a_budget_of_connections_counts_those_that_stood() {
    let server = Server::start(echo);
    let mut config = with_hosts(&RULES, &[]);
    config.policy.max_connections = Some(3);
    config.spent.connections = 1;
    let mut machine = Machine::start(&config);
    let nobody = closed_port();
    for _ in 0..10 {
        assert_eq!(
            machine.refused(address("127.0.0.1"), nobody),
            Reason::ConnectionRefused
        );
    }
    machine.open(address("127.0.0.1"), server.port).unwrap();
    machine.open(address("127.0.0.1"), server.port).unwrap();
    let reason = machine.refused(address("127.0.0.1"), server.port);
    assert_eq!(reason, Reason::BudgetConnections);
    assert_eq!(server.came(), 2);
}
