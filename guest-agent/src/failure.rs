//! Errors of the kernel as the host hears of them.

use std::io;

use agent_protocol::{Failure, FailureKind};

/// The longest value quoted in a message: a line for a person, whatever the host asked for.
const MAX_QUOTED: usize = 200;

pub(crate) fn failure(kind: FailureKind, message: impl Into<String>) -> Failure {
    Failure {
        kind,
        message: message.into(),
    }
}

/// `"cannot read 'name': No such file"`, with the kind that fits the error.
pub(crate) fn cannot(act: &str, value: &[u8], error: &io::Error) -> Failure {
    failure(
        kind_of(error),
        format!("cannot {act} {}: {}", quoted(value), reason(error)),
    )
}

/// A value in a message: escaped, cut, in quotes.
pub(crate) fn quoted(value: &[u8]) -> String {
    let cut = value.get(..MAX_QUOTED).unwrap_or(value);
    let more = if cut.len() < value.len() { "…" } else { "" };
    let text = escaped(String::from_utf8_lossy(cut).chars());
    format!("'{text}{more}'")
}

/// Without control characters, which do things to a terminal.
pub(crate) fn escaped(text: impl Iterator<Item = char>) -> String {
    text.flat_map(|c| {
        if c.is_control() {
            c.escape_default().collect()
        } else {
            vec![c]
        }
    })
    .collect()
}

/// The kernel's words without the number Rust adds.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

pub(crate) fn kind_of(error: &io::Error) -> FailureKind {
    use rustix::io::Errno;
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT | Errno::NOTDIR) => FailureKind::NotFound,
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::NOEXEC | Errno::TXTBSY) => {
            FailureKind::NotPermitted
        }
        Some(
            Errno::NOSPC
            | Errno::DQUOT
            | Errno::NOMEM
            | Errno::AGAIN
            | Errno::MFILE
            | Errno::NFILE
            | Errno::FBIG,
        ) => FailureKind::Exhausted,
        Some(
            Errno::INVAL
            | Errno::NAMETOOLONG
            | Errno::LOOP
            | Errno::ISDIR
            | Errno::EXIST
            | Errno::NOTEMPTY
            | Errno::TOOBIG,
        ) => FailureKind::Invalid,
        Some(Errno::BUSY) => FailureKind::Busy,
        _ => FailureKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_quotes_the_value_without_its_control_characters_or_its_length() {
        assert_eq!(quoted(b"a\x1b[31m\nb"), "'a\\u{1b}[31m\\nb'");
        assert_eq!(quoted(&[b'x'; 10_000]).chars().count(), MAX_QUOTED + 3);
        let failure = cannot("read", b"/x", &io::Error::from_raw_os_error(libc::ENOENT));
        assert_eq!(failure.kind, FailureKind::NotFound);
        assert_eq!(failure.message, "cannot read '/x': No such file or directory");
    }
}
