//! A place where `coffer` finds everything it needs, and nothing of the user's.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use images::{Digest, FORMAT, ImageName, Manifest, Part, Source};

/// Of whoever runs the tests; one that is empty is one that is not set.
const PROXIES: [&str; 8] = [
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
];

pub(crate) struct Rig {
    root: tempfile::TempDir,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let rig = Rig {
            root: tempfile::tempdir().unwrap(),
        };
        let built = Path::new(env!("CARGO_BIN_EXE_coffer"));
        let fake = |name| built.with_file_name("examples").join(name);
        fs::create_dir(rig.path("bin")).unwrap();
        for (from, to) in [
            (built, "coffer"),
            (&fake("fake-vmm"), "coffer-vmm"),
            (&fake("fake-egress"), "coffer-egress"),
        ] {
            let to = rig.path("bin").join(to);
            // A link costs nothing; across file systems it takes a copy.
            fs::hard_link(from, &to)
                .or_else(|_| fs::copy(from, &to).map(drop))
                .unwrap();
        }
        fs::write(rig.path("bin/coffer-agent"), "no agent").unwrap();
        rig.make_image("default", b"a kernel");
        rig
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn make_image(&self, name: &str, kernel: &[u8]) {
        let directory = self.path("data/cofferdam/images").join(name);
        fs::create_dir_all(&directory).unwrap();
        let part = |file: &str, bytes: &[u8]| {
            fs::write(directory.join(file), bytes).unwrap();
            Part {
                file: file.to_owned(),
                size: bytes.len() as u64,
                sha256: Digest::of(bytes),
            }
        };
        let manifest = Manifest {
            format: FORMAT,
            name: ImageName::parse(name).unwrap(),
            source: Source::Directory {
                from: "nowhere".into(),
            },
            recipe: None,
            agent: Digest::of(b"no agent"),
            kernel_version: "0".into(),
            kernel: part("vmlinux", kernel),
            initramfs: part("initramfs.cpio", b"i"),
            rootfs: part("rootfs.erofs", b"r"),
            modules: Vec::new(),
            config: None,
            packages: Vec::new(),
        };
        fs::write(
            directory.join("manifest.json"),
            serde_json::to_vec(&manifest).unwrap(),
        )
        .unwrap();
    }

    /// `coffer` with these arguments, not yet started.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path("bin/coffer"));
        command
            .args(arguments)
            .env("HOME", self.path("home"))
            .env("XDG_DATA_HOME", self.path("data"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .envs(PROXIES.map(|name| (name, "")))
            .current_dir(self.root.path())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn coffer(&self, arguments: &[&str]) -> Said {
        self.command(arguments).output().unwrap().into()
    }

    pub(crate) fn coffer_with(&self, arguments: &[&str], input: &[u8]) -> Said {
        let mut command = self.command(arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // A command need not read all of it.
                let _ = stdin.write_all(input);
            });
            child.wait_with_output().unwrap().into()
        })
    }

    /// The names in a directory of the rig; none when there is no directory.
    pub(crate) fn names(&self, directory: &str) -> Vec<String> {
        let Ok(listed) = fs::read_dir(self.path(directory)) else {
            return Vec::new();
        };
        let mut names: Vec<String> = listed
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        names
    }

    pub(crate) fn assert_nothing_is_left(&self) {
        assert!(self.names("state/cofferdam/sessions").is_empty());
        assert!(self.names("run/cofferdam").is_empty());
        assert!(self.processes().is_empty(), "{:?}", self.processes());
    }

    /// Processes that run a program of this rig.
    pub(crate) fn processes(&self) -> Vec<(u32, String)> {
        let running = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
            let name = exe.strip_prefix(self.path("bin")).ok()?.to_str()?.to_owned();
            Some((pid, name))
        });
        running.collect()
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.coffer(arguments).ok()).unwrap()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let names = self.names("state/cofferdam/sessions");
        let mut arguments = vec!["rm", "-f"];
        arguments.extend(names.iter().map(String::as_str));
        if !names.is_empty() {
            let _ = self.command(&arguments).output();
        }
    }
}

pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Said {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Said {
    /// Standard output of a command that went well.
    pub(crate) fn ok(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""));
        String::from_utf8(self.stdout).unwrap()
    }

    /// One that failed with this code, and a message with these words in it.
    pub(crate) fn failed(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in {:?}", self.stderr);
        }
        let first = self.stderr.lines().next().unwrap_or_default();
        assert!(
            first.starts_with("coffer: ") && !first.ends_with('.'),
            "{first:?}"
        );
    }
}

/// Waits for something that another process does.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < Duration::from_secs(15),
            "never happened: {what}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}
