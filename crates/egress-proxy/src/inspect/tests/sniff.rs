use super::cuts::{Say, guest, play, say, server};
use super::*;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: example.com:8080\r\n\r\n";

#[test]
fn a_request_on_any_port_is_held_to_the_rules() {
    let outcome = say(8080, REQUEST);
    assert_eq!(
        (outcome.total(), outcome.refused, outcome.open),
        (REQUEST.len(), None, false)
    );
    let two = [REQUEST, b"GET / HTTP/1.1\r\nHost: other.test\r\n\r\n"].concat();
    let outcome = say(8080, two);
    assert_eq!(
        (outcome.total(), outcome.refused),
        (REQUEST.len(), Some(Reason::OtherHost))
    );
}

#[test]
fn what_some_server_might_take_for_a_request_is_refused() {
    let cases: &[(&[u8], Reason)] = &[
        (b"GET / HTTP/1.1\nHost: other.test\n\n", Reason::AmbiguousHttp),
        (
            b"\r\nGET / HTTP/1.1\r\nHost: other.test\r\n\r\n",
            Reason::AmbiguousHttp,
        ),
        (b"\nGET / HTTP/1.1\r\n", Reason::AmbiguousHttp),
        (b" GET / HTTP/1.1\r\nHost: other.test\r\n\r\n", Reason::NotHttp),
        (b"GET\t/\tHTTP/1.1\r\nHost: other.test\r\n\r\n", Reason::NotHttp),
        (b"GET  / HTTP/1.1\r\nHost: other.test\r\n\r\n", Reason::NotHttp),
        (b"get / http/1.1\r\nHost: other.test\r\n\r\n", Reason::NotHttp),
        (b"GET http://other.test/\r\n", Reason::NotHttp),
        (b"GET /\r\n", Reason::NotHttp),
        (b"ANY-thing.at_all /hhttp/ hthttp/1.1\r\n", Reason::NotHttp),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Reason::NotHttp),
        (b"CONNECT other.test:443 HTTP/1.1\r\n\r\n", Reason::Tunnel),
        (b"GET / HTTP/1.1\0", Reason::AmbiguousHttp),
        (b"GET / HTTP/1.1\x0b\n", Reason::AmbiguousHttp),
        // Python's servers cut a request line wherever Python sees a blank.
        (
            b"GET\x0b/\x0bHTTP/1.1\r\nHost: other.test\r\n\r\n",
            Reason::AmbiguousHttp,
        ),
        (b"POST\x1c/\x1cHTTP/1.1\r\n", Reason::AmbiguousHttp),
        (b"POST\r/ HTTP/1.1\r\n", Reason::AmbiguousHttp),
        (b"POST\x85/\xa0HTTP/1.1\r\n", Reason::NotHttp),
    ];
    for (bytes, reason) in cases {
        let outcome = say(8080, bytes);
        assert_eq!(
            (outcome.total(), outcome.refused),
            (0, Some(*reason)),
            "{}",
            bytes.escape_ascii()
        );
    }
}

#[test]
fn what_some_server_might_take_for_tls_is_refused() {
    let cases: &[&[u8]] = &[
        b"\x15\x03\x01\x00\x02\x01\x70\x16\x03\x01",
        b"\x14\x03\x03\x00\x01\x01",
        b"\x17\x03\x03\x00\x01\x01",
        b"\x16\x03\x01\x00\x00",
        b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10",
        b"\x16\x03\xff\xff\xff",
    ];
    for bytes in cases {
        let outcome = say(8443, bytes);
        assert_eq!(
            (outcome.total(), outcome.refused),
            (0, Some(Reason::NotTls)),
            "{}",
            bytes.escape_ascii()
        );
    }
}

#[test]
fn other_protocols_pass_as_soon_as_they_are_known() {
    let cases: &[&[u8]] = &[
        b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
        b"EHLO there\r\n",
        b"0032git-upload-pack /project.git\0host=example.com\0",
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        b"*1\r\n$4\r\nPING\r\n",
        b"PING\r\n",
        b"get key\r\n",
        b"OPTIONS rtsp://example.com/ RTSP/1.0\r\n",
        b"CONNECT {\"verbose\":false}\r\n",
        b"@RSYNCD: 31.0\n",
        b"\x13BitTorrent protocol",
        b"\x16\x04",
        b"\x80\x00\x00\x01",
        b"\xff\xfb\x01",
        b"{\"jsonrpc\": \"2.0\"}",
    ];
    for bytes in cases {
        let outcome = say(2222, bytes);
        assert_eq!(
            (outcome.total(), outcome.refused, outcome.open),
            (bytes.len(), None, true),
            "{}",
            bytes.escape_ascii()
        );
    }
}

#[test]
fn what_could_become_either_waits() {
    for bytes in [
        b"P".as_slice(),
        b"POST",
        b"POST ",
        b"POST /a",
        b"\r\n\r\n",
        b"\x16",
        b"\x80\x2e",
        b"\x80\x2e\x01",
    ] {
        let outcome = say(8080, bytes);
        assert_eq!(
            (outcome.total(), outcome.refused, outcome.open),
            (0, None, false),
            "{}",
            bytes.escape_ascii()
        );
        let ended = play(8080, &[guest(bytes), Say::GuestEnds]);
        assert_eq!(
            (ended.total(), ended.refused, ended.open),
            (bytes.len(), None, true)
        );
    }
    let ended = play(8080, &[guest("POST / HTTP/1.1"), Say::GuestEnds]);
    assert_eq!((ended.total(), ended.refused), (0, Some(Reason::NotHttp)));
}

#[test]
fn text_without_an_end_is_refused_when_no_more_can_be_held() {
    let mut bytes = b"A ".to_vec();
    bytes.resize(Guard::MAX_HELD + 10, b'a');
    assert_eq!(say(8080, &bytes).refused, Some(Reason::AmbiguousHttp));
    assert_eq!(
        say(8080, vec![b' '; Guard::MAX_HELD]).refused,
        Some(Reason::NotHttp)
    );
    assert_eq!(
        say(8080, vec![b'a'; Guard::MAX_HELD]).refused,
        Some(Reason::AmbiguousHttp)
    );
}

#[test]
fn who_lets_the_server_speak_first_is_looked_at_like_everybody() {
    let mut guard = guard(2525);
    assert!(guard.wants_server());
    assert_eq!(guard.from_server(b"220 ready\r\n"), Ok(()));
    assert!(!guard.wants_server());
    assert_eq!(guard.from_guest(b"EHLO there\r\n"), Ok(Pass::All));

    let outcome = play(
        2525,
        &[
            server("220 ready\r\n"),
            guest("GET / HTTP/1.1\r\nHost: other.test\r\n\r\n"),
        ],
    );
    assert_eq!((outcome.total(), outcome.refused), (0, Some(Reason::OtherHost)));
}

#[test]
fn after_words_of_the_server_no_upgrade_can_be_told_from_another_answer() {
    let upgrade = "GET / HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\n\r\n";
    let outcome = play(8080, &[server("HTTP/1.1 101 a\r\n\r\n"), guest(upgrade)]);
    assert_eq!(
        (outcome.total(), outcome.refused),
        (0, Some(Reason::AmbiguousHttp))
    );
}
