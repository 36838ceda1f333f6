//! Guest text made safe for a terminal, and the end of a log.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

/// A line of guest text in a message of ours; longer ones are cut.
const MAX_LINE: usize = 300;
/// Where the end of a log is looked for; a panic with its trace is about 4 KiB.
const TAIL_BYTES: u64 = 16 * 1024;
/// Lines of console shown with an error.
const TAIL_LINES: usize = 5;

/// Guest text on one line: no control character, no direction override, not too long.
pub fn safe(text: &[u8]) -> String {
    let mut safe = String::new();
    for c in String::from_utf8_lossy(text).chars() {
        if safe.len() >= MAX_LINE {
            safe.push('…');
            break;
        }
        push_safe(&mut safe, c);
    }
    safe
}

/// Text of ours that quotes what a guest or an archive named: as [`safe`], and as long as it is.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    text.chars().for_each(|c| push_safe(&mut line, c));
    line
}

fn push_safe(safe: &mut String, c: char) {
    match c {
        '\t' => safe.push(' '),
        // Overrides and isolates could make a line read as another one.
        '\u{200e}'
        | '\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}'
        | '\u{2028}'
        | '\u{2029}' => {
            safe.extend(c.escape_unicode());
        }
        c if c.is_control() => safe.extend(c.escape_default()),
        c => safe.push(c),
    }
}

/// The last lines of a console log that say something, each safe; empty when there are none.
pub fn last_lines(log: &Path) -> Vec<String> {
    let tail = read_tail(log).unwrap_or_default();
    let said: Vec<String> = lines(&tail).map(safe).collect();
    said[said.len().saturating_sub(TAIL_LINES)..].to_vec()
}

/// [`last_lines`] as they stand below a hint.
pub(crate) fn last_lines_quoted(log: &Path) -> String {
    last_lines(log)
        .iter()
        .map(|line| format!("\n  | {line}"))
        .collect()
}

/// The line in which the guest's kernel says that it gave up.
pub(crate) fn panic_line(log: &Path) -> Option<String> {
    let tail = read_tail(log)?;
    let at = |line: &[u8]| {
        String::from_utf8_lossy(line)
            .find("Kernel panic")
            .map(|at| (at, line.to_vec()))
    };
    let (at, line) = lines(&tail).filter_map(at).last()?;
    Some(safe(String::from_utf8_lossy(&line).get(at..)?.as_bytes()))
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
}

fn read_tail(log: &Path) -> Option<Vec<u8>> {
    let mut file = File::open(log).ok()?;
    let len = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(TAIL_BYTES))).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_text_cannot_move_the_cursor_or_turn_the_line_around() {
        assert_eq!(safe(b"a\x1b[2Jb\rc\x07\td"), "a\\u{1b}[2Jb\\rc\\u{7} d");
        assert_eq!(safe("x\u{202e}y".as_bytes()), "x\\u{202e}y");
        assert_eq!(safe("\u{9b}31m".as_bytes()), "\\u{9b}31m");
        assert!(safe(&[b'a'; 10_000]).len() < MAX_LINE + 10);
        assert_eq!(safe(b"\xff"), "\u{fffd}");
    }

    #[test]
    fn an_error_about_a_file_the_guest_named_cannot_move_the_cursor_either() {
        let error = crate::Error::Copy {
            what: "file is there",
            path: format!("{}/\x1b]52;c;eA==\x07\nx", "d".repeat(500)).into(),
        };
        let line = error.line();
        assert!(line.ends_with("/\\u{1b}]52;c;eA==\\u{7}\\nx"), "{line}");
    }

    #[test]
    fn a_panic_is_found_among_what_follows_it() {
        let root = tempfile::tempdir().unwrap();
        let log = root.path().join("console.log");
        let text = "boot\r\n[    1.5] Kernel panic - not syncing: VFS: no root\r\n[    1.6] CPU: 0\r\n\r\n";
        std::fs::write(&log, text).unwrap();
        assert_eq!(
            panic_line(&log).as_deref(),
            Some("Kernel panic - not syncing: VFS: no root")
        );
        assert_eq!(
            last_lines(&log).last().map(String::as_str),
            Some("[    1.6] CPU: 0")
        );
        assert!(last_lines(&root.path().join("none")).is_empty());
    }
}
