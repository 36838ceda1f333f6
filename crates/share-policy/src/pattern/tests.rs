use super::*;
use crate::PatternSet;

fn fault(pattern: &str) -> PatternFault {
    match PatternSet::parse([pattern]) {
        Err(PatternError::Bad { fault, .. }) => fault,
        other => panic!("{pattern:?}: {other:?}"),
    }
}

#[test]
fn what_is_nearly_a_pattern_is_an_error_that_names_it() {
    for (pattern, expected) in [
        ("/", PatternFault::Empty),
        ("!", PatternFault::Empty),
        ("{,a}", PatternFault::Empty),
        ("//", PatternFault::Empty),
        ("a//b", PatternFault::Component),
        ("//a", PatternFault::Component),
        ("a/../b", PatternFault::Component),
        ("./a", PatternFault::Component),
        ("..", PatternFault::Component),
        ("{.,a}", PatternFault::Component),
        ("\u{200b}/a", PatternFault::Control),
        ("a**", PatternFault::PartialDoubleStar),
        ("***", PatternFault::PartialDoubleStar),
        ("{a", PatternFault::LonelyBrace),
        ("a}", PatternFault::LonelyBrace),
        ("}{", PatternFault::LonelyBrace),
        ("{a,{b,c}}", PatternFault::NestedBraces),
        ("[a", PatternFault::LonelyBracket),
        ("a]", PatternFault::LonelyBracket),
        ("[a/b]", PatternFault::LonelyBracket),
        ("[]", PatternFault::EmptyClass),
        ("[!]", PatternFault::EmptyClass),
        ("[b-a]", PatternFault::BackwardRange),
        ("[ä]", PatternFault::ForeignClass),
        ("a\\", PatternFault::LonelyBackslash),
        ("a\\/b", PatternFault::EscapedSlash),
        (" a", PatternFault::OuterSpace),
        ("a ", PatternFault::OuterSpace),
        ("a\0", PatternFault::Control),
        ("a\nb", PatternFault::Control),
        (&"a".repeat(MAX_PATTERN + 1), PatternFault::TooLong),
        (&vec!["a"; MAX_STEPS + 1].join("/"), PatternFault::TooDeep),
        (&"{a,b}".repeat(7), PatternFault::TooManyVariants),
    ] {
        assert_eq!(fault(pattern), expected, "{pattern:?}");
    }
    let error = PatternSet::parse(["fine", "{bad"]).unwrap_err();
    assert_eq!(error.to_string(), "pattern \"{bad\": brace without its partner");
}

#[test]
fn braces_cost_no_more_than_their_limit() {
    // 2^100 cases, if they were all written out.
    assert_eq!(fault(&"{a,b}".repeat(100)), PatternFault::TooManyVariants);
    assert_eq!(parse(&"{a,b}".repeat(6)).unwrap().len(), MAX_VARIANTS);
}

#[test]
fn a_double_star_at_either_end_is_another_word_for_something_simpler() {
    for (one, other) in [
        ("**/a", "a"),
        ("/**/a", "a"),
        ("**/**/a", "a"),
        ("a/**", "a/*"),
        ("a/**/**", "a/*"),
        ("a/**/**/b", "a/**/b"),
        ("**", "*"),
        ("/**", "/*"),
        ("a/", "a"),
        ("{a,b}", "{A,B}"),
        ("\\a", "a"),
    ] {
        assert_eq!(parse(one), parse(other), "{one}");
    }
    assert_eq!(
        parse(&vec!["a"; MAX_STEPS].join("/")).unwrap()[0].steps.len(),
        MAX_STEPS
    );
}
