use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Rule {
    Rule::parse(Effect::Allow, text).unwrap_or_else(|error| panic!("{error}"))
}

fn error(text: &str) -> RuleError {
    Rule::parse(Effect::Allow, text).expect_err(text)
}

fn host(name: &str) -> Pattern {
    Pattern::Host(name.parse().unwrap())
}

fn range(text: &str) -> Pattern {
    Pattern::Range(text.parse().unwrap())
}

#[test]
fn a_rule_is_read_as_people_write_it() {
    let ports = |first, last| Ports::Range { first, last };
    let below = |name: &str| Pattern::Below(name.parse().unwrap());
    for (text, pattern, of) in [
        ("example.com", host("example.com"), Ports::All),
        ("Example.COM.", host("example.com"), Ports::All),
        ("example.com.:443", host("example.com"), Ports::one(443)),
        ("*.example.com", below("example.com"), Ports::All),
        ("*.example.com:443", below("example.com"), Ports::one(443)),
        ("*", Pattern::AnyName, Ports::All),
        ("*:443", Pattern::AnyName, Ports::one(443)),
        ("localhost", host("localhost"), Ports::All),
        ("host:1-1024", host("host"), ports(1, 1024)),
        ("host:*", host("host"), Ports::All),
        ("10.0.0.0/8", range("10.0.0.0/8"), Ports::All),
        ("10.0.0.0/8:443", range("10.0.0.0/8"), Ports::one(443)),
        ("1.2.3.4:8080", range("1.2.3.4"), Ports::one(8080)),
        ("2001:db8::/32", range("2001:db8::/32"), Ports::All),
        ("2001:db8::1", range("2001:db8::1"), Ports::All),
        ("::1", range("::1"), Ports::All),
        ("[::1]", range("::1"), Ports::All),
        ("[2001:db8::1]:443", range("2001:db8::1"), Ports::one(443)),
        ("[2001:db8::/32]:1-2", range("2001:db8::/32"), ports(1, 2)),
        ("::ffff:10.0.0.1", range("10.0.0.1"), Ports::All),
    ] {
        let rule = read(text);
        assert_eq!((rule.pattern, rule.ports), (pattern, of), "{text}");
    }
}

#[test]
fn what_is_no_rule_is_told_where_and_what_was_meant() {
    for (text, at, meant) in [
        ("https://example.com/path", 6, Some("example.com:443")),
        (
            "http://user:secret@example.com:8080/a?b",
            5,
            Some("example.com:8080"),
        ),
        ("https://[2001:db8::1]/", 6, Some("[2001:db8::1]:443")),
        ("foo://example.com", 4, Some("example.com")),
        (".example.com", 1, Some("*.example.com")),
        ("*example.com", 1, Some("*.example.com")),
        ("foo.*.example.com", 5, Some("*.example.com")),
        ("foo.*.com", 5, None),
        ("*.*.example.com", 3, None),
        ("example.*", 9, None),
        ("**", 1, None),
        ("*.", 3, None),
        ("example.com:http", 13, Some("example.com:80")),
        ("example.com:", 13, Some("example.com")),
        ("example.com:0", 13, None),
        ("example.com:65536", 13, None),
        ("example.com:+80", 13, None),
        ("example.com:080", 13, None),
        ("example.com:80-http", 16, Some("example.com:80-80")),
        ("example.com:90-80", 13, Some("example.com:80-90")),
        ("example.com:80,443", 15, None),
        ("example.com:443/path", 16, Some("example.com:443")),
        ("example.com:80:90", 15, None),
        ("example.com/path", 12, Some("example.com")),
        ("@pip", 1, None),
        ("root@example.com", 5, Some("example.com")),
        (" example.com", 1, Some("example.com")),
        ("example.com other.test", 12, None),
        ("example.com\n", 12, Some("example.com")),
        ("exa\u{200b}mple.com", 4, None),
        ("b\u{fc}cher.example", 2, None),
        ("*.b\u{fc}cher.example", 4, None),
        ("-a.example", 1, None),
        ("a..example", 3, None),
        ("127.1", 1, Some("127.0.0.1")),
        ("0x7f000001", 1, Some("127.0.0.1")),
        ("2130706433:80", 1, Some("127.0.0.1:80")),
        ("017700000001", 1, Some("127.0.0.1")),
        ("10/8", 1, None),
        ("10.0/8", 1, Some("10.0.0.0/8")),
        ("10.0.0.1/8", 10, Some("10.0.0.0/8")),
        ("10.0.0.1/8:80", 10, Some("10.0.0.0/8:80")),
        ("10.0.0.0/33", 10, None),
        ("300.1.1.1", 1, None),
        ("0:0:0:0:0:0:0:1:443", 1, Some("[0:0:0:0:0:0:0:1]:443")),
        ("2001:db8::/32:443", 14, Some("[2001:db8::/32]:443")),
        ("[2001:db8::]/32:443", 13, Some("[2001:db8::/32]:443")),
        ("[2001:db8::1/32]:443", 14, Some("[2001:db8::/32]:443")),
        ("::1:8080", 1, Some("[::1]:8080")),
        ("::10.0.0.1", 1, Some("10.0.0.1")),
        ("fe80::1%eth0", 8, None),
        ("2001:db8::g", 11, None),
        ("[example.com]:80", 1, Some("example.com:80")),
        ("[1.2.3.4]:80", 1, Some("1.2.3.4:80")),
        ("[::1", 1, None),
        ("[::1]80", 6, None),
        ("[::1]:", 7, Some("::1")),
        ("", 1, None),
        (":443", 1, None),
    ] {
        let error = error(text);
        assert_eq!((error.at, error.meant.as_deref()), (at, meant), "{text}: {error}");
    }
}

#[test]
fn a_set_where_a_rule_is_expected_is_called_a_set() {
    assert!(error("@pip").why.contains("set"));
    assert!(error("@pip:443").why.contains("set"));
}

#[test]
fn a_rule_of_megabytes_is_not_repeated() {
    let error = error(&"a".repeat(1 << 20));
    assert!(error.to_string().len() < 1000);
}

#[test]
fn a_rule_is_shown_with_where_it_comes_from() {
    let mut rule = read("*.example.com:443");
    rule.from = "@pip".into();
    assert_eq!(rule.to_string(), "*.example.com:443 (@pip)");
    assert_eq!(rule.without_origin(), "*.example.com:443");
}

#[test]
fn a_rule_that_nobody_wrote_can_still_be_wrong() {
    let mut rule = read("example.com");
    assert_eq!(rule.check(), Ok(()));
    rule.from = "\u{1b}[2J".into();
    assert_eq!(rule.check(), Err(RuleFault::From));
    rule.from = "a".repeat(MAX_FROM + 1);
    assert_eq!(rule.check(), Err(RuleFault::From));
    rule.from.clear();
    for (first, last) in [(0, 5), (6, 5)] {
        rule.ports = Ports::Range { first, last };
        assert_eq!(rule.check(), Err(RuleFault::Ports { first, last }));
    }
}

#[test]
fn fewer_ports_are_narrower_and_all_that_are_named_are_narrower_than_none_named() {
    let order = ["h:7", "h:7-8", "h:1-65535", "h"].map(|text| read(text).ports.narrowness());
    assert!(order.is_sorted_by(|a, b| a > b), "{order:?}");
}

pub(crate) fn any_ports() -> impl Strategy<Value = Ports> {
    prop_oneof![
        Just(Ports::All),
        (1u16..).prop_map(Ports::one),
        (1u16.., 1u16..).prop_map(|(a, b)| Ports::Range {
            first: a.min(b),
            last: a.max(b)
        }),
    ]
}

fn any_pattern() -> impl Strategy<Value = Pattern> {
    let name = || "[a-z_]([a-z0-9_-]{0,8}[a-z])?(\\.[a-z]{1,5}){0,3}".prop_map(|name| name.parse().unwrap());
    prop_oneof![
        name().prop_map(Pattern::Host),
        name().prop_map(Pattern::Below),
        Just(Pattern::AnyName),
        (any::<std::net::IpAddr>(), 0u8..=128).prop_map(|(address, bits)| {
            Pattern::Range(AddressRange::around(crate::range::canonical(address), bits))
        }),
    ]
}

proptest! {
    #[test]
    fn what_is_shown_reads_the_same(pattern in any_pattern(), ports in any_ports()) {
        let rule = Rule { effect: Effect::Deny, pattern, ports, from: String::new() };
        prop_assert_eq!(Rule::parse(Effect::Deny, &rule.to_string()), Ok(rule));
    }

    #[test]
    fn no_text_is_too_odd_for_an_answer(text in "\\PC{0,40}|[\\]\\[a-c0-9x:./*@ %,-]{0,24}|(https?://)?[a-z0-9*:./@\u{fc}]{0,30}") {
        match Rule::parse(Effect::Allow, &text) {
            Ok(rule) => prop_assert_eq!(Rule::parse(Effect::Allow, &rule.to_string()), Ok(rule)),
            Err(error) => {
                prop_assert!(error.at >= 1 && error.at <= text.chars().count() + 1);
                if let Some(meant) = error.meant {
                    prop_assert!(Rule::parse(Effect::Allow, &meant).is_ok(), "{}", meant);
                }
            }
        }
    }
}
