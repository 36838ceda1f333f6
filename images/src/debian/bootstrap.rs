//! Running mmdebstrap: its tar goes into the tree, its words to the log and the caller.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use super::{CUSTOMIZE, EPOCH, FETCH_KERNEL, dpkg_options, package_names};
use crate::error::Context;
use crate::progress::{Progress, Report, step};
use crate::staging::create_private;
use crate::tarball::{self, Whiteouts};
use crate::tree::Tree;
use crate::{Error, Result, Selection};

const TOOL: &str = "mmdebstrap";
/// uidmap is what an ordinary user needs for the user namespace; root does without, but it is small.
const NEEDED: &str = "mmdebstrap debian-archive-keyring uidmap";
/// Without the archive's keys apt trusts nothing, and says so in a way nobody understands.
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];
/// Where the log stays after a failure; no image's name begins with a dot.
const LOG: &str = ".build.log";
const LAST_LINES: usize = 40;
const MAX_LINE: usize = 200;

/// What mmdebstrap says when a part of its work begins, and how much of the whole is then done.
const STEPS: [(&str, &str, f32); 6] = [
    ("I: running apt-get update", "fetching package lists", 0.02),
    ("I: downloading packages", "downloading packages", 0.08),
    ("I: extracting archives", "unpacking packages", 0.25),
    ("I: installing essential", "installing the base system", 0.30),
    ("I: installing remaining", "installing packages", 0.40),
    ("I: creating tarball", "reading the root file system", 0.65),
];

/// Fills `tree` with the root file system of `selection`, and the kernel's package in its own folder
/// when `with_kernel`.
pub(crate) fn bootstrap(
    tree: &mut Tree,
    selection: &Selection,
    with_kernel: bool,
    store: &Path,
    report: Report<'_>,
) -> Result<()> {
    if !KEYRINGS.iter().any(|keyring| Path::new(keyring).exists()) {
        return Err(Error::MissingTool {
            tool: "debian-archive-keyring",
            packages: NEEDED,
        });
    }
    step(report, "starting mmdebstrap", 0.0);
    let log_path = store.join(LOG);
    let log = create_private(&log_path)?;
    let mut child = match command(selection, with_kernel).spawn() {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(Error::MissingTool {
                tool: TOOL,
                packages: NEEDED,
            });
        }
        child => child.context("run", TOOL)?,
    };
    let (unpacked, words) = listen(&mut child, tree, log, report);
    let status = child.wait().context("run", TOOL)?;
    if !status.success() {
        // The reason is in the words; that the tar ended early is only what followed.
        return Err(Error::ToolFailed {
            tool: TOOL,
            status: status.to_string(),
            last: words.last(),
            log: log_path,
        });
    }
    unpacked?;
    std::fs::remove_file(&log_path).context("remove", &log_path)
}

fn command(selection: &Selection, with_kernel: bool) -> Command {
    let mut command = Command::new(TOOL);
    command.args([
        "--mode=auto",
        "--variant=apt",
        "--format=tar",
        "--skip=output/dev",
    ]);
    command.arg(format!(
        "--include={}",
        package_names(selection).collect::<Vec<_>>().join(",")
    ));
    command.args(dpkg_options().map(|option| format!("--dpkgopt={option}")));
    if with_kernel {
        command.arg(format!("--customize-hook={FETCH_KERNEL}"));
    }
    command.arg(format!("--customize-hook={CUSTOMIZE}"));
    command.args([selection.suite.as_str(), "-"]);
    command
        .env("SOURCE_DATE_EPOCH", EPOCH.seconds.to_string())
        .env("LC_ALL", "C.UTF-8");
    // The user it becomes may not be able to enter the folder we were started in.
    command.current_dir("/");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Unpacks the tar in a thread while this one passes on what the tool says.
fn listen(child: &mut Child, tree: &mut Tree, log: File, report: Report<'_>) -> (Result<()>, Words) {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (line_out, lines) = mpsc::channel();
    let mut words = Words::default();
    let unpacked = thread::scope(|scope| {
        let unpacking = scope.spawn(|| stdout.map_or(Ok(()), |stdout| unpack(tree, stdout)));
        scope.spawn(move || {
            if let Some(stderr) = stderr {
                forward(stderr, log, &line_out);
            }
        });
        for line in lines {
            tell(&line, report);
            words.add(line);
        }
        unpacking
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    (unpacked, words)
}

/// On an error the pipe closes, and the tool ends for it.
fn unpack(tree: &mut Tree, mut stdout: impl Read) -> Result<()> {
    tarball::apply(tree, TOOL, &mut stdout, Whiteouts::Literal)?;
    std::io::copy(&mut stdout, &mut std::io::sink())
        .map(drop)
        .context("read", PathBuf::from(TOOL))
}

fn forward(stderr: impl Read, mut log: File, lines: &mpsc::Sender<String>) {
    for line in BufReader::new(stderr)
        .split(b'\n')
        .map_while(std::result::Result::ok)
    {
        let _ = log.write_all(&line).and_then(|()| log.write_all(b"\n")); // a full disk is told by the image itself
        let text = String::from_utf8_lossy(&line);
        let plain = text.chars().filter(|c| !c.is_control()).take(MAX_LINE).collect();
        let _ = lines.send(plain);
    }
}

fn tell(line: &str, report: Report<'_>) {
    if let Some((_, name, fraction)) = STEPS.iter().find(|(begin, ..)| line.starts_with(begin)) {
        step(report, name, *fraction);
    }
    if !line.trim().is_empty() {
        report(Progress::Line(line.to_owned()));
    }
}

/// The last lines the tool printed, among them the reason why it failed.
#[derive(Default)]
struct Words(VecDeque<String>);

impl Words {
    fn add(&mut self, line: String) {
        if line.trim().is_empty() {
            return;
        }
        if self.0.len() == LAST_LINES {
            self.0.pop_front();
        }
        self.0.push_back(line);
    }

    /// The first error of the last lines, else the last line of all.
    fn last(&self) -> String {
        let error = self.0.iter().find(|line| line.starts_with("E: "));
        error
            .or(self.0.back())
            .cloned()
            .unwrap_or_else(|| "it said nothing".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_failure_is_the_first_error_that_was_printed() {
        let mut words = Words::default();
        for line in [
            "I: start",
            "E: no network",
            "E: apt failed",
            "I: cleaning up",
            " ",
        ] {
            words.add(line.into());
        }
        assert_eq!(words.last(), "E: no network");
        assert_eq!(Words::default().last(), "it said nothing");
    }

    #[test]
    fn a_line_that_begins_a_step_moves_the_progress() {
        let mut told = Vec::new();
        tell("I: extracting archives...", &mut |progress| told.push(progress));
        assert_eq!(
            told[0],
            Progress::Step {
                name: "unpacking packages",
                fraction: 0.25
            }
        );
        assert_eq!(told[1], Progress::Line("I: extracting archives...".into()));
    }

    #[test]
    fn a_tool_that_fails_is_reported_with_its_own_words() {
        let directory = tempfile::tempdir().unwrap();
        let mut tree = Tree::new(directory.path()).unwrap();
        let log = create_private(&directory.path().join("log")).unwrap();
        let mut child = Command::new("sh")
            .args(["-c", "printf 'E: broken\\033[2J\\n' >&2; exit 3"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (unpacked, words) = listen(&mut child, &mut tree, log, &mut |_| {});
        assert!(unpacked.is_ok() && !child.wait().unwrap().success());
        assert_eq!(words.last(), "E: broken[2J");
    }
}
