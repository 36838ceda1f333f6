//! What was typed: `PATH`, `PATH:OPTIONS`, `PATH:AS` or `PATH:OPTIONS:AS`.
//!
//! A colon always separates; one that belongs to the path is `\:`, and `\\` is a backslash. In OPTIONS a comma
//! separates, and `\,` is one. What can be read in two ways, or is nearly an option, is refused: a folder shared
//! writable because `readonly` was taken for a name would be worse than a question.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
};

use vmm_api::ShareCache;

use crate::{Error, Result, names::edits, shape::parse_bytes};

/// One `--share`, split and read, with nothing looked up yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Typed {
    pub(crate) whole: OsString,
    pub(crate) path: OsString,
    pub(crate) options: Vec<ShareOption>,
    pub(crate) name: Option<String>,
    /// The paths this would be with one colon more taken as part of it, and how to type each.
    pub(crate) other_readings: Vec<(OsString, OsString)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ShareOption {
    Mode(Mode),
    Cache(ShareCache),
    Hide(String),
    Show(String),
    Protect(String),
    Unprotect(String),
    MaxBytes(u64),
    MaxFiles(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    ReadOnly,
    ReadWrite,
    Review,
}

impl Typed {
    pub(crate) fn parse(whole: &OsStr) -> Result<Self> {
        let refuse = |why: String, hint: String| invalid(whole, &why, hint);
        let fields = split(whole.as_bytes(), b':');
        let text = |field: &[u8]| {
            String::from_utf8(field.to_vec())
                .map_err(|_| refuse("options and names must be UTF-8".into(), FORM.into()))
        };
        let (path, options, name) = match fields.as_slice() {
            [path] => (path, Vec::new(), None),
            [path, field] => {
                let (options, name) =
                    options_or_name(&text(field)?).map_err(|(why, hint)| refuse(why, hint))?;
                (path, options, name)
            }
            [path, options, name] => {
                let (options, name) = (text(options)?, text(name)?);
                let options = options_of(&options).map_err(|(why, hint)| refuse(why, hint))?;
                let name = name_of(&name).map_err(|(why, hint)| refuse(why, hint))?;
                (path, options, Some(name))
            }
            _ => {
                let why = "more than PATH, OPTIONS and a name".to_owned();
                return Err(refuse(why, COLON_HINT.into()));
            }
        };
        let path = unescape(path, b":");
        if path.is_empty() {
            return Err(refuse("no path".into(), FORM.into()));
        }
        Ok(Typed {
            whole: whole.to_owned(),
            path: OsString::from_vec(path),
            options,
            name,
            other_readings: other_readings(&fields),
        })
    }
}

const FORM: &str = "--share PATH[:OPTIONS][:AS], such as ./src, ./src:ro or ./src:ro,hide=*.key:code";
const COLON_HINT: &str = r"write \: for a colon that belongs to the path";

/// What is wrong with a field, and what to type instead.
type Wrong = (String, String);

pub(super) fn invalid(whole: &OsStr, why: &str, hint: impl Into<String>) -> Error {
    Error::Usage {
        what: format!("--share is not valid: {:?}: {why}", whole.to_string_lossy()),
        hint: hint.into(),
    }
}

fn options_or_name(field: &str) -> Result<(Vec<ShareOption>, Option<String>), Wrong> {
    if field.is_empty() {
        return Err(("nothing after the colon".into(), FORM.into()));
    }
    let has_form_of_options = field.contains([',', '=']);
    match options_of(field) {
        Ok(options) => Ok((options, None)),
        Err(wrong) if has_form_of_options => Err(wrong),
        Err((why, _)) if looks_like_option(field) => {
            let hint = format!("{OPTIONS_HINT}; a folder of that name is PATH::{field}");
            Err((why, hint))
        }
        Err(_) => Ok((Vec::new(), Some(name_of(field)?))),
    }
}

/// Empty is none, so that `PATH::NAME` names a folder with no more said.
fn options_of(field: &str) -> Result<Vec<ShareOption>, Wrong> {
    let mut options: Vec<ShareOption> = Vec::new();
    if field.is_empty() {
        return Ok(options);
    }
    for item in split(field.as_bytes(), b',') {
        let item = unescape(&item, b":,");
        let item = String::from_utf8_lossy(&item);
        let option = ShareOption::parse(&item).ok_or_else(|| unknown(&item))??;
        let again = |had: &ShareOption| {
            std::mem::discriminant(had) == std::mem::discriminant(&option) && !option.may_come_again()
        };
        if options.iter().any(again) {
            return Err((
                format!("{item:?} and what is before it say different things"),
                "say it once".into(),
            ));
        }
        options.push(option);
    }
    Ok(options)
}

impl ShareOption {
    /// `None` is a word that is no option; an error is an option whose value is none.
    fn parse(item: &str) -> Option<Result<Self, Wrong>> {
        let (key, value) = item
            .split_once('=')
            .map_or((item, None), |(key, value)| (key, Some(value)));
        let bad = |why: &str| Some(Err((format!("{item:?}: {why}"), OPTIONS_HINT.to_owned())));
        let option = match (key, value) {
            ("ro", None) => ShareOption::Mode(Mode::ReadOnly),
            ("rw", None) => ShareOption::Mode(Mode::ReadWrite),
            ("review", None) => ShareOption::Mode(Mode::Review),
            ("cache", Some("shared")) => ShareOption::Cache(ShareCache::Shared),
            ("cache", Some("exclusive")) => ShareOption::Cache(ShareCache::Exclusive),
            ("cache", Some(_)) => return bad("shared or exclusive"),
            ("hide" | "show" | "protect" | "unprotect", Some("")) => return bad("no pattern"),
            ("hide", Some(pattern)) => ShareOption::Hide(pattern.to_owned()),
            ("show", Some(pattern)) => ShareOption::Show(pattern.to_owned()),
            ("protect", Some(pattern)) => ShareOption::Protect(pattern.to_owned()),
            ("unprotect", Some(pattern)) => ShareOption::Unprotect(pattern.to_owned()),
            ("max-bytes", Some(size)) => match parse_bytes(size, PLAIN_SIZE) {
                Some(bytes) => ShareOption::MaxBytes(bytes),
                None => return bad("a size is a number and K, M, G or T, such as 500M"),
            },
            ("max-files", Some(count)) => match count.parse() {
                Ok(count) => ShareOption::MaxFiles(count),
                Err(_) => return bad("not a number"),
            },
            ("cache" | "hide" | "show" | "protect" | "unprotect" | "max-bytes" | "max-files", None) => {
                return bad("it needs a value");
            }
            _ => return None,
        };
        Some(Ok(option))
    }

    fn may_come_again(&self) -> bool {
        matches!(
            self,
            ShareOption::Hide(_) | ShareOption::Show(_) | ShareOption::Protect(_) | ShareOption::Unprotect(_)
        )
    }
}

/// A plain number is MiB, as it is for memory and disks.
const PLAIN_SIZE: u64 = 1 << 20;

const OPTIONS_HINT: &str = "options are ro, rw, cache=shared, cache=exclusive, hide=PATTERN, show=PATTERN, \
    protect=PATTERN, unprotect=PATTERN, max-bytes=SIZE and max-files=N, with commas between them";

fn unknown(item: &str) -> Wrong {
    (format!("{item:?} is no option"), OPTIONS_HINT.to_owned())
}

fn name_of(field: &str) -> Result<String, Wrong> {
    let name = unescape(field.as_bytes(), b":");
    let name = String::from_utf8_lossy(&name).into_owned();
    if name.is_empty() {
        return Err(("nothing after the last colon".into(), FORM.into()));
    }
    if name.split(',').any(is_option_word) {
        let why = format!("{name:?} stands where the name does and is an option");
        return Err((why, OPTIONS_HINT.to_owned()));
    }
    Ok(name)
}

fn is_option_word(word: &str) -> bool {
    WORDS.contains(&word.split('=').next().unwrap_or_default())
}

const WORDS: [&str; 10] = [
    "ro",
    "rw",
    "review",
    "cache",
    "hide",
    "show",
    "protect",
    "unprotect",
    "max-bytes",
    "max-files",
];

/// An option, one misspelt, or what other tools call one.
fn looks_like_option(word: &str) -> bool {
    const ELSEWHERE: [&str; 16] = [
        "r",
        "w",
        "wo",
        "z",
        "u",
        "read",
        "write",
        "readonly",
        "read-only",
        "readwrite",
        "read-write",
        "writable",
        "cached",
        "delegated",
        "consistent",
        "nocopy",
    ];
    let word = word.to_lowercase();
    // Short words are a letter or two away from everything.
    let near = |option: &&str| match option.len() {
        0..=4 => word == **option,
        5 => edits(&word, option) <= 1,
        _ => edits(&word, option) <= 2,
    };
    WORDS.iter().chain(&ELSEWHERE).any(near)
}

/// Splits where `separator` stands without a backslash before it, and not between braces, which are a pattern's
/// alternatives: `hide=*.{key,pem}`. Backslashes stay.
fn split(bytes: &[u8], separator: u8) -> Vec<Vec<u8>> {
    let mut fields = vec![Vec::new()];
    let mut depth = 0usize;
    let mut bytes = bytes.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' if separator == b',' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if byte == separator && depth == 0 {
            fields.push(Vec::new());
            continue;
        }
        let field = fields.last_mut();
        let escaped = if byte == b'\\' { bytes.next() } else { None };
        if let Some(field) = field {
            field.push(byte);
            field.extend(escaped);
        }
    }
    fields
}

/// Takes the backslash away before a backslash and before each of `special`; before anything else it is itself.
fn unescape(bytes: &[u8], special: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        match rest.peek() {
            Some(next) if byte == b'\\' && (*next == b'\\' || special.contains(next)) => {
                plain.push(*next);
                rest.next();
            }
            _ => plain.push(byte),
        }
    }
    plain
}

fn other_readings(fields: &[Vec<u8>]) -> Vec<(OsString, OsString)> {
    let reading = |until: usize| {
        let joined = |colon: &[u8]| fields[..until].join(colon);
        let path = unescape(&joined(b":"), b":");
        (OsString::from_vec(path), OsString::from_vec(joined(br"\:")))
    };
    (2..=fields.len()).map(reading).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(String, Vec<ShareOption>, Option<String>)> {
        let typed = Typed::parse(OsStr::new(text))?;
        Ok((typed.path.into_string().unwrap(), typed.options, typed.name))
    }

    #[test]
    fn each_form_is_read_as_it_is_meant() {
        use ShareOption::{Cache, Hide, MaxBytes, MaxFiles, Mode as M, Protect, Show, Unprotect};
        let (ro, rw) = (M(Mode::ReadOnly), M(Mode::ReadWrite));
        for (text, path, options, name) in [
            (".", ".", vec![], None),
            ("/a b/c", "/a b/c", vec![], None),
            ("src:ro", "src", vec![ro.clone()], None),
            ("src:rw", "src", vec![rw.clone()], None),
            ("src:review", "src", vec![M(Mode::Review)], None),
            ("src:code", "src", vec![], Some("code")),
            ("src::code", "src", vec![], Some("code")),
            ("src::a=b", "src", vec![], Some("a=b")),
            ("src::preview", "src", vec![], Some("preview")),
            ("src:site", "src", vec![], Some("site")),
            ("src:go", "src", vec![], Some("go")),
            ("src:ro:code", "src", vec![ro.clone()], Some("code")),
            (
                "src:ro,cache=exclusive",
                "src",
                vec![ro.clone(), Cache(ShareCache::Exclusive)],
                None,
            ),
            (
                "src:cache=shared,rw:x",
                "src",
                vec![Cache(ShareCache::Shared), rw.clone()],
                Some("x"),
            ),
            (
                "src:hide=*.key,hide=/tmp,show=.ssh,protect=a,unprotect=b",
                "src",
                vec![
                    Hide("*.key".into()),
                    Hide("/tmp".into()),
                    Show(".ssh".into()),
                    Protect("a".into()),
                    Unprotect("b".into()),
                ],
                None,
            ),
            (r"src:hide=a\,b\:c", "src", vec![Hide("a,b:c".into())], None),
            (
                "src:hide=*.{key,pem},ro",
                "src",
                vec![Hide("*.{key,pem}".into()), ro.clone()],
                None,
            ),
            (r"src:hide=\*", "src", vec![Hide(r"\*".into())], None),
            ("src:hide=a=b", "src", vec![Hide("a=b".into())], None),
            (
                "src:max-bytes=2G,max-files=0",
                "src",
                vec![MaxBytes(2 << 30), MaxFiles(0)],
                None,
            ),
            ("src:max-bytes=5", "src", vec![MaxBytes(5 << 20)], None),
            (r"./a\:b", "./a:b", vec![], None),
            (r"./a\:b:ro", "./a:b", vec![ro.clone()], None),
            (r"a\b", r"a\b", vec![], None),
            (r"a\\:ro", r"a\", vec![ro.clone()], None),
            (r"src:ro:a\:b", "src", vec![ro], Some("a:b")),
        ] {
            let read = parse(text).unwrap_or_else(|error| panic!("{text}: {}", error.line()));
            assert_eq!(
                read,
                (path.to_owned(), options, name.map(str::to_owned)),
                "{text}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn any_path_can_be_typed_and_no_words_are_a_panic(
            path in proptest::collection::vec(proptest::prelude::any::<u8>(), 1..40),
            words in r"[a-c:,=\\{}!ro]{0,30}",
        ) {
            let mut escaped = Vec::new();
            for byte in &path {
                if [b':', b'\\'].contains(byte) {
                    escaped.push(b'\\');
                }
                escaped.push(*byte);
            }
            let typed = Typed::parse(OsStr::from_bytes(&escaped)).unwrap();
            proptest::prop_assert_eq!(typed.path.as_bytes(), path.as_slice());
            proptest::prop_assert!(typed.options.is_empty() && typed.name.is_none());
            let _ = Typed::parse(OsStr::new(&words));
        }
    }

    #[test]
    fn what_is_nearly_an_option_is_refused_and_never_a_name() {
        for text in [
            "src:RO",
            "src:readonly",
            "src:read-only",
            "src:reveiw",
            "src:r",
            "src:Z",
            "src:cached",
            "src:hide",
            "src:cache",
            "src:ro,",
            "src:ro,cach=shared",
            "src:ro,x",
            "src:cache=never",
            "src:max-files=many",
            "src:max-bytes=",
            "src:max-bytes=2X",
            "src:hide=",
            "src:foo=bar",
            "src:ro,rw",
            "src:ro,ro",
            "src:cache=shared,cache=exclusive",
            "src:max-files=1,max-files=2",
            "src:unprotct=x",
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!(error.code(), 2, "{text}");
            assert!(
                error.hint().is_some() && error.line().contains(text),
                "{}",
                error.line()
            );
        }
    }

    #[test]
    fn fields_in_another_order_or_too_many_or_empty_are_refused() {
        for (text, word) in [
            ("", "no path"),
            (":ro", "no path"),
            ("src:", "nothing after"),
            ("src:ro:", "nothing after"),
            ("src::", "nothing after"),
            ("src:code:ro", "is no option"),
            ("src:/work:ro", "is no option"),
            ("src:ro:cache=exclusive", "stands where the name does"),
            ("src:ro:rw", "stands where the name does"),
            ("src:ro:code:more", "more than"),
            ("a:b:c:d:e", "more than"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.line().contains(word), "{text}: {}", error.line());
        }
    }

    #[test]
    fn every_longer_path_it_could_have_been_is_known_with_how_to_type_it() {
        let typed = Typed::parse(OsStr::new("a:ro:b")).unwrap();
        let pair = |path: &str, typed: &str| (OsString::from(path), OsString::from(typed));
        assert_eq!(
            typed.other_readings,
            [pair("a:ro", r"a\:ro"), pair("a:ro:b", r"a\:ro\:b")]
        );
        assert!(
            Typed::parse(OsStr::new(r"a\:b"))
                .unwrap()
                .other_readings
                .is_empty()
        );
    }
}
