//! What is said on connections that are allowed: to reach another than who was asked for.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
};

use egress_policy::Reason;

use crate::{
    servers::Sink,
    tls::{ENCRYPTED_HELLO, hello},
    world::{Egress, PATIENCE, as_guest, config, enter_a_host, ok, sh},
};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What the guest says to `good.test` on this port, after what may be said, is refused for this reason; of it, the
/// server hears nothing.
fn refused(port: u16, reason: Reason, allowed: &[u8], said: &[&[u8]]) {
    if !enter_a_host() {
        return;
    }
    let sink = Sink::default();
    sink.serve(port, OK);
    let (mut egress, link) = Egress::start(&config(&["good.test"], &["good.test", "denied.test"]));
    as_guest(link, || {
        for said in said {
            let mut stream = TcpStream::connect(("good.test", port)).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            if !allowed.is_empty() {
                stream.write_all(allowed).unwrap();
                stream.read_exact(&mut vec![0; OK.len()]).unwrap();
            }
            stream.write_all(said).unwrap();
            let mut rest = Vec::new();
            let ended = stream.read_to_end(&mut rest);
            let text = String::from_utf8_lossy(said);
            assert!(ended.is_err() || rest.is_empty(), "{text} was answered");
            assert!(
                ended
                    .as_ref()
                    .err()
                    .is_none_or(|error| error.kind() != std::io::ErrorKind::WouldBlock),
                "{text} hangs"
            );
        }
    });
    egress.told_refused(reason);
    assert_eq!(sink.heard().replace(&*String::from_utf8_lossy(allowed), ""), "");
}

#[test]
fn another_server_name_in_tls() {
    refused(
        443,
        Reason::OtherServerName,
        b"",
        &[&hello(Some("denied.test"), None)],
    );
}

#[test]
fn no_server_name_in_tls() {
    refused(443, Reason::NoServerName, b"", &[&hello(None, None)]);
}

#[test]
fn a_server_name_that_is_encrypted() {
    refused(
        443,
        Reason::EncryptedHello,
        b"",
        &[&hello(Some("good.test"), Some(ENCRYPTED_HELLO))],
    );
}

#[test]
fn tls_on_other_ports_is_held_to_its_name() {
    for port in [853, 8443] {
        refused(
            port,
            Reason::OtherServerName,
            b"",
            &[&hello(Some("denied.test"), None)],
        );
    }
}

#[test]
fn something_else_than_tls_on_its_port() {
    refused(
        443,
        Reason::NotTls,
        b"",
        &[b"SSH-2.0-x\r\n", b"GET / HTTP/1.1\r\nHost: good.test\r\n\r\n"],
    );
}

#[test]
fn another_host_in_http() {
    let requests: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: denied.test\r\n\r\n",
        b"GET http://denied.test/ HTTP/1.1\r\nHost: good.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: good.test@denied.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: good.test.denied.test\r\n\r\n",
    ];
    refused(80, Reason::OtherHost, b"", &requests[..1]);
    for request in &requests[1..] {
        refused_somehow(80, b"", request);
    }
}

fn refused_somehow(port: u16, allowed: &[u8], said: &[u8]) {
    use Reason::*;
    let reasons = [OtherHost, AmbiguousHttp, NotHttp, Tunnel, NoHost];
    if !enter_a_host() {
        return;
    }
    let sink = Sink::default();
    sink.serve(port, OK);
    let (mut egress, link) = Egress::start(&config(&["good.test"], &["good.test", "denied.test"]));
    as_guest(link, || {
        let mut stream = TcpStream::connect(("good.test", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        if !allowed.is_empty() {
            stream.write_all(allowed).unwrap();
            stream.read_exact(&mut vec![0; OK.len()]).unwrap();
        }
        stream.write_all(said).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    egress.record(|record| {
        matches!(&record.what, egress_policy::control::What::Refused { reason, .. } if reasons.contains(reason))
    });
    let heard = sink.heard();
    assert!(
        !heard.contains("denied") && !heard.contains("smuggled"),
        "{heard}"
    );
}

const FIRST: &[u8] = b"GET /first HTTP/1.1\r\nHost: good.test\r\n\r\n";

#[test]
fn another_host_in_a_later_request() {
    refused(
        80,
        Reason::OtherHost,
        FIRST,
        &[b"GET / HTTP/1.1\r\nHost: denied.test\r\n\r\n"],
    );
}

#[test]
fn no_host_at_all() {
    refused(80, Reason::NoHost, b"", &[b"GET / HTTP/1.1\r\n\r\n"]);
}

/// Requests in which another can be hidden from one of two readers.
#[test]
fn requests_that_can_be_read_in_two_ways() {
    let hidden = "GET /smuggled HTTP/1.1\r\nHost: denied.test\r\n\r\n";
    let heads = [
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 6\r\nContent-Length: 60\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Content-Length: +6\r\n",
        "X: y\rContent-Length: 6\r\n",
        "Host: denied.test\r\n",
    ];
    for head in heads {
        let request = format!("POST / HTTP/1.1\r\nHost: good.test\r\n{head}\r\n0\r\n\r\n{hidden}");
        refused_somehow(80, FIRST, request.as_bytes());
    }
}

#[test]
fn a_request_hidden_in_a_body_is_a_body_and_one_after_it_a_request() {
    let body = b"POST / HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let after = b"GET /smuggled HTTP/1.1\r\nHost: denied.test\r\n\r\n";
    refused_somehow(80, FIRST, &[&body[..], after].concat());
}

#[test]
fn tunnels_and_http_2_in_the_clear() {
    refused(
        80,
        Reason::Tunnel,
        b"",
        &[b"CONNECT denied.test:443 HTTP/1.1\r\nHost: good.test\r\n\r\n"],
    );
    refused_somehow(80, b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    refused_somehow(8080, b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let upgrade = b"GET / HTTP/1.1\r\nHost: good.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
    refused_somehow(80, b"", upgrade);
}

/// A resolver that speaks HTTPS or TLS, by its address and by a name.
#[test]
fn resolvers_that_are_not_ours_are_out_of_reach() {
    if !enter_a_host() {
        return;
    }
    let sink = Sink::default();
    sink.serve(443, OK);
    sink.serve(853, OK);
    let (mut egress, link) = Egress::start(&config(&["good.test"], &["good.test", "dns.test"]));
    as_guest(link, || {
        for target in [
            "203.0.113.80:443",
            "203.0.113.80:853",
            "dns.test:443",
            "dns.test:853",
        ] {
            assert!(TcpStream::connect(target).is_err(), "{target}");
        }
        let denied = TcpStream::connect("203.0.113.80:443").unwrap_err();
        assert_eq!(denied.kind(), std::io::ErrorKind::ConnectionRefused);
    });
    egress.told_refused(Reason::NoRule);
    assert_eq!((sink.heard(), crate::world::packets()), (String::new(), 0));
}

/// A C library takes these for addresses without asking anybody.
#[test]
fn spellings_of_addresses_are_addresses() {
    if !enter_a_host() {
        return;
    }
    let (_egress, link) = Egress::start(&config(&["*"], &[]));
    as_guest(link, || {
        for host in [
            "2852039166",
            "0xa9fea9fe",
            "0251.0376.0251.0376",
            "0xa9.254.0xa9fe",
            "[::ffff:a9fe:a9fe]",
        ] {
            let (status, said) = sh(&format!("curl -sS -g -m 10 http://{host}/"));
            assert_eq!(status, 7, "{host}: {said}");
        }
    });
    assert_eq!(crate::world::packets(), 0);
}

#[test]
fn a_redirect_to_a_denied_name_leads_nowhere() {
    if !enter_a_host() {
        return;
    }
    Sink::default().serve(
        80,
        b"HTTP/1.1 302 Found\r\nLocation: http://denied.test/\r\nContent-Length: 0\r\n\r\n",
    );
    let (mut egress, link) = Egress::start(&config(&["good.test"], &["good.test", "denied.test"]));
    let (status, said) = as_guest(link, || {
        ok("curl -sS -m 10 -o /dev/null http://good.test/");
        sh("curl -sS -m 10 -L http://good.test/")
    });
    assert_eq!(status, 6, "{said}");
    egress.told_refused(Reason::NoRule);
}

/// A finished direction is not a way around the rules.
#[test]
fn what_is_said_before_an_early_end_is_held_to_the_rules() {
    if !enter_a_host() {
        return;
    }
    let sink = Sink::default();
    sink.serve(80, OK);
    let (_egress, link) = Egress::start(&config(&["good.test"], &["good.test"]));
    as_guest(link, || {
        for said in [&b"GET / HTTP/1.1\r\nHost: denied.test\r\n"[..], b"GET / HT", b"X"] {
            let mut stream = TcpStream::connect("good.test:80").unwrap();
            stream.write_all(said).unwrap();
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    assert_eq!(sink.heard(), "");
}
