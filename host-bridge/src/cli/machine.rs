//! The options that `run`, `up` and `exec` have in common.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
    time::Duration,
};

use agent_protocol::Exec;
use clap::Args;
use egress_policy::{Effect, EgressPolicy, Unknown};
use vmm_api::ShareName;

use crate::{
    BootImage, Error, Paths, Result, console,
    error::Context,
    net::{
        EGRESS_PROGRAM, NetChange, NetPlan,
        publish::{Publish, published_of, wide_open},
        rules_of, upstream_from_environment,
    },
    output,
    reap::MACHINE_PROGRAM,
    session::{BOOT_DEADLINE, Plan},
    shape::{Shape, parse_bytes, parse_cpus, parse_disk, parse_memory, parse_span},
    share::{Asked, Guard, SharedFolder, asked_of, settle},
    terminal,
};

/// The machine.
#[derive(Debug, Args)]
pub(super) struct MachineArguments {
    /// Virtual CPUs [default: 2, or as many as the host has if fewer]
    #[arg(long, value_name = "N")]
    pub(super) cpus: Option<String>,
    /// Memory the sandbox may use, such as 512M or 2G; a plain number is MiB. Not reserved [default: 1G]
    #[arg(long, short, value_name = "SIZE")]
    pub(super) memory: Option<String>,
    /// Limit of the sandbox's disk, which takes only what is written to it [default: 64G]
    #[arg(long, value_name = "SIZE")]
    pub(super) disk: Option<String>,
    /// Image to boot [default: default]
    #[arg(long, value_name = "NAME")]
    pub(super) image: Option<String>,
    /// How long the sandbox may take to start
    #[arg(long, value_name = "TIME")]
    boot_timeout: Option<String>,
}

impl MachineArguments {
    pub(super) fn shape(&self) -> Result<Shape> {
        let cpus = self.cpus.as_deref().map(parse_cpus).transpose()?;
        let memory = self.memory.as_deref().map(parse_memory).transpose()?;
        let disk = self.disk.as_deref().map(parse_disk).transpose()?;
        Shape::new(cpus, memory, disk)
    }

    pub(super) fn boot_deadline(&self) -> Result<Duration> {
        let asked = self
            .boot_timeout
            .as_deref()
            .map(|text| parse_span("--boot-timeout", text));
        Ok(asked.transpose()?.unwrap_or(BOOT_DEADLINE))
    }

    /// What was asked for, with the image found and checked.
    pub(super) fn plan(
        &self,
        paths: &Paths,
        env: Vec<(String, String)>,
        folders: Vec<SharedFolder>,
        policy: EgressPolicy,
    ) -> Result<Plan> {
        let (shape, boot_deadline) = (self.shape()?, self.boot_deadline()?);
        let image = BootImage::find(paths, self.image.as_deref())?;
        Ok(Plan {
            image,
            shape,
            env,
            folders,
            net: NetPlan {
                policy,
                upstream: upstream_from_environment()?,
                egress: beside_us(EGRESS_PROGRAM)?,
            },
            publish: Vec::new(),
            vmm: beside_us(MACHINE_PROGRAM)?,
            boot_deadline,
        })
    }
}

/// The folders.
#[derive(Debug, Args)]
pub(super) struct FolderArguments {
    /// Share a folder, in the sandbox as AS [default: its own name]; repeatable. OPTIONS, with commas between them:
    /// ro or rw [default: rw], cache=shared or cache=exclusive [default: shared], hide=PATTERN, show=PATTERN,
    /// protect=PATTERN, unprotect=PATTERN, max-bytes=SIZE, max-files=N. A colon in PATH is written \:
    #[arg(long, value_name = "PATH[:OPTIONS][:AS]")]
    pub(super) share: Vec<OsString>,
    /// Share also what is not shared by accident: /, a home directory, coffer's own
    #[arg(long)]
    i_know: bool,
}

impl FolderArguments {
    /// The folders of a session that had `former` before.
    pub(super) fn settle(
        &self,
        paths: &Paths,
        former: Vec<SharedFolder>,
        quiet: bool,
    ) -> Result<Vec<SharedFolder>> {
        let guard = Guard::of(paths);
        let asked = self.share.iter().map(|text| asked_of(text, &guard, self.i_know));
        let asked: Vec<Asked> = asked.collect::<Result<_>>()?;
        let known: Vec<ShareName> = former.iter().map(|folder| folder.name.clone()).collect();
        let folders = settle(former, asked.clone())?;
        let renamed = |folder: &&SharedFolder| {
            let wanted = |asked: &&Asked| asked.path == folder.path && *asked.name.name() == folder.name;
            !known.contains(&folder.name) && !asked.iter().any(|asked| wanted(&asked))
        };
        for folder in folders.iter().filter(renamed).filter(|_| !quiet) {
            output::note(&format!(
                "folder is called {} in the sandbox: {}",
                folder.name,
                console::one_line(&folder.path.display().to_string())
            ));
        }
        Ok(folders)
    }
}

/// The network.
#[derive(Debug, Args)]
pub(super) struct NetArguments {
    /// Let the sandbox reach what RULE names, and nothing else: example.com, *.example.com, 192.0.2.0/24, each with
    /// :PORT or :FIRST-LAST or without, or @SET; repeatable
    #[arg(long, value_name = "RULE")]
    allow: Vec<String>,
    /// Refuse what RULE names, also where another rule allows more; repeatable
    #[arg(long, value_name = "RULE")]
    deny: Vec<String>,
    /// Ask about what no rule names, and refuse it while there is nobody to ask
    #[arg(long)]
    ask_net: bool,
    /// Bytes the session may send and receive in all, such as 500M; a plain number is bytes
    // A negative one is refused by its value, not taken for an option.
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    net_max_bytes: Option<String>,
    /// Connections the session may make in all
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    net_max_connections: Option<String>,
    /// Lead a port of this host, on ADDR [default: 127.0.0.1], to one of the sandbox's own loopback: 8080:80, 0:80 for
    /// any that is free, or [::1]:8080:80; repeatable. In place of all that a session published before; none for none
    #[arg(long, value_name = "[ADDR:]HOST:GUEST")]
    publish: Vec<String>,
}

impl NetArguments {
    /// The published ports of a session that had `former` before.
    pub(super) fn publish(&self, former: Vec<Publish>, quiet: bool) -> Result<Vec<Publish>> {
        let published = published_of(&self.publish, former)?;
        let wide = published.iter().filter_map(wide_open);
        wide.filter(|_| !quiet).for_each(|note| output::note(&note));
        Ok(published)
    }

    /// The policy of a session that had `former` before, and variables that go with it.
    pub(super) fn settle(
        &self,
        paths: &Paths,
        former: &EgressPolicy,
        quiet: bool,
    ) -> Result<(EgressPolicy, Vec<(String, String)>)> {
        let (sets, mut env) = (paths.sets(), Vec::new());
        let mut rules = Vec::new();
        for (option, effect, typed) in [
            ("--allow", Effect::Allow, &self.allow),
            // After them: of the same pattern the deny is what stays.
            ("--deny", Effect::Deny, &self.deny),
        ] {
            for text in typed {
                let set = rules_of(&sets, option, effect, text)?;
                let notes = set.notes.iter().filter(|_| !quiet);
                notes.for_each(|note| output::note(note));
                rules.extend(set.rules);
                env.extend(set.env);
            }
        }
        let mut policy = NetChange::Add(rules).applied(former)?;
        if self.ask_net {
            policy.unknown = Unknown::Ask;
        }
        if let Some(text) = &self.net_max_bytes {
            policy.max_bytes = Some(parse_bytes(text, 1).ok_or_else(|| Error::Value {
                option: "--net-max-bytes",
                value: text.clone(),
                why: "a size is a number and K, M, G or T, such as 500M".to_owned(),
            })?);
        }
        if let Some(text) = &self.net_max_connections {
            policy.max_connections = Some(text.parse().map_err(|_| Error::Value {
                option: "--net-max-connections",
                value: text.clone(),
                why: "a number of connections is 0 or more, without a sign".to_owned(),
            })?);
        }
        Ok((policy, env))
    }
}

/// One of our programs, which lie together.
pub(super) fn beside_us(program: &str) -> Result<PathBuf> {
    let ours = std::env::current_exe().act("own program cannot be found")?;
    let path = ours.with_file_name(program);
    if path.is_file() {
        Ok(path)
    } else {
        Err(Error::NoProgram { path })
    }
}

/// The command.
#[derive(Debug, Args)]
pub(super) struct CommandArguments {
    /// Send our standard input to the command
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal, connected to ours
    #[arg(short, long)]
    tty: bool,
    /// A variable for the command: KEY=VALUE, or KEY to pass ours on
    #[arg(long, short, value_name = "KEY[=VALUE]")]
    pub(super) env: Vec<OsString>,
    /// Directory to start in [default: the first folder shared, else the session's home]
    #[arg(long, short, value_name = "DIRECTORY")]
    workdir: Option<OsString>,
    /// User to run as, a name or a number [default: agent]
    #[arg(long, short, value_name = "USER")]
    user: Option<String>,
    /// End the command after this long, such as 30s or 5m, with exit code 124
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,
    /// The command and its arguments; no shell reads them
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true)]
    pub(super) command: Vec<OsString>,
}

impl CommandArguments {
    pub(super) fn exec(&self) -> Result<Exec> {
        let mut exec = Exec::new(self.command.iter().map(|word| word.as_bytes().to_vec()));
        exec.env = environment(&self.env)?;
        if self.tty {
            terminal::require()?;
            exec.terminal = Some(terminal::size());
            pass_terminal_kind(&mut exec);
        }
        exec.cwd = self.workdir.as_ref().map(|path| path.as_bytes().to_vec());
        exec.user.clone_from(&self.user);
        exec.stdin = self.interactive;
        let limit = self
            .timeout
            .as_deref()
            .map(|text| parse_span("--timeout", text))
            .transpose()?;
        exec.timeout_ms = limit.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        Ok(exec)
    }
}

/// What our terminal is, the guest's programs must know to draw on it.
pub(super) fn pass_terminal_kind(exec: &mut Exec) {
    if let Some(kind) = std::env::var_os("TERM")
        && !exec.env.iter().any(|(key, _)| key == b"TERM")
    {
        exec.env.push((b"TERM".to_vec(), kind.into_vec()));
    }
}

/// `KEY=VALUE`, or `KEY` for the value it has here; one that is not set here is not set there.
fn environment(typed: &[OsString]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let pairs = typed.iter().map(|text| variable(text));
    pairs.filter_map(Result::transpose).collect()
}

fn variable(text: &OsStr) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
    let bytes = text.as_bytes();
    let (key, value) = match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => (&bytes[..at], Some(bytes[at + 1..].to_vec())),
        None => (bytes, std::env::var_os(text).map(OsString::into_vec)),
    };
    if key.is_empty() {
        let value = text.to_string_lossy().into_owned();
        return Err(Error::Value {
            option: "--env",
            value,
            why: "KEY=VALUE or KEY".to_owned(),
        });
    }
    Ok(value.map(|value| (key.to_vec(), value)))
}

/// As [`environment`], for what a session remembers in its record.
pub(super) fn session_environment(typed: &[OsString]) -> Result<Vec<(String, String)>> {
    let text = |bytes: Vec<u8>| {
        String::from_utf8(bytes).map_err(|error| Error::Value {
            option: "--env",
            value: error.to_string(),
            why: "a session's variables must be UTF-8".to_owned(),
        })
    };
    environment(typed)?
        .into_iter()
        .map(|(key, value)| Ok((text(key)?, text(value)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_a_pair_or_a_name_whose_value_is_ours() {
        let read = |text: &str| variable(OsStr::new(text));
        assert_eq!(read("A=b=c").unwrap(), Some((b"A".to_vec(), b"b=c".to_vec())));
        assert_eq!(read("A=").unwrap(), Some((b"A".to_vec(), Vec::new())));
        assert_eq!(read("COFFER_TEST_SURELY_NOT_SET").unwrap(), None);
        assert!(read("=b").is_err());
        let path = std::env::var_os("PATH").unwrap().into_vec();
        assert_eq!(read("PATH").unwrap(), Some((b"PATH".to_vec(), path)));
    }
}
