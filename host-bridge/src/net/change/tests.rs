use super::*;

fn rule(effect: Effect, text: &str) -> Rule {
    Rule::parse(effect, text).unwrap()
}

fn of_set(effect: Effect, text: &str, from: &str) -> Rule {
    Rule {
        from: from.to_owned(),
        ..rule(effect, text)
    }
}

fn policy(rules: &[Rule]) -> EgressPolicy {
    EgressPolicy {
        rules: rules.to_vec(),
        ..EgressPolicy::default()
    }
}

fn added(there: &[&Rule], more: &[&Rule]) -> Vec<String> {
    let owned = |rules: &[&Rule]| -> Vec<Rule> { rules.iter().map(|rule| (*rule).clone()).collect() };
    let policy = NetChange::Add(owned(more))
        .applied(&policy(&owned(there)))
        .unwrap();
    policy.rules.iter().map(shown).collect()
}

use Effect::{Allow, Deny};

#[test]
fn the_same_rule_twice_is_one_rule_and_the_last_word_counts() {
    let (allow, deny) = (rule(Allow, "example.com"), rule(Deny, "example.com"));
    assert_eq!(added(&[&allow], &[&allow]), ["allow example.com"]);
    assert_eq!(added(&[&deny], &[&allow]), ["allow example.com"]);
    assert_eq!(added(&[&allow], &[&deny]), ["deny example.com"]);
    let port = rule(Deny, "example.com:80");
    assert_eq!(
        added(&[&allow], &[&port]),
        ["allow example.com", "deny example.com:80"]
    );
}

#[test]
fn a_set_stands_beside_what_was_typed_and_takes_the_place_of_itself_only() {
    let typed = rule(Deny, "example.com");
    let set = of_set(Allow, "example.com", "@a");
    assert_eq!(
        added(&[&typed], &[&set, &of_set(Allow, "example.com", "@b")]),
        [
            "deny example.com",
            "allow example.com (@a)",
            "allow example.com (@b)"
        ]
    );
    assert_eq!(added(&[&set], &[&set]), ["allow example.com (@a)"]);
    assert_eq!(added(&[&set], &[&typed]), ["deny example.com"]);
}

#[test]
fn a_host_that_is_denied_is_denied_at_the_ports_a_set_has_too() {
    let set = of_set(Allow, "example.com:443", "@a");
    let deny = rule(Deny, "example.com");
    assert_eq!(added(&[&set], &[&deny]), ["deny example.com"]);
    assert_eq!(added(&[&deny], &[&set]), ["deny example.com"]);
    let elsewhere = rule(Deny, "example.com:80");
    assert_eq!(
        added(&[&set], &[&elsewhere]),
        ["allow example.com:443 (@a)", "deny example.com:80"]
    );
    // Who types both says what is meant.
    let typed = rule(Allow, "example.com:443");
    assert_eq!(
        added(&[&typed], &[&deny]),
        ["allow example.com:443", "deny example.com"]
    );
}

#[test]
fn a_rule_is_forgotten_whatever_it_said_and_a_set_as_a_whole() {
    let there = policy(&[
        rule(Deny, "a.test"),
        of_set(Allow, "b.test", "@s"),
        of_set(Allow, "c.test", "@s"),
    ]);
    let forget = |gone| NetChange::Forget(vec![gone]).applied(&there);
    let left = forget(Forgotten::Rule(rule(Allow, "a.test"))).unwrap();
    assert_eq!(left.rules.len(), 2);
    let left = forget(Forgotten::Set("s".parse().unwrap())).unwrap();
    assert_eq!(left.rules, [rule(Deny, "a.test")]);
    let error = forget(Forgotten::Rule(rule(Allow, "a.test:1"))).unwrap_err();
    assert_eq!(error.to_string(), "no rule of the session is this: a.test:1");
    assert_eq!(error.hint().as_deref(), Some("there are: a.test, @s"));
}

#[test]
fn a_change_that_cannot_be_done_whole_is_not_done() {
    let there = policy(&[rule(Allow, "a.test")]);
    let gone = [rule(Allow, "a.test"), rule(Allow, "b.test")].map(Forgotten::Rule);
    assert!(NetChange::Forget(gone.into()).applied(&there).is_err());
    let many = |count: usize| (0..count).map(|n| rule(Allow, &format!("n{n}.test"))).collect();
    assert!(NetChange::Add(many(100)).applied(&there).is_ok());
}

#[test]
fn a_policy_that_would_not_fit_its_message_is_refused() {
    let there = EgressPolicy {
        rules: (0..MAX_RULES)
            .map(|n| rule(Allow, &format!("n{n}.test")))
            .collect(),
        ..EgressPolicy::default()
    };
    let more = NetChange::Add(vec![rule(Allow, "one-more.test")]);
    assert!(matches!(more.applied(&there), Err(Error::TooManyRules { .. })));
    let long = format!("{}.test", vec!["x".repeat(60); 3].join("."));
    let long = |n: usize| rule(Allow, &format!("n{n}.{}", &long));
    let there = EgressPolicy {
        rules: (0..MAX_RULES - 1).map(long).collect(),
        ..EgressPolicy::default()
    };
    assert!(matches!(more.applied(&there), Err(Error::PolicyTooLong { .. })));
}
