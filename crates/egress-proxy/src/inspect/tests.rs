//! Every case is played whole, one byte at a time and cut at random: what goes out and what is refused is the same.

mod cuts;
mod http;
mod sniff;
mod tls;
mod upgrade;

use egress_policy::HostName;

use super::*;

fn host(name: &str) -> HostName {
    HostName::try_from(name.to_owned()).unwrap()
}

/// For `example.com`, the name all cases are allowed.
fn guard(port: u16) -> Guard {
    Guard::new(Some(&host("example.com")), port)
}

#[test]
fn an_address_that_somebody_wrote_down_is_not_looked_at() {
    for port in [80, 443, 8080] {
        let mut guard = Guard::new(None, port);
        assert!(!guard.wants_server());
        assert_eq!(guard.from_guest(b"anything"), Ok(Pass::All));
        assert_eq!(guard.guest_finished(), Ok(()));
    }
}

#[test]
fn once_refused_always_refused() {
    let mut guard = guard(80);
    assert_eq!(guard.from_guest(b"\0"), Err(Reason::NotHttp));
    assert_eq!(
        guard.from_guest(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"),
        Err(Reason::NotHttp)
    );
    assert_eq!(guard.from_server(b""), Err(Reason::NotHttp));
    assert_eq!(guard.guest_finished(), Err(Reason::NotHttp));
}

#[test]
fn a_guest_that_says_nothing_is_not_refused() {
    for port in [80, 443, 8080] {
        let mut guard = guard(port);
        assert_eq!(guard.from_guest(b""), Ok(Pass::Some(0)));
        assert_eq!(guard.guest_finished(), Ok(()));
    }
}
