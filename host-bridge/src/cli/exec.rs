//! `coffer exec` and `coffer shell`: a command in a session that is there.

use agent_protocol::{Exec, FailureKind, Reply, Request};
use clap::Args;

use super::machine::{CommandArguments, pass_terminal_kind};
use crate::{
    Error, Host, Paths, Result, SessionName,
    agent::Incoming,
    command::{self, Outcome},
    keeper::KeeperClient,
    output,
    signals::Signals,
    terminal,
};

/// Run a command in a session
#[derive(Debug, Args)]
pub(super) struct ExecArguments {
    /// Name of the session
    #[arg(value_name = "NAME")]
    name: String,
    /// After the command, print how it ended as JSON on standard error
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    command: CommandArguments,
}

pub(super) async fn exec(paths: &Paths, arguments: ExecArguments) -> Result<u8> {
    let name: SessionName = arguments.name.parse()?;
    let exec = arguments.command.exec()?;
    let mut signals = Signals::catch()?;
    let session = KeeperClient::connect(paths, &name).await?;
    let outcome = command::run(&session, exec, &mut signals).await?;
    if arguments.json {
        output::note_json(&outcome.report());
    } else {
        outcome.explain(&super::shown(&arguments.command.command));
    }
    Ok(outcome.code())
}

/// Open a shell in a session
#[derive(Debug, Args)]
pub(super) struct ShellArguments {
    /// Name of the session
    #[arg(value_name = "NAME")]
    name: String,
    /// User to be, a name or a number [default: agent]
    #[arg(long, short, value_name = "USER")]
    user: Option<String>,
}

pub(super) async fn shell(paths: &Paths, arguments: ShellArguments) -> Result<u8> {
    let name: SessionName = arguments.name.parse()?;
    let mut signals = Signals::catch()?;
    let session = KeeperClient::connect(paths, &name).await?;
    let shell = login_shell(&session, arguments.user.as_deref().unwrap_or(AGENT)).await?;
    let mut outcome = command::run(&session, login(&shell, arguments.user.clone()), &mut signals).await?;
    // An image may name a shell that it does not have.
    if matches!(&outcome, Outcome::Failed(failure) if failure.kind == FailureKind::NotFound)
        && shell != PLAIN_SHELL
    {
        outcome = command::run(&session, login(PLAIN_SHELL, arguments.user), &mut signals).await?;
    }
    outcome.explain("the shell");
    Ok(outcome.code())
}

/// The user that commands run as when none is named.
const AGENT: &str = "agent";
/// What every image that has a shell has.
const PLAIN_SHELL: &[u8] = b"/bin/sh";
/// A user list longer than this is no user list.
const MAX_PASSWD: usize = 1 << 20;

fn login(shell: &[u8], user: Option<String>) -> Exec {
    let mut exec = Exec::new([shell.to_vec(), b"-l".to_vec()]);
    exec.stdin = true;
    exec.user = user;
    if terminal::stdin_is_terminal() {
        exec.terminal = Some(terminal::size());
        pass_terminal_kind(&mut exec);
    }
    exec
}

/// The shell of `user` as the sandbox's own `/etc/passwd` has it.
async fn login_shell(host: &impl Host, user: &str) -> Result<Vec<u8>> {
    let operation = host
        .start(Request::Get {
            path: b"/etc/passwd".to_vec(),
        })
        .await?;
    let (mut reader, _writer) = operation.split()?;
    let mut passwd = Vec::new();
    loop {
        match reader.receive()? {
            Some(Incoming::Stdout(data)) if passwd.len() < MAX_PASSWD => passwd.extend_from_slice(data),
            Some(Incoming::Reply(Reply::Metadata(_))) => {}
            Some(Incoming::Reply(Reply::Done | Reply::Failed(_)) | Incoming::Stdout(_)) => break,
            Some(_) => {
                return Err(Error::Unexpected {
                    what: "a reply to another question",
                });
            }
            None => return Err(host.fate().await),
        }
    }
    Ok(shell_of(&passwd, user).unwrap_or(PLAIN_SHELL).to_vec())
}

fn shell_of<'a>(passwd: &'a [u8], user: &str) -> Option<&'a [u8]> {
    let shell = passwd.split(|byte| *byte == b'\n').find_map(|line| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        let is_user = fields.first() == Some(&user.as_bytes()) || fields.get(2) == Some(&user.as_bytes());
        is_user.then(|| fields.get(6).copied()).flatten()
    })?;
    shell.starts_with(b"/").then_some(shell)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_login_shell_is_the_one_in_the_list_of_users() {
        let passwd = b"root:x:0:0:root:/:/bin/bash\nagent:x:1000:1000::/home:/bin/zsh\nx:x:5:5::/:\nbad";
        assert_eq!(shell_of(passwd, "agent"), Some(&b"/bin/zsh"[..]));
        assert_eq!(shell_of(passwd, "0"), Some(&b"/bin/bash"[..]));
        for none in ["x", "bad", "nobody", ""] {
            assert_eq!(shell_of(passwd, none), None);
        }
    }
}
