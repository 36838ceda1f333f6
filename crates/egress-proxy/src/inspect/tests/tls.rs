mod answer;
mod build;

use super::cuts::{Say, guest, play, say};
use super::*;
use build::{Built, extension, recorded, server_name};

/// The server's first words do not matter before they are there.
fn assert_passes(port: u16, hello: &[u8]) {
    let outcome = say(port, hello);
    assert_eq!(
        (outcome.refused, outcome.total(), outcome.open),
        (None, hello.len(), false)
    );
}

fn assert_refused(hello: &[u8], reason: Reason) {
    for port in [443, 8443] {
        let outcome = say(port, hello);
        assert_eq!(
            (outcome.refused, outcome.total()),
            (Some(reason), 0),
            "{}",
            hello.escape_ascii()
        );
    }
}

#[test]
fn hellos_of_real_clients_pass() {
    for hello in [
        recorded("openssl-tls13"),
        recorded("openssl-tls12"),
        recorded("java"),
        recorded("rustls"),
        recorded("plain-0-guest"),
        recorded("retry-0-guest"),
    ] {
        assert_passes(443, &hello);
        assert_passes(8443, &hello);
    }
}

#[test]
fn hellos_of_real_clients_for_another_name_are_refused() {
    assert_refused(&recorded("openssl-other-name"), Reason::OtherServerName);
    assert_refused(&recorded("rustls-in-records-of-100"), Reason::OtherServerName);
    assert_refused(&recorded("openssl-no-name"), Reason::NoServerName);
}

#[test]
fn names_are_compared_as_names() {
    for name in ["example.com", "EXAMPLE.com", "example.com."] {
        assert_passes(443, &Built::named(name).hello());
    }
    for name in [
        "other.test",
        "a.example.com",
        "example.co",
        "example.comm",
        "example.com..",
        ".example.com",
        "",
        ".",
        "192.0.2.1",
        "2001:db8::1",
        "[2001:db8::1]",
        "example.com\0",
        "example.com\0.other.test",
        "example.com:443",
        " example.com",
        "*.example.com",
        "ex\u{e4}mple.com",
    ] {
        assert_refused(&Built::named(name).hello(), Reason::OtherServerName);
    }
}

#[test]
fn a_hello_names_exactly_one_server_once() {
    let twice = |other: &str| Built::named("example.com").with(0, &server_name(other));
    assert_refused(&Built::default().hello(), Reason::NoServerName);
    assert_refused(
        &Built::default().without_extensions().hello(),
        Reason::NoServerName,
    );
    assert_refused(&twice("other.test").hello(), Reason::NotTls);
    assert_refused(&twice("example.com").hello(), Reason::NotTls);
    let name = server_name("example.com");
    let entry = &name[2..];
    for list in [
        build::list(&[entry, &server_name("other.test")[2..]].concat()),
        build::list(&[entry, entry].concat()),
        build::list(b""),
        build::list(&[b"\x01".as_slice(), &entry[1..]].concat()),
        [name.as_slice(), b"\0"].concat(),
        Vec::new(),
    ] {
        assert_refused(&Built::default().with(0, &list).hello(), Reason::NotTls);
    }
}

#[test]
fn an_extension_comes_once() {
    assert_refused(
        &Built::named("example.com")
            .with(16, b"\0")
            .with(43, b"")
            .with(16, b"\0")
            .hello(),
        Reason::NotTls,
    );
}

#[test]
fn an_encrypted_hello_is_refused_whatever_else_it_says() {
    for kind in [0xfe0d, 0xfe08, 0xffce] {
        // As browsers send it to everybody.
        assert_refused(
            &Built::named("example.com").with(kind, &[0; 186]).hello(),
            Reason::EncryptedHello,
        );
        assert_refused(
            &Built::named("other.test").with(kind, b"").hello(),
            Reason::EncryptedHello,
        );
        assert_refused(&Built::default().with(kind, b"").hello(), Reason::EncryptedHello);
    }
}

#[test]
fn a_long_hello_in_many_records_passes() {
    // Key shares of a post-quantum kind, a ticket and padding.
    let hello = Built::named("example.com")
        .with(51, &[7; 1216])
        .with(35, &[1; 9000])
        .with(21, &[0; 30_000]);
    for size in [100, 1000, 16_384] {
        assert_passes(443, &hello.in_records(size));
    }
}

#[test]
fn a_hello_has_a_limit() {
    let sized = |size: usize| Built::named("example.com").with(21, &vec![0; size]);
    let base = sized(0).in_records(16_384).len();
    // Four records of a full size.
    assert_passes(443, &sized(Guard::MAX_HELD - base - 4 * 5).in_records(16_384));
    assert_refused(&sized(Guard::MAX_HELD - base).in_records(16_384), Reason::NotTls);
    // One byte in each record.
    assert_refused(&sized(20_000).in_records(1), Reason::NotTls);
    assert_refused(b"\x16\x03\x01\x00\x04\x01\xff\xff\xff", Reason::NotTls);
}

#[test]
fn what_is_not_a_hello_is_refused_at_its_first_wrong_byte() {
    for bytes in [
        b"GET / HTTP/1.1\r\n".as_slice(),
        b"SSH-2.0",
        b"\0",
        b"\x16\x02",
        b"\x15\x03\x01\x00\x02\x01\x70",
        b"\x15",
        b"\x80\x2e\x01\x03\x01",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x40\x01",
        b"\x16\x03\x01\x00\x01\x02",
        b"\x16\x03\x01\x00\x01\x00",
        b"\x16\x03\x01\x00\x01\x01\x17",
    ] {
        let outcome = say(443, bytes);
        assert_eq!(
            (outcome.refused, outcome.total()),
            (Some(Reason::NotTls), 0),
            "{}",
            bytes.escape_ascii()
        );
    }
}

#[test]
fn nothing_but_the_hello_is_in_its_last_record() {
    let hello = Built::named("example.com").message();
    let more = [hello.as_slice(), b"\x01"].concat();
    assert_refused(&build::records(&more, 16_384), Reason::NotTls);
    assert_refused(&build::records(&more, hello.len() - 1), Reason::NotTls);
}

#[test]
fn a_hello_that_is_cut_short_waits_and_is_refused_at_the_end() {
    let hello = recorded("openssl-tls12");
    for length in 1..hello.len() {
        let outcome = play(443, &[guest(&hello[..length]), Say::GuestEnds]);
        assert_eq!((outcome.refused, outcome.total()), (Some(Reason::NotTls), 0));
    }
}

/// Every byte of it, a few values each: whatever still passes has the one right name in the one right place.
#[test]
fn no_changed_byte_lets_another_name_through() {
    for hello in [
        recorded("openssl-tls12"),
        recorded("rustls"),
        Built::named("example.com").hello(),
    ] {
        let other = other_name_in(&hello);
        for at in 0..hello.len() {
            for change in [1_u8, 0x20, 0x80, 0xff] {
                let mut changed = hello.clone();
                changed[at] ^= change;
                let outcome = play_once(&changed);
                let in_name = changed
                    .to_ascii_lowercase()
                    .windows(11)
                    .any(|part| part == b"example.com");
                assert!(outcome == 0 || in_name, "byte {at} ^ {change:#x}");
                let mut changed = other.clone();
                changed[at] ^= change;
                assert_eq!(play_once(&changed), 0, "byte {at} ^ {change:#x} of another name");
            }
        }
    }
}

#[test]
fn what_comes_before_the_extensions_is_well_formed() {
    // Where it is in a hello of ours, what is to be there, and what the server would stumble over.
    let hello = Built::named("example.com").hello();
    let session = 5 + 4 + 2 + 32;
    let with = |at: usize, old: &[u8], new: &[u8]| {
        assert!(hello[at..].starts_with(old));
        let message = [&hello[5..at], new, &hello[at + old.len()..]].concat();
        let length = u32::try_from(message.len() - 4).unwrap().to_be_bytes();
        build::records(&[&[1], &length[1..], &message[4..]].concat(), 16_384)
    };
    let id = [4, 1, 2, 3, 4];
    let long = |length: u8| [vec![length], vec![7; usize::from(length)]].concat();
    assert_passes(443, &with(session, &id, &long(32)));
    assert_passes(443, &with(session, &id, &long(0)));
    assert_refused(&with(session, &id, &long(33)), Reason::NotTls);
    let ciphers = session + 5;
    assert_refused(&with(ciphers, &[0, 4, 0x13, 1, 0x13, 2], &[0, 0]), Reason::NotTls);
    assert_refused(
        &with(ciphers, &[0, 4, 0x13, 1, 0x13, 2], &[0, 3, 1, 2, 3]),
        Reason::NotTls,
    );
    assert_refused(&with(ciphers + 6, &[1, 0], &[0]), Reason::NotTls);
}

/// Each length field one more and one less than is true.
#[test]
fn no_length_may_be_wrong() {
    let built = Built::named("example.com").with(43, b"\x02\x03\x04");
    let hello = built.hello();
    for at in built.lengths() {
        for change in [1_u8, 0xff] {
            let mut changed = hello.clone();
            changed[at] = changed[at].wrapping_add(change);
            // As if the guest had ended: some of these wait for more.
            let outcome = play(443, &[guest(&changed), Say::GuestEnds]);
            assert_eq!(
                (outcome.refused, outcome.total()),
                (Some(Reason::NotTls), 0),
                "byte {at} + {change}"
            );
        }
    }
}

fn other_name_in(hello: &[u8]) -> Vec<u8> {
    let at = hello.windows(11).position(|part| part == b"example.com").unwrap();
    let mut other = hello.to_vec();
    other[at..at + 11].copy_from_slice(b"example.net");
    // One changed byte does not make it the right one again.
    other[at] = b'_';
    other
}

fn play_once(bytes: &[u8]) -> usize {
    match guard(443).from_guest(bytes) {
        Ok(Pass::Some(count)) => count,
        Ok(Pass::All) => panic!("nobody has answered"),
        Err(_) => 0,
    }
}

#[test]
fn an_extension_that_looks_like_a_name_is_none() {
    let hidden = Built::default()
        .with(0x4a4a, &extension(0, &server_name("example.com")))
        .hello();
    assert_refused(&hidden, Reason::NoServerName);
}
