use super::*;

fn policy(rules: &[&str]) -> EgressPolicy {
    EgressPolicy {
        rules: rules.iter().map(|text| rule(text)).collect(),
        ..EgressPolicy::default()
    }
}

/// `+` allows, `-` denies.
fn rule(text: &str) -> Rule {
    let (effect, text) = match text.strip_prefix('-') {
        Some(text) => (Effect::Deny, text),
        None => (Effect::Allow, text.strip_prefix('+').unwrap()),
    };
    Rule::parse(effect, text).unwrap()
}

fn asking(rules: &[&str]) -> EgressPolicy {
    EgressPolicy {
        unknown: Unknown::Ask,
        ..policy(rules)
    }
}

fn name(text: &str) -> HostName {
    text.parse().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn said(verdict: &Verdict<'_>) -> String {
    match verdict {
        Verdict::Allow(rule) => format!("+{rule}"),
        Verdict::Refuse(reason, Some(rule)) => format!("{reason:?} -{rule}"),
        Verdict::Refuse(reason, None) => format!("{reason:?}"),
        Verdict::Ask => "ask".into(),
    }
}

fn to_name(policy: &EgressPolicy, text: &str, port: u16) -> String {
    said(&policy.decide(&Target::Name(name(text)), port))
}

fn to_address(policy: &EgressPolicy, text: &str, port: u16) -> String {
    said(&policy.decide(&Target::Address(address(text)), port))
}

fn led_to(rules: &[&str], text: &str) -> Result<(), Reason> {
    policy(rules).decide_address(address(text), 443, &[])
}

#[test]
fn with_no_rule_nothing_is_allowed() {
    let policy = EgressPolicy::default();
    assert_eq!(said(&policy.decide_name(&name("example.com"))), "NoRule");
    assert_eq!(to_name(&policy, "example.com", 443), "NoRule");
    assert_eq!(to_address(&policy, "203.0.113.80", 443), "NoRule");
}

#[test]
fn a_host_counts_before_what_is_below_a_name_and_a_longer_name_before_a_shorter() {
    let policy = policy(&["-*", "+*.example.com", "-*.b.example.com", "+a.b.example.com"]);
    assert_eq!(to_name(&policy, "other.test", 1), "Denied -*");
    assert_eq!(to_name(&policy, "example.com", 1), "Denied -*");
    assert_eq!(to_name(&policy, "a.example.com", 1), "+*.example.com");
    assert_eq!(to_name(&policy, "c.b.example.com", 1), "Denied -*.b.example.com");
    assert_eq!(to_name(&policy, "a.b.example.com", 1), "+a.b.example.com");
    assert_eq!(
        to_name(&policy, "x.a.b.example.com", 1),
        "Denied -*.b.example.com"
    );
}

#[test]
fn a_port_counts_within_one_pattern_and_not_beyond_it() {
    let within = policy(&["-example.com", "+example.com:443"]);
    assert_eq!(to_name(&within, "example.com", 443), "+example.com:443");
    assert_eq!(to_name(&within, "example.com", 80), "Denied -example.com");
    let beyond = policy(&["+*:443", "-example.com"]);
    assert_eq!(to_name(&beyond, "example.com", 443), "Denied -example.com");
    let narrower = policy(&["-example.com:1-1024", "+example.com:443", "+example.com:1-65535"]);
    assert_eq!(to_name(&narrower, "example.com", 443), "+example.com:443");
    assert_eq!(
        to_name(&narrower, "example.com", 80),
        "Denied -example.com:1-1024"
    );
    assert_eq!(to_name(&narrower, "example.com", 8080), "+example.com:1-65535");
}

#[test]
fn among_equals_a_deny_rule_decides_wherever_it_stands() {
    for rules in [["+example.com", "-example.com"], ["-example.com", "+example.com"]] {
        assert_eq!(
            to_name(&policy(&rules), "example.com", 443),
            "Denied -example.com"
        );
    }
    for rules in [
        ["+203.0.113.0/24", "-203.0.113.0/24"],
        ["-203.0.113.0/24", "+203.0.113.0/24"],
    ] {
        assert_eq!(
            to_address(&policy(&rules), "203.0.113.1", 443),
            "Denied -203.0.113.0/24"
        );
    }
}

#[test]
fn a_name_is_known_when_a_port_of_it_is_left() {
    let known = |rules: &[&str]| said(&policy(rules).decide_name(&name("a.example.com")));
    assert_eq!(known(&["+a.example.com:443"]), "+a.example.com:443");
    assert_eq!(known(&["+*", "-a.example.com:443"]), "+*");
    assert_eq!(known(&["+*", "-a.example.com"]), "Denied -a.example.com");
    assert_eq!(
        known(&["+*:443", "-a.example.com:400-500"]),
        "Denied -a.example.com:400-500"
    );
    let both_halves = ["+*", "-a.example.com:1-1000", "-a.example.com:1001-65535"];
    assert!(known(&both_halves).starts_with("Denied"));
    assert_eq!(
        known(&["+*", "-a.example.com:1-1000", "-a.example.com:1002-65535"]),
        "+*"
    );
    assert_eq!(known(&["+example.com", "+b.example.com"]), "NoRule");
}

#[test]
fn what_no_rule_is_about_is_asked_and_what_one_denies_is_not() {
    let policy = asking(&["+example.com:443", "-*.test", "-half.invalid:80"]);
    assert_eq!(to_name(&policy, "other.invalid", 443), "ask");
    assert_eq!(to_name(&policy, "example.com", 80), "ask");
    assert_eq!(to_name(&policy, "a.test", 80), "Denied -*.test");
    assert_eq!(said(&policy.decide_name(&name("other.invalid"))), "ask");
    assert_eq!(said(&policy.decide_name(&name("a.test"))), "Denied -*.test");
    assert_eq!(said(&policy.decide_name(&name("half.invalid"))), "ask");
    assert_eq!(to_address(&policy, "203.0.113.80", 443), "ask");
}

#[test]
fn nobody_is_asked_about_a_special_address() {
    for text in [
        "169.254.169.254",
        "127.0.0.1",
        "::1",
        "10.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
    ] {
        assert!(matches!(
            asking(&["+*"]).decide(&Target::Address(address(text)), 80),
            Verdict::Refuse(_, None)
        ));
    }
}

#[test]
fn a_star_is_no_address() {
    assert_eq!(to_address(&policy(&["+*"]), "203.0.113.80", 443), "NoRule");
    assert_eq!(to_name(&policy(&["+0.0.0.0/0"]), "example.com", 443), "NoRule");
}

#[test]
fn an_address_is_reached_by_its_range_and_port_only() {
    let policy = policy(&[
        "+203.0.113.0/24:443",
        "-203.0.113.7",
        "+203.0.113.7:8443",
        "+2001:db8::/32",
    ]);
    assert_eq!(to_address(&policy, "203.0.113.80", 443), "+203.0.113.0/24:443");
    assert_eq!(to_address(&policy, "203.0.113.80", 80), "NoRule");
    assert_eq!(to_address(&policy, "203.0.113.7", 443), "Denied -203.0.113.7");
    assert_eq!(to_address(&policy, "203.0.113.7", 8443), "+203.0.113.7:8443");
    assert_eq!(to_address(&policy, "2001:db8::1", 1), "+2001:db8::/32");
    assert_eq!(
        to_address(&policy, "::ffff:203.0.113.80", 443),
        "+203.0.113.0/24:443"
    );
}

#[test]
fn no_name_leads_to_a_special_address() {
    for (text, reason) in [
        ("169.254.169.254", Reason::Metadata),
        ("127.0.0.1", Reason::Loopback),
        ("::1", Reason::Loopback),
        ("10.0.0.1", Reason::Private),
        ("fd00::1", Reason::Private),
        ("169.254.1.1", Reason::LinkLocal),
        ("100.64.0.1", Reason::CarrierNat),
        ("224.0.0.1", Reason::Multicast),
        ("0.0.0.0", Reason::Unspecified),
        ("::", Reason::Unspecified),
        ("255.255.255.255", Reason::Reserved),
        ("198.18.1.5", Reason::Reserved),
        ("::ffff:127.0.0.1", Reason::Loopback),
        ("2002:7f00:1::", Reason::Loopback),
        ("64:ff9b::a9fe:a9fe", Reason::Metadata),
    ] {
        assert_eq!(
            led_to(&["+*", "+0.0.0.0/0", "+::/0"], text),
            Err(reason),
            "{text}"
        );
        assert_eq!(
            to_address(&policy(&["+0.0.0.0/0", "+::/0"]), text, 443),
            format!("{reason:?}")
        );
    }
}

#[test]
fn a_name_leads_to_every_other_address_without_a_rule_for_it() {
    for text in ["203.0.113.80", "8.8.8.8", "2600::1", "64:ff9b::808:808"] {
        assert_eq!(led_to(&["+*"], text), Ok(()));
    }
}

#[test]
fn a_rule_within_the_special_range_opens_it_and_one_that_reaches_beyond_does_not() {
    for open in [
        "+10.0.0.0/8",
        "+10.1.0.0/16",
        "+10.1.2.3",
        "+10.1.2.3:443",
        "+::ffff:10.0.0.0/104",
    ] {
        assert_eq!(led_to(&[open], "10.1.2.3"), Ok(()), "{open}");
        assert!(to_address(&policy(&[open]), "10.1.2.3", 443).starts_with('+'));
    }
    for shut in [
        "+10.0.0.0/7",
        "+8.0.0.0/5",
        "+0.0.0.0/0",
        "+10.1.2.3:80",
        "+10.1.2.4",
        "+10.2.0.0/16",
    ] {
        assert_eq!(led_to(&[shut], "10.1.2.3"), Err(Reason::Private), "{shut}");
    }
    assert_eq!(led_to(&["+127.0.0.0/8"], "127.0.0.1"), Ok(()));
    assert_eq!(led_to(&["+fc00::/7"], "fd12::1"), Ok(()));
    assert_eq!(led_to(&["+198.18.0.0/15"], "198.18.0.1"), Ok(()));
}

#[test]
fn a_metadata_service_is_opened_by_its_address_alone() {
    for (wide, text) in [
        ("+169.254.0.0/16", "169.254.169.254"),
        ("+169.254.169.254/31", "169.254.169.254"),
        ("+100.64.0.0/10", "100.100.100.200"),
        ("+fc00::/7", "fd00:ec2::254"),
    ] {
        assert_eq!(led_to(&[wide], text), Err(Reason::Metadata));
        assert_eq!(led_to(&[&format!("+{text}")], text), Ok(()));
    }
}

#[test]
fn a_translated_special_address_is_opened_in_its_own_spelling() {
    assert_eq!(led_to(&["+10.0.0.0/8"], "64:ff9b::a00:1"), Err(Reason::Private));
    assert_eq!(led_to(&["+64:ff9b::/96"], "64:ff9b::a00:1"), Err(Reason::Private));
    assert_eq!(led_to(&["+64:ff9b::a00:0/104"], "64:ff9b::a00:1"), Ok(()));
    assert_eq!(led_to(&["+2002:a00::/24"], "2002:a00:1::"), Ok(()));
}

#[test]
fn a_range_that_is_denied_is_denied_to_names_and_in_every_spelling() {
    let rules = [
        "+*",
        "+::/0",
        "-203.0.113.0/24",
        "+203.0.113.7",
        "-10.1.0.0/16",
        "+10.0.0.0/8",
    ];
    for text in [
        "203.0.113.80",
        "::ffff:203.0.113.80",
        "64:ff9b::cb00:7150",
        "2002:cb00:7150::1",
        "10.1.0.1",
    ] {
        assert_eq!(led_to(&rules, text), Err(Reason::Denied), "{text}");
        assert!(
            to_address(&policy(&rules), text, 443).starts_with("Denied"),
            "{text}"
        );
    }
    assert_eq!(led_to(&rules, "203.0.113.7"), Ok(()));
    assert_eq!(led_to(&rules, "10.2.0.1"), Ok(()));
    assert_eq!(led_to(&["-203.0.113.0/24:80"], "203.0.113.80"), Ok(()));
}

#[test]
fn this_host_is_reached_by_its_address_alone() {
    let own = ["203.0.113.9", "192.168.1.5", "127.0.0.1", "2001:db8::9"].map(address);
    let ask = |rules: &[&str], text: &str| policy(rules).decide_address(address(text), 443, &own);
    for text in [
        "203.0.113.9",
        "192.168.1.5",
        "::ffff:203.0.113.9",
        "64:ff9b::cb00:7109",
        "2001:db8::9",
    ] {
        let wide = ["+*", "+203.0.113.0/24", "+192.168.0.0/16", "+2001:db8::/32"];
        assert_eq!(ask(&wide, text), Err(Reason::ThisHost), "{text}");
        assert_eq!(ask(&[&format!("+{text}")], text), Ok(()));
    }
    assert_eq!(ask(&["+*"], "203.0.113.10"), Ok(()));
    assert_eq!(ask(&["+192.168.0.0/16"], "192.168.1.6"), Ok(()));
    assert_eq!(ask(&["+127.0.0.0/8"], "127.0.0.1"), Ok(()));
    assert_eq!(ask(&["+*"], "127.0.0.1"), Err(Reason::Loopback));
}

#[test]
fn a_policy_that_is_too_large_or_wrong_is_not_read() {
    let one = rule("+example.com");
    let many = |count| EgressPolicy {
        rules: vec![one.clone(); count],
        ..EgressPolicy::default()
    };
    let read = |policy: &EgressPolicy| {
        serde_json::from_str::<EgressPolicy>(&serde_json::to_string(policy).unwrap()).is_ok()
    };
    assert!(many(MAX_RULES).check().is_ok() && read(&many(MAX_RULES)));
    assert!(many(MAX_RULES + 1).check().is_err() && !read(&many(MAX_RULES + 1)));
    let mut wrong = many(1);
    wrong.rules[0].ports = Ports::Range { first: 9, last: 1 };
    assert!(wrong.check().is_err() && !read(&wrong));
}

#[test]
fn a_policy_in_json_is_what_is_documented() {
    let text = r#"{"rules":[
        {"effect":"allow","pattern":{"below":"example.com"},"ports":{"range":{"first":443,"last":443}},"from":"@some"},
        {"effect":"deny","pattern":{"range":"10.0.0.0/8"},"ports":"all"},
        {"effect":"deny","pattern":"any-name","ports":"all"}],"unknown":"ask"}"#;
    let policy: EgressPolicy = serde_json::from_str(text).unwrap();
    let shown: Vec<_> = policy.rules.iter().map(Rule::to_string).collect();
    assert_eq!(shown, ["*.example.com:443 (@some)", "10.0.0.0/8", "*"]);
    assert!(serde_json::from_str::<EgressPolicy>(r#"{"rules":[],"unknwon":"ask"}"#).is_err());
    assert!(serde_json::from_str::<EgressPolicy>("{}").is_err());
}
