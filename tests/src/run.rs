use std::{
    ffi::{OsStr, OsString},
    fmt,
    io::{Read, Write},
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

/// Longer than coffer itself waits for a sandbox to start, so that its own words about that are seen.
const DEADLINE: Duration = Duration::from_secs(150);
/// How often a condition is looked at that nobody reports.
const LOOK: Duration = Duration::from_millis(20);

/// A command line that has not been started.
#[derive(Debug)]
pub struct Run {
    words: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    input: Input,
    deadline: Duration,
}

#[derive(Debug)]
enum Input {
    None,
    Bytes(Vec<u8>),
    Open,
}

impl Run {
    pub fn new(words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let words = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        Run {
            words,
            env: Vec::new(),
            directory: None,
            input: Input::None,
            deadline: DEADLINE,
        }
    }

    /// Has another program start this one.
    pub fn under<const N: usize>(mut self, words: [&str; N]) -> Self {
        self.words.splice(0..0, words.map(OsString::from));
        self
    }

    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env
            .push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Starts it in this directory.
    pub fn at(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Standard input: these bytes and then its end.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Input::Bytes(bytes.into());
        self
    }

    /// Standard input that stays open for [`Running::send`].
    pub fn open_input(mut self) -> Self {
        self.input = Input::Open;
        self
    }

    pub fn deadline(mut self, seconds: u64) -> Self {
        self.deadline = Duration::from_secs(seconds);
        self
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn end(self) -> Ended {
        self.start().end()
    }

    #[track_caller]
    pub fn start(self) -> Running {
        let stdin = if matches!(self.input, Input::None) {
            Stdio::null()
        } else {
            Stdio::piped()
        };
        let mut command = self.command();
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{self}: {error}"));
        let (words, deadline) = (self.to_string(), Instant::now() + self.deadline);
        let (stdout, stderr) = (Capture::of(child.stdout.take()), Capture::of(child.stderr.take()));
        let mut stdin = child.stdin.take();
        if let Input::Bytes(bytes) = self.input {
            let mut pipe = stdin.take().unwrap();
            // A command that does not read all of it has its reasons.
            thread::spawn(move || pipe.write_all(&bytes));
        }
        Running {
            process: Process::of(child),
            stdin,
            stdout,
            stderr,
            words,
            deadline,
            start: Instant::now(),
        }
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.words[0]);
        command
            .args(&self.words[1..])
            .envs(self.env.iter().map(|(key, value)| (key, value)));
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.words.iter().map(|word| word.to_string_lossy()).collect();
        f.write_str(&words.join(" "))
    }
}

/// A child that can be waited for with a deadline and is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    handle: OwnedFd,
}

impl Process {
    pub(crate) fn of(child: Child) -> Self {
        let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        Process {
            child,
            handle: pidfd_open(pid, PidfdFlags::empty()).unwrap(),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.handle, signal).unwrap();
    }

    /// The exit code, the negative number of the signal that killed it, or nothing at the deadline.
    pub(crate) fn code(&mut self, deadline: Instant) -> Option<i32> {
        if !ended_before(&self.handle, deadline) {
            return None;
        }
        let status = self.child.wait().unwrap();
        status.code().or(status.signal().map(|signal| -signal))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn ended_before(handle: &OwnedFd, deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now());
    let left = Timespec::try_from(left).unwrap();
    poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&left)).unwrap_or(0) > 0
}

/// A stream of a child, read as it comes.
#[derive(Clone, Debug)]
struct Capture(Arc<(Mutex<Captured>, Condvar)>);

#[derive(Debug, Default)]
struct Captured {
    bytes: Vec<u8>,
    ended: bool,
}

impl Capture {
    fn of(stream: Option<impl Read + Send + 'static>) -> Self {
        let capture = Capture(Arc::default());
        let (mut stream, into) = (stream.unwrap(), capture.clone());
        thread::spawn(move || {
            let mut chunk = vec![0; 1 << 16];
            while let Ok(n @ 1..) = stream.read(&mut chunk) {
                into.add(&chunk[..n], false);
            }
            into.add(&[], true);
        });
        capture
    }

    fn add(&self, bytes: &[u8], ended: bool) {
        let mut captured = self.0.0.lock().unwrap();
        captured.bytes.extend_from_slice(bytes);
        captured.ended = ended;
        self.0.1.notify_all();
    }

    fn wait(&self, deadline: Instant, enough: impl Fn(&Captured) -> bool) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let more = |captured: &mut Captured| !enough(captured);
        let waited = self.0.1.wait_timeout_while(self.0.0.lock().unwrap(), left, more);
        !waited.unwrap().1.timed_out()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.0.lock().unwrap().bytes).into_owned()
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.0.lock().unwrap().bytes)
    }
}

#[derive(Debug)]
pub struct Running {
    process: Process,
    stdin: Option<ChildStdin>,
    stdout: Capture,
    stderr: Capture,
    words: String,
    deadline: Instant,
    start: Instant,
}

impl Running {
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    #[track_caller]
    pub fn send(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Waits until standard output holds `text`.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        let holds = |captured: &Captured| contains(&captured.bytes, text.as_bytes());
        self.stdout
            .wait(self.deadline, |captured| captured.ended || holds(captured));
        let said = self.stdout.text();
        assert!(
            said.contains(text),
            "{}: {text:?} never came: {said:?} {:?}",
            self.words,
            self.stderr.text()
        );
    }

    /// What is on standard output by now.
    pub fn said(&self) -> String {
        self.stdout.text()
    }

    #[track_caller]
    pub fn end(mut self) -> Ended {
        let code = self.process.code(self.deadline);
        let closed = [&self.stdout, &self.stderr]
            .iter()
            .all(|stream| stream.wait(self.deadline, |s| s.ended));
        let (out, err) = (self.stdout.text(), self.stderr.text());
        let Some(code) = code.filter(|_| closed) else {
            panic!("{}: not ended in time: {:?} {err:?}", self.words, cut(&out));
        };
        Ended {
            code,
            stdout: self.stdout.take(),
            stderr: err,
            words: self.words.clone(),
            took: self.start.elapsed(),
        }
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// What came of a command line.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
    pub took: Duration,
    words: String,
}

impl Ended {
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert!(self.code == code, "expected exit code {code}\n{self}");
        self
    }

    /// Exit code 0, and this on standard output, with or without a line's end.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        let ended = self.code(0);
        assert!(ended.text() == text, "expected {text:?}\n{ended}");
        ended
    }

    /// Exactly one line of error with `what` in it, a hint with `hint` in it, and this exit code.
    #[track_caller]
    pub fn complains(self, code: i32, what: &str, hint: &str) -> Self {
        let ended = self.code(code);
        let lines: Vec<&str> = ended
            .stderr
            .lines()
            .filter(|line| !line.starts_with("  | "))
            .collect();
        let good = match lines[..] {
            [error] => error.starts_with("coffer: ") && error.contains(what) && hint.is_empty(),
            [error, second] => {
                let error = error.starts_with("coffer: ") && error.contains(what);
                error && second.starts_with("hint: ") && !hint.is_empty() && second.contains(hint)
            }
            _ => false,
        };
        assert!(
            good,
            "expected one error with {what:?}, one hint with {hint:?}\n{ended}"
        );
        ended
    }

    /// Standard output without its last line's end.
    pub fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.stdout).into_owned();
        text.strip_suffix('\n').map_or(text.clone(), str::to_owned)
    }

    pub fn number(&self) -> u64 {
        self.text()
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("no number\n{self}"))
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ended {
            code,
            stderr,
            words,
            took,
            ..
        } = self;
        let stdout = cut(&self.text()).to_owned();
        write!(
            f,
            "{words}\nended with {code} after {took:.1?}\nstdout: {stdout}\nstderr: {stderr}"
        )
    }
}

fn cut(text: &str) -> &str {
    /// Enough of an output to see what went wrong.
    const SHOWN: usize = 4000;
    text.char_indices().nth(SHOWN).map_or(text, |(at, _)| &text[..at])
}

/// For conditions that nobody reports.
#[track_caller]
pub fn wait_until(what: &str, seconds: u64, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !condition() {
        assert!(Instant::now() < deadline, "not within {seconds} s: {what}");
        thread::sleep(LOOK);
    }
}
