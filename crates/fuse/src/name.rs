//! The name of a directory entry, as a type that cannot lead anywhere else.

use std::ffi::CStr;

/// One component of a path: 1 to 255 bytes, no slash, no NUL, neither `.` nor `..`. Names of extended attributes
/// obey the same rules, and no attribute has a name they forbid.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name<'a>(&'a CStr);

/// What Linux takes (`NAME_MAX`).
const MAX_BYTES: usize = 255;

impl<'a> Name<'a> {
    pub fn parse(text: &'a CStr) -> Result<Self, NameError> {
        match text.to_bytes() {
            b"" => Err(NameError::Empty),
            b"." | b".." => Err(NameError::Dots),
            bytes if bytes.len() > MAX_BYTES => Err(NameError::TooLong),
            bytes if bytes.contains(&b'/') => Err(NameError::Slash),
            _ => Ok(Name(text)),
        }
    }

    pub fn as_bytes(self) -> &'a [u8] {
        self.0.to_bytes()
    }

    /// Ready for a system call.
    pub fn as_c_str(self) -> &'a CStr {
        self.0
    }
}

/// Guest data: shown escaped, wherever it is shown.
impl std::fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("empty name")]
    Empty,
    #[error("name that is . or ..")]
    Dots,
    #[error("name of more than {MAX_BYTES} bytes")]
    TooLong,
    #[error("name with a slash")]
    Slash,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_component_and_nothing_else() {
        let long = std::ffi::CString::new(vec![b'x'; 256]).unwrap();
        for (text, error) in [
            (c"", NameError::Empty),
            (c".", NameError::Dots),
            (c"..", NameError::Dots),
            (c"a/b", NameError::Slash),
            (c"/", NameError::Slash),
            (c"../x", NameError::Slash),
            (long.as_c_str(), NameError::TooLong),
        ] {
            assert_eq!(Name::parse(text), Err(error), "{text:?}");
        }
        for text in [c"a", c"...", c".a", c"\xff\x01", c"a b"] {
            assert_eq!(Name::parse(text).unwrap().as_bytes(), text.to_bytes());
        }
        let longest = std::ffi::CString::new(vec![b'x'; 255]).unwrap();
        assert!(Name::parse(&longest).is_ok());
    }
}
