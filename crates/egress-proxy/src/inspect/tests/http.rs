mod smuggling;

use super::cuts::{Say, guest, play, say};
use super::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n";
const OTHER: &str = "GET / HTTP/1.1\r\nHost: other.test\r\n\r\n";

/// A head with these lines behind Host, and `rest`.
fn post(fields: &str, rest: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: example.com\r\n{fields}\r\n{rest}")
}

fn assert_passes(port: u16, text: &str) {
    let outcome = say(port, text);
    assert_eq!((outcome.refused, outcome.total()), (None, text.len()), "{text}");
    // And what comes next is a request again.
    let next = format!("{text}{OTHER}");
    let outcome = say(port, &next);
    assert_eq!(
        (outcome.refused, outcome.total()),
        (Some(Reason::OtherHost), text.len()),
        "{next}"
    );
}

#[test]
fn what_real_clients_say_passes() {
    let heads = [
        // curl
        "GET /a HTTP/1.1\r\nHost: example.com\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n",
        // curl -x
        "GET http://example.com/a HTTP/1.1\r\nHost: example.com\r\nProxy-Connection: Keep-Alive\r\n\r\n",
        // pip
        "GET /simple/six/ HTTP/1.1\r\nHost: example.com\r\nUser-Agent: pip/24.0 {\"ci\":null,\"cpu\":\"x86_64\"}\r\n\
         Accept-Encoding: gzip, deflate, br\r\nAccept: application/vnd.simple.v1+json, text/html; q=0.01\r\n\
         Connection: keep-alive\r\nCache-Control: max-age=0\r\n\r\n",
        // apt
        "GET /debian/dists/stable/InRelease HTTP/1.1\r\nHost: example.com\r\nCache-Control: max-age=0\r\n\
         Accept: text/*\r\nRange: bytes=0-\r\nIf-Range: Sat, 01 Jan 2000 00:00:00 GMT\r\nUser-Agent: apt\r\n\r\n",
        // git
        "GET /a.git/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: example.com\r\nUser-Agent: git/2.39.5\r\n\
         Accept: */*\r\nAccept-Encoding: deflate, gzip\r\nPragma: no-cache\r\nGit-Protocol: version=2\r\n\r\n",
        "POST /a.git/git-upload-pack HTTP/1.1\r\nHost: example.com\r\nContent-Type: application/x-git\r\n\
         Transfer-Encoding: chunked\r\n\r\n4\r\n0000\r\n0\r\n\r\n",
        // a browser
        "GET /?q=a%20b HTTP/1.1\r\nHost: example.com\r\nConnection: keep-alive\r\nUpgrade-Insecure-Requests: 1\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0)\r\nCookie: a=\"b\"; c=d\r\nDNT: 1\r\n\r\n",
        // wget
        "GET / HTTP/1.1\r\nAccept: */*\r\nHost: EXAMPLE.com:80\r\nConnection: Keep-Alive\r\n\r\n",
        // An upload that asks first, and WebDAV.
        "PUT /f HTTP/1.1\r\nHost: example.com\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc",
        "VERSION-CONTROL /f HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\nTE: trailers\r\n\r\n",
        // What is old or bare.
        "GET / HTTP/1.0\r\nHost: example.com\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost:example.com.\r\n\r\n",
        "GET /~ HTTP/1.1\r\nHost:   example.com  \r\nA:\r\nB: \u{e4}\tb\r\n\r\n",
        "HEAD HTTP://Example.com:80?a HTTP/1.1\r\nHost: example.com\r\n\r\n",
    ];
    for head in heads {
        assert_passes(80, head);
    }
    assert_passes(80, &heads.concat());
}

#[test]
fn bodies_stream_and_end_where_they_say() {
    for text in [
        post("Content-Length: 5\r\n", "ab\r\n\0"),
        post("content-LENGTH:0\r\n", ""),
        post("Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        post(
            "Transfer-Encoding: chunked\r\n",
            "00000a\r\n0123456789\r\nA\r\n0123456789\r\n000\r\n\r\n",
        ),
        post(
            "Transfer-Encoding: chunked\r\n",
            "1;a=\"b; c\";d\r\n\n\r\n0;e\r\nA: b\r\nC:\r\n\r\n",
        ),
        post(
            "Content-Length: 44\r\n",
            "GET / HTTP/1.1\r\nHost: another.test\r\n\r\n......",
        ),
    ] {
        assert_passes(80, &text);
    }
    let half = post("Content-Length: 999999999999999999\r\n", "ab");
    assert_eq!(say(80, &half).total(), half.len());
    let half = post("Transfer-Encoding: chunked\r\n", "fffffffffffffff\r\nab");
    assert_eq!(say(80, &half).total(), half.len());
}

#[test]
fn nothing_of_a_head_goes_out_before_all_of_it_is_there() {
    let outcome = say(80, &GET[..GET.len() - 1]);
    assert_eq!((outcome.total(), outcome.refused), (0, None));
    let line = post("Transfer-Encoding: chunked\r\n", "");
    for held in ["1", "1\r", "1;a", "0\r\n", "0\r\nA: b\r\n", "0\r\nA: b\r\n\r"] {
        let sent = format!("{line}{held}");
        let whole_line = if held.starts_with("0\r\n") { 3 } else { 0 };
        assert_eq!(say(80, &sent).total(), line.len() + whole_line, "{held:?}");
    }
}

#[test]
fn a_guest_that_ends_in_the_middle_is_told_apart() {
    let chunked = post("Transfer-Encoding: chunked\r\n", "");
    for (text, end) in [
        (String::new(), None),
        (GET.to_owned(), None),
        ("G".to_owned(), Some(Reason::NotHttp)),
        (GET[..GET.len() - 2].to_owned(), Some(Reason::NotHttp)),
        (post("Content-Length: 5\r\n", "abc"), None),
        (chunked.clone(), None),
        (format!("{chunked}1\r\na\r"), None),
        (format!("{chunked}1"), Some(Reason::AmbiguousHttp)),
        (format!("{chunked}0\r\nA: b\r\n"), Some(Reason::AmbiguousHttp)),
    ] {
        assert_eq!(play(80, &[guest(&text), Say::GuestEnds]).refused, end, "{text}");
    }
}

#[test]
fn what_is_not_http_is_refused_at_once() {
    for bytes in [
        b"\x16\x03\x01\x02\x00".as_slice(),
        b"\0",
        b" ",
        b"\t",
        b"\x80",
        b"(",
        b"GET / HTTP/1.1 \r\n",
        b"GET /\r\n",
        b"GET / HTTP/0.9\r\n",
        b"GET / HTTP/1.2\r\n",
        b"GET / HTTP/2.0\r\n",
        b"GET / HTTP/1.10\r\n",
        b"GET / http/1.1\r\n",
        b"GET / HTTP/11\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET  / HTTP/1.1\r\n",
        b"GET / a HTTP/1.1\r\n",
        b"GET /\ta HTTP/1.1\r\n",
        b"GET /\xa0a HTTP/1.1\r\n",
        b"GET /\xc3\xa9 HTTP/1.1\r\n",
        b"GET\t/ HTTP/1.1\r\n",
        b"get / HTTP/1.1\r\n",
        b"G(T / HTTP/1.1\r\n",
        b"GET * HTTP/1.1\r\n",
        b"GET a HTTP/1.1\r\n",
        b"GET example.com:80 HTTP/1.1\r\n",
        b"GET https://example.com/ HTTP/1.1\r\n",
        b"GET ftp://example.com/ HTTP/1.1\r\n",
        b"GET file:///etc HTTP/1.1\r\n",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
    ] {
        let outcome = say(80, bytes);
        assert_eq!(
            (outcome.refused, outcome.total()),
            (Some(Reason::NotHttp), 0),
            "{}",
            bytes.escape_ascii()
        );
    }
}

#[test]
fn a_tunnel_is_refused() {
    for line in [
        "CONNECT other.test:443",
        "CONNECT example.com:80",
        "CONNECT /",
        "connect example.com:80",
    ] {
        let outcome = say(80, format!("{line} HTTP/1.1\r\n"));
        assert_eq!(
            (outcome.refused, outcome.total()),
            (Some(Reason::Tunnel), 0),
            "{line}"
        );
    }
}

#[test]
fn the_port_in_host_is_the_flow_s() {
    for (port, host) in [
        (8080, "example.com:8080"),
        (8080, "example.com"),
        (80, "example.com.:80"),
        (80, "Example.Com"),
    ] {
        assert_passes(port, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
}

#[test]
fn heads_have_limits() {
    let filled = |count: usize| format!("A: {}\r\n", "a".repeat(count));
    let base = post(&filled(0), "").len();
    assert_passes(80, &post(&filled(Guard::MAX_HELD - base), ""));
    let outcome = say(80, post(&filled(Guard::MAX_HELD - base + 1), ""));
    assert_eq!(
        (outcome.refused, outcome.total()),
        (Some(Reason::AmbiguousHttp), 0)
    );

    assert_passes(80, &post(&"A: b\r\n".repeat(255), ""));
    let outcome = say(80, post(&"A: b\r\n".repeat(256), ""));
    assert_eq!(
        (outcome.refused, outcome.total()),
        (Some(Reason::AmbiguousHttp), 0)
    );
}

#[test]
fn chunk_lines_and_trailers_have_limits() {
    let head = post("Transfer-Encoding: chunked\r\n", "");
    let line = |count: usize| format!("{head}1;{}\r\na\r\n0\r\n\r\n", "a".repeat(count));
    assert_passes(80, &line(1020));
    let outcome = say(80, line(1021));
    assert_eq!(
        (outcome.refused, outcome.total()),
        (Some(Reason::AmbiguousHttp), head.len())
    );

    assert_passes(80, &format!("{head}0\r\n{}\r\n", "A: b\r\n".repeat(256)));
    let outcome = say(80, format!("{head}0\r\n{}\r\n", "A: b\r\n".repeat(257)));
    assert_eq!(
        (outcome.refused, outcome.total()),
        (Some(Reason::AmbiguousHttp), head.len() + 3)
    );
    let outcome = say(80, format!("{head}0\r\nA: {}", "a".repeat(Guard::MAX_HELD)));
    assert_eq!(
        (outcome.refused, outcome.total()),
        (Some(Reason::AmbiguousHttp), head.len() + 3)
    );
}
