//! What happens until the server has said its hello.

use super::*;
use crate::inspect::tests::cuts::server;

#[test]
fn after_the_server_s_hello_everything_passes() {
    let (hello, answer, finished) = (
        recorded("plain-0-guest"),
        recorded("plain-1-server"),
        recorded("plain-2-guest"),
    );
    let outcome = play(
        443,
        &[
            guest(&hello),
            server(&answer),
            guest(&finished),
            guest("anything"),
        ],
    );
    assert_eq!((outcome.refused, outcome.open), (None, true));
    assert_eq!(outcome.total(), hello.len() + finished.len() + 8);
}

#[test]
fn what_is_said_before_the_server_s_hello_waits_for_it() {
    let (hello, answer) = (recorded("plain-0-guest"), recorded("plain-1-server"));
    let early = [hello.as_slice(), b"\x17\x03\x03\x00\x03abc"].concat();
    let warning = b"\x15\x03\x03\x00\x02\x01\x70";
    let outcome = play(
        443,
        &[
            guest(&early),
            server(warning),
            server(&answer[..42]),
            server(&answer[42..]),
        ],
    );
    assert_eq!(outcome.gone, [hello.len(), hello.len(), hello.len(), early.len()]);
    assert!(outcome.open);
}

#[test]
fn the_hello_after_a_retry_is_read_as_well() {
    let script = |second: &[u8]| {
        [
            guest(recorded("retry-0-guest")),
            server(recorded("retry-1-server")),
            guest(second),
            server(recorded("retry-3-server")),
            guest("anything"),
        ]
    };
    let first = recorded("retry-0-guest").len();
    let second = recorded("retry-2-guest");
    let outcome = play(443, &script(&second));
    assert_eq!((outcome.refused, outcome.open), (None, true));
    assert_eq!(
        outcome.gone[1..],
        [
            first,
            first + second.len(),
            first + second.len(),
            first + second.len() + 8
        ]
    );

    // OpenSSL goes by the name in the second.
    let change = b"\x14\x03\x03\x00\x01\x01".as_slice();
    for (hello, reason) in [
        (recorded("openssl-other-name"), Reason::OtherServerName),
        (recorded("openssl-no-name"), Reason::NoServerName),
        (
            b"\x17\x03\x03\x00\x01a\x15\x03\x03\x00\x02\x02\x28".to_vec(),
            Reason::NotTls,
        ),
    ] {
        for second in [hello.clone(), [change, &hello].concat()] {
            let outcome = play(443, &script(&second));
            assert_eq!(
                (outcome.refused, outcome.total(), outcome.open),
                (Some(reason), first, false)
            );
        }
    }
}

#[test]
fn between_the_parts_of_a_second_hello_there_is_nothing_else() {
    let second = Built::named("example.com").in_records(30);
    let cut = 35;
    let parted = [&second[..cut], b"\x14\x03\x03\x00\x01\x01", &second[cut..]].concat();
    for (second, refused) in [(second, None), (parted, Some(Reason::NotTls))] {
        let script = [
            guest(recorded("retry-0-guest")),
            server(recorded("retry-1-server")),
            guest(second),
        ];
        assert_eq!(play(443, &script).refused, refused);
    }
}

#[test]
fn a_server_that_does_not_speak_tls_is_refused() {
    let hello = recorded("openssl-tls13");
    for answer in [
        b"HTTP/1.1 400 Bad Request\r\n".as_slice(),
        b"\x16\x03\x03\x00\x04\x0e\x00\x00\x00",
        b"\x17\x03\x03\x00\x01a",
        b"\x16\x03\x03\x00\x00",
    ] {
        let outcome = play(443, &[guest(&hello), server(answer), guest("secret")]);
        assert_eq!(
            (outcome.refused, outcome.total()),
            (Some(Reason::NotTls), hello.len())
        );
    }
    let outcome = play(443, &[server(b"SSH-2.0-a\r\n"), guest(&hello)]);
    assert_eq!((outcome.refused, outcome.total()), (Some(Reason::NotTls), 0));
    let outcome = play(443, &[server(recorded("plain-1-server")), guest(&hello)]);
    assert_eq!((outcome.refused, outcome.total()), (Some(Reason::NotTls), 0));
}

#[test]
fn a_server_that_only_warns_leaves_the_guest_waiting() {
    let hello = recorded("openssl-tls13");
    let outcome = play(
        443,
        &[
            guest(&hello),
            server(b"\x15\x03\x03\x00\x02\x02\x28"),
            guest("bye"),
            Say::GuestEnds,
        ],
    );
    assert_eq!(
        (outcome.refused, outcome.total(), outcome.open),
        (None, hello.len(), false)
    );
}
