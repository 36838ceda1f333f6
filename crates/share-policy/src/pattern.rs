//! Reads a pattern as a person writes it.
//!
//! ```text
//!   .envrc                  a file or directory of that name, at any depth, and everything below it
//!   .vscode/tasks.json      several components: as an end of a path, at any depth
//!   /build                  only in the share's root
//!   !.vscode/tasks.json     takes back what earlier patterns of the list say of it, and of everything below it
//!   *  ?                    any bytes of one component, any one byte; also a leading dot
//!   [a-z_]  [!a-z]          one of these ASCII characters, or none of them
//!   {a,b/c,}                one of these texts
//!   a/**/b                  any number of components between
//!   \                       the next character means itself
//! ```
//!
//! Case does not count (the module `fold` says why). A slash at the end says nothing: directories and files are
//! matched alike. What is nearly a pattern is an error, not a guess, since a guess would leave open what the
//! person meant to close.

use crate::{
    fold::{fold_text, is_ignorable},
    glob::{Class, Glob, Token},
    rule::{MAX_STEPS, Rule, Step},
};

/// Bytes of one pattern, as long as in vmm-api.
pub const MAX_PATTERN: usize = 512;
/// What the braces of one pattern may stand for, all told.
pub const MAX_VARIANTS: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("pattern {pattern:?}: {fault}")]
    Bad { pattern: String, fault: PatternFault },
    #[error("more than {} patterns in a list", crate::MAX_PATTERNS)]
    TooManyPatterns,
    #[error("patterns with braces for more than {} cases in a list", crate::MAX_RULES)]
    TooManyRules,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternFault {
    #[error("nothing in it that could match")]
    Empty,
    #[error("longer than {MAX_PATTERN} bytes")]
    TooLong,
    #[error("more than {MAX_STEPS} components")]
    TooDeep,
    #[error("braces for more than {MAX_VARIANTS} cases")]
    TooManyVariants,
    #[error("begins or ends with a space; write \"\\ \" if it is meant")]
    OuterSpace,
    #[error("control character, or one that cannot be seen")]
    Control,
    #[error("component that is empty, . or ..")]
    Component,
    #[error("** that is not a whole component")]
    PartialDoubleStar,
    #[error("brace without its partner")]
    LonelyBrace,
    #[error("braces within braces")]
    NestedBraces,
    #[error("bracket without its partner")]
    LonelyBracket,
    #[error("brackets with nothing between them")]
    EmptyClass,
    #[error("range that runs backwards")]
    BackwardRange,
    #[error("brackets with something other than ASCII")]
    ForeignClass,
    #[error("backslash with nothing behind it")]
    LonelyBackslash,
    #[error("backslash before a slash")]
    EscapedSlash,
}

/// The rules a pattern stands for: one for every choice its braces leave.
pub(crate) fn parse(pattern: &str) -> Result<Vec<Rule>, PatternError> {
    rules(pattern).map_err(|fault| PatternError::Bad {
        pattern: shown(pattern),
        fault,
    })
}

/// An error that is as long as what caused it helps nobody.
fn shown(pattern: &str) -> String {
    pattern.chars().take(MAX_PATTERN).collect()
}

fn rules(pattern: &str) -> Result<Vec<Rule>, PatternFault> {
    check(pattern)?;
    let (takes_back, rest) = match pattern.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let signs = signs(&fold_text(rest))?;
    let mut variants = Vec::new();
    expand(&signs, &mut variants)?;
    variants.iter().map(|signs| rule(signs, takes_back)).collect()
}

fn check(pattern: &str) -> Result<(), PatternFault> {
    if pattern.len() > MAX_PATTERN {
        return Err(PatternFault::TooLong);
    }
    if pattern
        .chars()
        .any(|sign| sign.is_control() || is_ignorable(sign))
    {
        return Err(PatternFault::Control);
    }
    let ends_plainly = pattern.ends_with(char::is_whitespace) && !pattern.ends_with("\\ ");
    if pattern.starts_with(char::is_whitespace) || ends_plainly {
        return Err(PatternFault::OuterSpace);
    }
    Ok(())
}

/// A character of a pattern, backslashes resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Literal(u8),
    /// One of [`SPECIAL`], unescaped.
    Special(u8),
}

const SPECIAL: &[u8] = b"*?[]{},/";

fn signs(text: &[u8]) -> Result<Vec<Sign>, PatternFault> {
    let mut signs = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        signs.push(match byte {
            b'\\' => match bytes.next() {
                None => return Err(PatternFault::LonelyBackslash),
                Some(b'/') => return Err(PatternFault::EscapedSlash),
                Some(escaped) => Sign::Literal(escaped),
            },
            _ if SPECIAL.contains(&byte) => Sign::Special(byte),
            _ => Sign::Literal(byte),
        });
    }
    Ok(signs)
}

/// Writes out the first braces, and so on with what each choice gives.
fn expand(signs: &[Sign], variants: &mut Vec<Vec<Sign>>) -> Result<(), PatternFault> {
    let find = |byte| signs.iter().position(|sign| *sign == Sign::Special(byte));
    let (open, close) = match (find(b'{'), find(b'}')) {
        (None, None) if variants.len() == MAX_VARIANTS => return Err(PatternFault::TooManyVariants),
        (None, None) => {
            variants.push(signs.to_vec());
            return Ok(());
        }
        (Some(open), Some(close)) if open < close => (open, close),
        _ => return Err(PatternFault::LonelyBrace),
    };
    let (before, choices) = (
        signs.get(..open).unwrap_or(&[]),
        signs.get(open + 1..close).unwrap_or(&[]),
    );
    let after = signs.get(close + 1..).unwrap_or(&[]);
    if choices.contains(&Sign::Special(b'{')) {
        return Err(PatternFault::NestedBraces);
    }
    choices
        .split(|sign| *sign == Sign::Special(b','))
        .try_for_each(|choice| expand(&[before, choice, after].concat(), variants))
}

fn rule(signs: &[Sign], takes_back: bool) -> Result<Rule, PatternFault> {
    let slash = Sign::Special(b'/');
    let anchored = signs.first() == Some(&slash);
    let signs = signs.strip_prefix(&[slash]).unwrap_or(signs);
    let signs = signs.strip_suffix(&[slash]).unwrap_or(signs);
    if signs.is_empty() {
        return Err(PatternFault::Empty);
    }
    let mut parts = signs
        .split(|sign| *sign == slash)
        .map(part)
        .collect::<Result<Vec<_>, _>>()?;
    parts.dedup_by(|one, other| *one == Step::AnyDepth && *other == Step::AnyDepth);
    // Everything below a directory is what its entries are, and everything below those.
    if let Some(last @ Step::AnyDepth) = parts.last_mut() {
        *last = Step::Name(Glob::any());
    }
    // A `**` at the front says that the rule floats, as the missing slash does.
    let floats = !anchored || parts.first() == Some(&Step::AnyDepth);
    if parts.first() == Some(&Step::AnyDepth) {
        parts.remove(0);
    }
    if parts.len() > MAX_STEPS {
        return Err(PatternFault::TooDeep);
    }
    Ok(Rule {
        takes_back,
        floats,
        steps: parts.into(),
    })
}

fn part(signs: &[Sign]) -> Result<Step, PatternFault> {
    let star = Sign::Special(b'*');
    if signs == [star, star] {
        return Ok(Step::AnyDepth);
    }
    if signs.windows(2).any(|pair| pair == [star, star]) {
        return Err(PatternFault::PartialDoubleStar);
    }
    let dot = Sign::Literal(b'.');
    if signs.is_empty() || signs == [dot] || signs == [dot, dot] {
        return Err(PatternFault::Component);
    }
    tokens(signs).map(|tokens| Step::Name(Glob::new(tokens)))
}

fn tokens(signs: &[Sign]) -> Result<Vec<Token>, PatternFault> {
    let mut tokens = Vec::with_capacity(signs.len());
    let mut rest = signs;
    while let Some((sign, behind)) = rest.split_first() {
        rest = behind;
        tokens.push(match sign {
            Sign::Special(b'*') => Token::Star,
            Sign::Special(b'?') => Token::One,
            Sign::Special(b'[') => {
                let end = rest.iter().position(|sign| *sign == Sign::Special(b']'));
                let end = end.ok_or(PatternFault::LonelyBracket)?;
                let (inner, behind) = rest.split_at(end);
                rest = behind.get(1..).unwrap_or(&[]);
                Token::Class(Box::new(class(inner)?))
            }
            Sign::Special(b']') => return Err(PatternFault::LonelyBracket),
            Sign::Literal(byte) | Sign::Special(byte) => Token::Byte(*byte),
        });
    }
    Ok(tokens)
}

fn class(signs: &[Sign]) -> Result<Class, PatternFault> {
    let mut class = Class::default();
    let mut rest = signs;
    if let [Sign::Literal(b'!' | b'^'), behind @ ..] = rest {
        class.negated = true;
        rest = behind;
    }
    while let [first, behind @ ..] = rest {
        let first = ascii(*first)?;
        rest = behind;
        let mut last = first;
        if let [Sign::Literal(b'-'), end, behind @ ..] = rest {
            last = ascii(*end)?;
            rest = behind;
        }
        if last < first {
            return Err(PatternFault::BackwardRange);
        }
        (first..=last).for_each(|byte| class.add(byte));
    }
    if class.is_empty() {
        Err(PatternFault::EmptyClass)
    } else {
        Ok(class)
    }
}

fn ascii(sign: Sign) -> Result<u8, PatternFault> {
    match sign {
        Sign::Literal(byte) | Sign::Special(byte) if byte.is_ascii() => Ok(byte),
        _ => Err(PatternFault::ForeignClass),
    }
}

#[cfg(test)]
mod tests;
