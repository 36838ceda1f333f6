//! How a test says that it did nothing here, and why.
//!
//! What a test prints nobody sees when it passes, and one that is skipped passes. So each skip also goes to the file that
//! `COFFER_SKIPS` names, a line each; `scripts/test` shows them at its end. For tests only.
#![forbid(unsafe_code)]

use std::{env, ffi::OsStr, fmt, fs::OpenOptions, io, io::Write, thread};

/// Where `scripts/test` collects them.
const FILE: &str = "COFFER_SKIPS";

/// Called on the test's own thread, whose name is the test's. The test goes on to return.
pub fn because(reason: impl fmt::Display) {
    let line = line(thread::current().name().unwrap_or("a test"), &reason.to_string());
    eprintln!("skipped: {line}");
    if let Some(file) = env::var_os(FILE)
        && let Err(error) = append(&file, &line)
    {
        panic!("{FILE} cannot be written: {error}");
    }
}

/// Whatever a tool said as its reason is on one line.
fn line(test: &str, reason: &str) -> String {
    let reason: Vec<&str> = reason.split_whitespace().collect();
    format!("{test}: {}", reason.join(" "))
}

/// In one write, as tests run side by side.
fn append(file: &OsStr, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    file.write_all(format!("{line}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn each_is_a_line_with_the_tests_name() {
        let file = env::temp_dir().join(format!("skipped-{}", std::process::id()));
        append(file.as_os_str(), &line("a::test", "ip:\n no right\n")).unwrap();
        append(file.as_os_str(), &line("b", "none")).unwrap();
        assert_eq!(
            fs::read_to_string(&file).unwrap(),
            "a::test: ip: no right\nb: none\n"
        );
        fs::remove_file(file).unwrap();
    }
}
