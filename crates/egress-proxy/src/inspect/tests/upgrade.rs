use super::cuts::{Outcome, guest, play, server};
use super::*;

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 5\r\n\r\n";
const GET: &str = "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n";
const OTHER: &str = "GET / HTTP/1.1\r\nHost: other.test\r\n\r\n";

#[test]
fn after_the_server_has_switched_everything_passes() {
    let outcome = play(
        80,
        &[
            guest(UPGRADE),
            server(SWITCHED),
            guest(b"\x81\x85\0\0\0\0hello"),
            guest(OTHER),
        ],
    );
    assert_eq!((outcome.refused, outcome.open), (None, true));
    assert_eq!(outcome.total(), UPGRADE.len() + 11 + OTHER.len());
}

#[test]
fn before_the_server_has_switched_the_guest_waits() {
    let answers = [
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n",
        "HTTP/1.1 10",
        "1 \r\n\r\n",
    ];
    let script = [
        guest(UPGRADE),
        server(answers[0]),
        server(answers[1]),
        server(answers[2]),
        guest("frames"),
    ];
    let outcome = play(80, &script);
    let head = UPGRADE.len();
    assert_eq!(outcome.gone, [head, head, head, head, head + 6]);
    assert!(outcome.open);
}

#[test]
fn what_a_guest_says_before_the_answer_to_its_upgrade_is_refused() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
    let soon = play(80, &[guest([UPGRADE, "frames"].concat()), server(SWITCHED)]);
    let later = play(80, &[guest(UPGRADE), guest("frames"), server(SWITCHED)]);
    let informed = play(
        80,
        &[
            guest(UPGRADE),
            server("HTTP/1.1 100 Continue\r\n\r\n"),
            guest("frames"),
        ],
    );
    let pipelined = play(80, &[guest([UPGRADE, UPGRADE].concat()), server(answer)]);
    for outcome in [soon, later, informed, pipelined] {
        assert_eq!(
            (outcome.refused, outcome.total(), outcome.open),
            (Some(Reason::AmbiguousHttp), UPGRADE.len(), false)
        );
    }
}

#[test]
fn a_server_that_does_not_switch_goes_on_with_requests() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 28\r\n\r\nHTTP/1.1 101 not really\r\n\r\n..",
        "HTTP/1.1 426 Upgrade Required\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\nHTTP/1.1 101 up to the end\r\n\r\n",
    ] {
        let outcome = play(80, &[guest(UPGRADE), server(answer), guest(GET), guest(OTHER)]);
        assert_eq!(
            (outcome.refused, outcome.open),
            (Some(Reason::OtherHost), false),
            "{answer}"
        );
        assert_eq!(outcome.total(), UPGRADE.len() + GET.len(), "{answer}");
    }
}

/// `before` is exchanged first; then an upgrade is asked for, and the server switches.
fn upgrade_after(before: &[cuts::Say]) -> Outcome {
    let mut script = before.to_vec();
    script.extend([guest(UPGRADE), server(SWITCHED), guest("frames")]);
    play(80, &script)
}

#[test]
fn a_connection_whose_requests_are_all_answered_can_be_upgraded() {
    let head = "HEAD / HTTP/1.1\r\nHost: example.com\r\n\r\n";
    for before in [
        vec![
            guest(GET),
            server("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"),
        ],
        vec![
            guest(GET),
            server("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\na\r\n0\r\nA: b\r\n\r\n"),
        ],
        vec![
            guest(head),
            server("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"),
        ],
        vec![
            guest(GET),
            server("HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n"),
        ],
        vec![
            guest(GET),
            guest(GET),
            server("HTTP/1.1 204\r\n\r\nHTTP/1.1 204 \r\n\r\n"),
        ],
        vec![
            guest(UPGRADE),
            server("HTTP/1.1 401 Who?\r\nContent-Length: 0\r\n\r\n"),
        ],
    ] {
        let outcome = upgrade_after(&before);
        assert_eq!((outcome.refused, outcome.open), (None, true), "{before:?}");
    }
}

#[test]
fn an_upgrade_whose_answer_could_be_another_s_is_refused() {
    let content = |head: &str| vec![guest(GET), server(head)];
    for before in [
        vec![guest(GET)],
        vec![guest(GET), guest(GET), server("HTTP/1.1 204 \r\n\r\n")],
        content("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab"),
        content("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd"),
        content("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"),
        content("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n"),
        content("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n"),
        content("HTTP/1.1 200 OK\r\n\r\n"),
        content("HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
        content("HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n"),
        content("garbage"),
        content("HTTP/1.1 100 Continue\r\n\r\n"),
        vec![server(
            "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n",
        )],
        vec![
            guest([GET; 200].concat()),
            server("HTTP/1.1 204 \r\n\r\n".repeat(200)),
        ],
    ] {
        let gone = play(80, &before).total();
        let outcome = upgrade_after(&before);
        assert_eq!(
            (outcome.refused, outcome.total()),
            (Some(Reason::AmbiguousHttp), gone),
            "{before:?}"
        );
    }
}

#[test]
fn an_answer_to_an_upgrade_that_cannot_be_read_ends_the_flow() {
    for answer in [
        "HTTP/2 101\r\n\r\n",
        "HTTP/1.1 101\n\n",
        "garbage\r\n",
        "HTTP/1.1 1010 a\r\n\r\n",
        "\r\n",
    ] {
        let outcome = play(80, &[guest(UPGRADE), server(answer), guest("frames")]);
        assert_eq!(
            (outcome.refused, outcome.total()),
            (Some(Reason::AmbiguousHttp), UPGRADE.len()),
            "{answer}"
        );
    }
}

#[test]
fn a_server_that_switches_without_being_asked_is_refused() {
    let outcome = play(80, &[guest(GET), server(SWITCHED), guest("frames")]);
    assert_eq!(
        (outcome.refused, outcome.total()),
        (Some(Reason::Tunnel), GET.len())
    );
}

#[test]
fn an_upgrade_has_no_body_is_a_get_and_is_to_websocket() {
    let head = |line: &str, fields: &str| format!("{line}\r\nHost: example.com\r\n{fields}\r\n");
    for (request, reason) in [
        (
            head("POST / HTTP/1.1", "Upgrade: websocket\r\n"),
            Reason::AmbiguousHttp,
        ),
        (
            head("GET / HTTP/1.0", "Upgrade: websocket\r\n"),
            Reason::AmbiguousHttp,
        ),
        (
            head("GET / HTTP/1.1", "Upgrade: websocket\r\nContent-Length: 0\r\n"),
            Reason::AmbiguousHttp,
        ),
        (
            head(
                "GET / HTTP/1.1",
                "Upgrade: websocket\r\nTransfer-Encoding: chunked\r\n",
            ),
            Reason::AmbiguousHttp,
        ),
        (
            head("GET / HTTP/1.1", "Upgrade: websocket\r\nUpgrade: websocket\r\n"),
            Reason::AmbiguousHttp,
        ),
        (
            head("GET / HTTP/1.1", "Upgrade: websocket, h2c\r\n"),
            Reason::Tunnel,
        ),
        (head("GET / HTTP/1.1", "Upgrade: h2c\r\n"), Reason::Tunnel),
        (head("GET / HTTP/1.1", "Upgrade:\r\n"), Reason::Tunnel),
        (head("GET / HTTP/1.1", "Upgrade: TLS/1.2\r\n"), Reason::Tunnel),
        (
            head("GET / HTTP/1.1", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"),
            Reason::Tunnel,
        ),
    ] {
        let outcome = play(80, &[guest(&request)]);
        assert_eq!((outcome.refused, outcome.total()), (Some(reason), 0), "{request}");
    }
}
