//! One component of a pattern against one component of a path.

use crate::{
    fold::{Room, fold},
    path::MAX_COMPONENT,
};

/// Matches in at most `tokens * name` steps: only the last star is ever tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glob {
    /// What every name that matches begins with, if two bytes of it are sure. Turns down nearly every name at once.
    prefix: Option<[u8; 2]>,
    shape: Shape,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Shape {
    /// `*`
    Any,
    Literal(Box<[u8]>),
    /// `*.git`
    Suffix(Box<[u8]>),
    Tokens(Box<[Token]>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// In lower case.
    Byte(u8),
    /// `?`: any one byte.
    One,
    /// `*`: any number of bytes, also a leading dot.
    Star,
    Class(Box<Class>),
}

/// `[a-z]`, `[!a-z]`: ASCII in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) negated: bool,
    set: u128,
}

impl Class {
    pub(crate) fn add(&mut self, byte: u8) {
        self.set |= bit(byte);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.set == 0
    }

    fn contains(&self, byte: u8) -> bool {
        (self.set & bit(byte) != 0) != self.negated
    }
}

/// Nothing for what is not ASCII.
fn bit(byte: u8) -> u128 {
    1u128
        .checked_shl(u32::from(byte.to_ascii_lowercase()))
        .unwrap_or(0)
}

impl Glob {
    pub(crate) fn new(tokens: Vec<Token>) -> Self {
        let prefix = match tokens.as_slice() {
            [Token::Byte(first), Token::Byte(second), ..] => Some([*first, *second]),
            _ => None,
        };
        Glob {
            prefix,
            shape: Shape::new(tokens),
        }
    }

    /// `*`
    pub(crate) fn any() -> Self {
        Glob {
            prefix: None,
            shape: Shape::Any,
        }
    }

    pub(crate) fn prefix(&self) -> Option<[u8; 2]> {
        self.prefix
    }

    pub(crate) fn matches(&self, name: &[u8]) -> bool {
        // ASCII at the front of a name stays there when the name is folded.
        if let (Some(prefix), Some(front)) = (self.prefix, name.first_chunk::<2>())
            && front.is_ascii()
            && !front.eq_ignore_ascii_case(&prefix)
        {
            return false;
        }
        if name.is_ascii() {
            self.shape.matches(name)
        } else {
            self.matches_unicode(name)
        }
    }

    #[cold]
    fn matches_unicode(&self, name: &[u8]) -> bool {
        let mut room: Room = [0; MAX_COMPONENT];
        self.shape.matches(fold(name, &mut room))
    }
}

impl Shape {
    fn new(tokens: Vec<Token>) -> Self {
        match tokens.as_slice() {
            [Token::Star] => Shape::Any,
            [Token::Star, rest @ ..] => match literal(rest) {
                Some(suffix) => Shape::Suffix(suffix),
                None => Shape::Tokens(tokens.into()),
            },
            all => match literal(all) {
                Some(whole) => Shape::Literal(whole),
                None => Shape::Tokens(tokens.into()),
            },
        }
    }

    fn matches(&self, name: &[u8]) -> bool {
        match self {
            Shape::Any => true,
            Shape::Literal(literal) => literal.eq_ignore_ascii_case(name),
            Shape::Suffix(suffix) => name
                .len()
                .checked_sub(suffix.len())
                .and_then(|start| name.get(start..))
                .is_some_and(|end| suffix.eq_ignore_ascii_case(end)),
            Shape::Tokens(tokens) => matches_tokens(tokens, name),
        }
    }
}

fn literal(tokens: &[Token]) -> Option<Box<[u8]>> {
    let byte = |token: &Token| match token {
        Token::Byte(byte) => Some(*byte),
        _ => None,
    };
    tokens.iter().map(byte).collect()
}

/// The classic walk: on a mismatch, the last star swallows one byte more. Trying an earlier star again could not
/// help: whatever it would reach, the last one reaches too.
fn matches_tokens(tokens: &[Token], name: &[u8]) -> bool {
    let (mut token, mut at) = (0, 0);
    let mut retry = None;
    loop {
        match (tokens.get(token), name.get(at)) {
            (None, None) => return true,
            (Some(Token::Star), _) => {
                retry = Some((token, at));
                token += 1;
                continue;
            }
            (Some(one), Some(byte)) if one.takes(*byte) => {
                token += 1;
                at += 1;
                continue;
            }
            _ => {}
        }
        match retry {
            Some((star, from)) if from < name.len() => {
                retry = Some((star, from + 1));
                token = star + 1;
                at = from + 1;
            }
            _ => return false,
        }
    }
}

impl Token {
    fn takes(&self, byte: u8) -> bool {
        match self {
            Token::Byte(own) => *own == byte.to_ascii_lowercase(),
            Token::One => true,
            Token::Class(class) => class.contains(byte),
            Token::Star => false,
        }
    }
}
