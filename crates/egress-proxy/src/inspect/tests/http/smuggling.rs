//! Ways to make two servers read one connection differently, or to name another host than the one that is allowed.

use super::*;
use Reason::{AmbiguousHttp as Ambiguous, NoHost, OtherHost};

/// Each after a request that is in order: that one goes out, and not a byte more.
fn assert_refused(cases: &[(&str, Reason)]) {
    for (text, reason) in cases {
        let outcome = say(80, text);
        assert_eq!((outcome.refused, outcome.total()), (Some(*reason), 0), "{text:?}");
        for first in [
            GET.to_owned(),
            post("Content-Length: 2\r\n", "ab"),
            post("Transfer-Encoding: chunked\r\n", "1\r\na\r\n0\r\n\r\n"),
        ] {
            let outcome = say(80, format!("{first}{text}"));
            assert_eq!(
                (outcome.refused, outcome.total()),
                (Some(*reason), first.len()),
                "{first:?}{text:?}"
            );
        }
        // What follows does not make it better.
        assert_eq!(say(80, format!("{text}{GET}")).total(), 0);
    }
}

#[test]
fn a_host_that_is_not_this_one() {
    assert_refused(&[
        (OTHER, OtherHost),
        ("GET / HTTP/1.1\r\n\r\n", NoHost),
        ("GET / HTTP/1.0\r\n\r\n", NoHost),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", NoHost),
        ("GET / HTTP/1.1\r\nHost:  \r\n\r\n", NoHost),
        ("GET / HTTP/1.1\r\nX-Host: example.com\r\n\r\n", NoHost),
        ("GET http://example.com/ HTTP/1.1\r\n\r\n", NoHost),
        (
            "GET / HTTP/1.1\r\nHost: example.com\r\nHost: example.com\r\n\r\n",
            Ambiguous,
        ),
        (
            "GET / HTTP/1.1\r\nHost: example.com\r\nhost: other.test\r\n\r\n",
            Ambiguous,
        ),
        (
            "GET / HTTP/1.1\r\nHost: other.test\r\nHost: example.com\r\n\r\n",
            OtherHost,
        ),
        (
            "GET / HTTP/1.1\r\nHost: example.com\r\n Host: other.test\r\n\r\n",
            Ambiguous,
        ),
        (
            "GET / HTTP/1.1\r\nHost: example.com\r\n\tother.test\r\n\r\n",
            Ambiguous,
        ),
        ("GET / HTTP/1.1\r\nHost: a@example.com\r\n\r\n", OtherHost),
        (
            "GET / HTTP/1.1\r\nHost: example.com@other.test\r\n\r\n",
            OtherHost,
        ),
        (
            "GET / HTTP/1.1\r\nHost: example.com:80@other.test\r\n\r\n",
            OtherHost,
        ),
        (
            "GET / HTTP/1.1\r\nHost: example.com, other.test\r\n\r\n",
            OtherHost,
        ),
        (
            "GET / HTTP/1.1\r\nHost: example.com other.test\r\n\r\n",
            OtherHost,
        ),
        (
            "GET / HTTP/1.1\r\nHost: example.com\tother.test\r\n\r\n",
            OtherHost,
        ),
        ("GET / HTTP/1.1\r\nHost: \texample.com\r\n\r\n", OtherHost),
        ("GET / HTTP/1.1\r\nHost: example.com:81\r\n\r\n", OtherHost),
        ("GET / HTTP/1.1\r\nHost: example.com:080\r\n\r\n", OtherHost),
        ("GET / HTTP/1.1\r\nHost: example.com:\r\n\r\n", OtherHost),
        ("GET / HTTP/1.1\r\nHost: example.com:80:80\r\n\r\n", OtherHost),
        ("GET / HTTP/1.1\r\nHost: example.com..\r\n\r\n", OtherHost),
        ("GET / HTTP/1.1\r\nHost: example.com/\r\n\r\n", OtherHost),
        ("GET / HTTP/1.1\r\nHost: http://example.com\r\n\r\n", OtherHost),
        ("GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n", OtherHost),
        ("GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n", OtherHost),
        ("GET / HTTP/1.1\r\nHost: [2001:db8::1]\r\n\r\n", OtherHost),
        (
            "GET / HTTP/1.1\r\nHost: example.com\0other.test\r\n\r\n",
            Ambiguous,
        ),
        ("GET / HTTP/1.1\r\nHost : example.com\r\n\r\n", Ambiguous),
        ("GET / HTTP/1.1\r\nHost\t: example.com\r\n\r\n", Ambiguous),
        ("GET / HTTP/1.1\r\n: example.com\r\n\r\n", Ambiguous),
        ("GET / HTTP/1.1\r\nHost\r\n\r\n", Ambiguous),
        ("GET / HTTP/1.1\r\nH\u{f6}st: example.com\r\n\r\n", Ambiguous),
        (
            "GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close, Host\r\n\r\n",
            Ambiguous,
        ),
    ]);
}

#[test]
fn a_url_that_is_not_of_this_host() {
    assert_refused(&[
        (
            "GET http://other.test/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
            OtherHost,
        ),
        (
            "GET http://example.com/ HTTP/1.1\r\nHost: other.test\r\n\r\n",
            OtherHost,
        ),
        (
            "GET http://example.com@other.test/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
            OtherHost,
        ),
        (
            "GET http://other.test@example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
            OtherHost,
        ),
        (
            "GET http://example.com#@other.test/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
            OtherHost,
        ),
        (
            "GET http://example.com\\@other.test/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
            OtherHost,
        ),
        (
            "GET http://example.com:81/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
            OtherHost,
        ),
        (
            "GET http:///example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
            OtherHost,
        ),
        ("GET http:// HTTP/1.1\r\nHost: example.com\r\n\r\n", OtherHost),
        (
            "GET https://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
            Reason::NotHttp,
        ),
    ]);
}

#[test]
fn two_lengths() {
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Content-Length: 4\r\nContent-Length: 4\r\n",
        "Content-Length: 4, 4\r\n",
        "Content-Length: 4 4\r\n",
        "Content-Length: +4\r\n",
        "Content-Length: -4\r\n",
        "Content-Length: 0x4\r\n",
        "Content-Length: 04\r\n",
        "Content-Length: 4.0\r\n",
        "Content-Length: \t4\r\n",
        "Content-Length: 4\t\r\n",
        "Content-Length: 4;\r\n",
        "Content-Length: \"4\"\r\n",
        "Content-Length:\r\n",
        "Content-Length: 1000000000000000000\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length : 4\r\n",
        "Content_Length: 4\r\n",
        "Content-Length: 4\r\nConnection: Content-Length\r\n",
    ] {
        assert_refused(&[(&post(fields, "0\r\n\r\n"), Ambiguous)]);
    }
}

#[test]
fn chunks_that_only_some_see() {
    for fields in [
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunkedx\r\n",
        "Transfer-Encoding: Chunked\r\n",
        "Transfer-Encoding: cHuNkEd\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: 'chunked'\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: chunked\0\r\n",
        "Transfer-Encoding: \0chunked\r\n",
        "Transfer-Encoding:\tchunked\r\n",
        "Transfer-Encoding: chunked\t\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "Transfer-Encoding:\x0cchunked\r\n",
        "Transfer-Encoding:\u{a0}chunked\r\n",
        "Transfer-Encoding\r\n : chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "Transfer_Encoding: chunked\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "X: y\r\rTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\n",
        "Transfer-Encoding: chunked\r\r\n",
        "Transfer-Encoding: chunked\r\nConnection: transfer-encoding\r\n",
    ] {
        assert_refused(&[
            (&post(fields, "0\r\n\r\n"), Ambiguous),
            (
                &post(&format!("Content-Length: 4\r\n{fields}"), "0\r\n\r\n"),
                Ambiguous,
            ),
        ]);
    }
    assert_refused(&[(
        "POST / HTTP/1.0\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Ambiguous,
    )]);
}

#[test]
fn lines_that_end_differently() {
    assert_refused(&[
        ("GET / HTTP/1.1\nHost: example.com\n\n", Ambiguous),
        ("GET / HTTP/1.1\r\nHost: example.com\n\r\n", Ambiguous),
        ("GET / HTTP/1.1\r\nHost: example.com\r\n\n", Ambiguous),
        ("GET / HTTP/1.1\rHost: example.com\r\r", Ambiguous),
        ("GET / HTTP/1.1\r\nHost: example.com\r\n\rX", Ambiguous),
        ("\r\nGET / HTTP/1.1\r\nHost: example.com\r\n\r\n", Ambiguous),
        ("\nGET / HTTP/1.1\r\nHost: example.com\r\n\r\n", Ambiguous),
        ("GET / HTTP/1.1\r\n Host: example.com\r\n\r\n", Ambiguous),
        (
            "GET / HTTP/1.1\r\nHost: example.com\r\nA\x7f: b\r\n\r\n",
            Ambiguous,
        ),
        (
            "GET / HTTP/1.1\r\nHost: example.com\r\nA: \x1b[2J\r\n\r\n",
            Ambiguous,
        ),
    ]);
}

#[test]
fn chunks_that_two_would_count_differently() {
    for chunks in [
        "ffffffffffffffff1\r\n",
        "ffffffffffffffff\r\n",
        "1000000000000000\r\n",
        "0000000000000001\r\n",
        "-1\r\n",
        "+1\r\n",
        "0x1\r\n",
        "1 \r\n",
        " 1\r\n",
        "1\t\r\n",
        "1 ;a\r\n",
        "1g\r\n",
        "\r\n",
        ";a\r\n",
        "1\n",
        "1\r1",
        "1;a\nb\r\n",
        "1;a\tb\r\n",
        "1;\u{e4}\r\n",
        "1\0\r\n",
        "1,\r\n",
        "1_0\r\n",
    ] {
        let head = post("Transfer-Encoding: chunked\r\n", "");
        let outcome = say(80, format!("{head}{chunks}"));
        assert_eq!(
            (outcome.refused, outcome.total()),
            (Some(Ambiguous), head.len()),
            "{chunks:?}"
        );
    }
    for (chunks, good) in [
        ("1\r\nabc", 4),
        ("1\r\na\n", 4),
        ("1\r\na\r\r", 4),
        ("1\r\na0\r\n", 4),
        ("1\r\na\r\n-0\r\n", 6),
        ("0\r\nabc\r\n", 3),
        ("0\r\nHost: other.test\r\n", 3),
        ("0\r\nContent-Length: 4\r\n", 3),
        ("0\r\nTransfer-Encoding: chunked\r\n", 3),
        ("0\r\nUpgrade: websocket\r\n", 3),
        ("0\r\nA : b\r\n", 3),
        ("0\r\n A: b\r\n", 3),
        ("0\r\nA: b\n", 3),
        ("0\r\n\n", 3),
        ("0\r\nConnection: close\r\n", 3),
    ] {
        let head = post("Transfer-Encoding: chunked\r\n", "");
        let outcome = say(80, format!("{head}{chunks}"));
        assert_eq!(
            (outcome.refused, outcome.total()),
            (Some(Ambiguous), head.len() + good),
            "{chunks:?}"
        );
    }
}

#[test]
fn a_request_hidden_behind_a_body() {
    // To whoever goes by the length the second one is a body, to whoever goes by chunks a request.
    let both = post(
        "Content-Length: 30\r\nTransfer-Encoding: chunked\r\n",
        &format!("0\r\n\r\n{OTHER}"),
    );
    // Behind a body that is too short for it.
    let short = post("Content-Length: 3\r\n", &format!("abc{OTHER}"));
    let outcome = say(80, &both);
    assert_eq!((outcome.refused, outcome.total()), (Some(Ambiguous), 0));
    let outcome = say(80, &short);
    assert_eq!(
        (outcome.refused, outcome.total()),
        (Some(OtherHost), short.len() - OTHER.len())
    );
}
