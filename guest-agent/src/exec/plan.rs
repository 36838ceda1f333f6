//! A request to run a command, made into what `execve` wants: decided and allocated before the fork.

use std::{
    collections::BTreeMap,
    ffi::CString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
};

use agent_protocol::{Exec, Failure, FailureKind};

use crate::{
    agent::Session,
    failure::{failure, quoted},
    users::{self, AGENT_ID, AGENT_NAME, Account},
};

/// Docker's default, which most images are built for.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const DEFAULT_TERM: &[u8] = b"xterm-256color";

/// Directories of a search path that are tried: far more than any real one has.
const MAX_CANDIDATES: usize = 1024;

#[derive(Debug)]
pub(super) struct Plan {
    /// Paths to try in turn.
    pub(super) candidates: Vec<CString>,
    pub(super) argv: Vec<CString>,
    pub(super) env: Vec<CString>,
    pub(super) cwd: CString,
    /// Whom to become. `None` where this process is not root and stays who it is.
    pub(super) identity: Option<Account>,
}

impl Plan {
    pub(super) fn new(root: &Path, session: &Session, exec: &Exec) -> Result<Self, Failure> {
        let user = exec.user.as_deref().unwrap_or(AGENT_NAME);
        let account = users::find(root, user)
            .ok_or_else(|| invalid(format!("no user {} in the sandbox", quoted(user.as_bytes()))))?;
        let env = environment(session, &account, exec)?;
        let argv = strings("argument", exec.argv.iter().cloned())?;
        let command = exec.argv.first().filter(|name| !name.is_empty());
        let command = command.ok_or_else(|| invalid("the command is empty".into()))?;
        let path = env.get(b"PATH".as_slice()).map_or(DEFAULT_PATH, Vec::as_slice);
        let home = session.home.as_os_str().as_bytes();
        Ok(Plan {
            candidates: candidates(command, path)?,
            argv,
            env: strings("variable", env.into_iter().map(assignment))?,
            cwd: string("working directory", cwd(home, exec.cwd.as_deref()))?,
            identity: rustix::process::geteuid().is_root().then_some(account),
        })
    }
}

/// A relative directory is relative to the session's home, like every path the host names.
fn cwd(home: &[u8], wanted: Option<&[u8]>) -> Vec<u8> {
    match wanted {
        None => home.to_vec(),
        Some(wanted) => {
            let home = Path::new(std::ffi::OsStr::from_bytes(home));
            home.join(std::ffi::OsStr::from_bytes(wanted))
                .into_os_string()
                .into_vec()
        }
    }
}

fn environment(
    session: &Session,
    account: &Account,
    exec: &Exec,
) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Failure> {
    let home = match account.uid {
        AGENT_ID => session.home.as_os_str().as_bytes(),
        _ => &account.home,
    };
    let mut env: BTreeMap<Vec<u8>, Vec<u8>> = [
        (&b"PATH"[..], DEFAULT_PATH),
        (b"HOME", home),
        (b"USER", &account.name),
        (b"LOGNAME", &account.name),
        (b"SHELL", &account.shell),
        (b"LANG", b"C.UTF-8"),
    ]
    .map(|(name, value)| (name.to_vec(), value.to_vec()))
    .into();
    if exec.terminal.is_some() {
        env.insert(b"TERM".to_vec(), DEFAULT_TERM.to_vec());
    }
    for (name, value) in session.env.iter().chain(&exec.env) {
        if name.is_empty() || name.contains(&b'=') {
            return Err(invalid(format!("{} cannot name a variable", quoted(name))));
        }
        env.insert(name.clone(), value.clone());
    }
    Ok(env)
}

fn assignment((name, value): (Vec<u8>, Vec<u8>)) -> Vec<u8> {
    [name, value].join(&b'=')
}

/// A name with a slash is a path; another is looked for in each directory of the search path, an empty
/// one being the working directory.
fn candidates(command: &[u8], path: &[u8]) -> Result<Vec<CString>, Failure> {
    if command.contains(&b'/') {
        return strings("argument", [command.to_vec()]);
    }
    let directories = path.split(|byte| *byte == b':').take(MAX_CANDIDATES);
    let paths = directories.map(|directory| match directory {
        b"" => [b"./", command].concat(),
        directory => [directory, b"/", command].concat(),
    });
    strings("argument", paths)
}

fn strings(what: &str, values: impl IntoIterator<Item = Vec<u8>>) -> Result<Vec<CString>, Failure> {
    values.into_iter().map(|value| string(what, value)).collect()
}

fn string(what: &str, value: Vec<u8>) -> Result<CString, Failure> {
    CString::new(value).map_err(|error| {
        let value = error.into_vec();
        invalid(format!("{what} {} has a NUL byte in it", quoted(&value)))
    })
}

fn invalid(message: String) -> Failure {
    failure(FailureKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session {
            home: "/sessions/calm-otter".into(),
            env: vec![
                (b"LANG".to_vec(), b"de_DE.UTF-8".to_vec()),
                (b"A".to_vec(), b"1".to_vec()),
            ],
        }
    }

    fn plan(exec: &Exec) -> Result<Plan, Failure> {
        Plan::new(Path::new("/nonexistent"), &session(), exec)
    }

    #[test]
    fn the_request_overrides_the_session_and_the_session_the_defaults() {
        let mut exec = Exec::new([b"env".to_vec()]);
        exec.env = vec![
            (b"A".to_vec(), b"2".to_vec()),
            (b"PATH".to_vec(), b"/x::/y".to_vec()),
        ];
        let plan = plan(&exec).unwrap();
        for wanted in [
            c"LANG=de_DE.UTF-8",
            c"A=2",
            c"HOME=/sessions/calm-otter",
            c"USER=agent",
        ] {
            assert!(
                plan.env.iter().any(|have| have.as_c_str() == wanted),
                "{wanted:?}"
            );
        }
        assert_eq!(
            plan.candidates,
            [c"/x/env".into(), c"./env".into(), CString::from(c"/y/env")]
        );
        assert_eq!(plan.cwd.as_c_str(), c"/sessions/calm-otter");
        assert!(!plan.env.iter().any(|have| have.as_bytes().starts_with(b"TERM=")));
    }

    #[test]
    fn what_no_process_can_be_given_is_refused_by_name() {
        let refused = |exec: &Exec| {
            let failure = plan(exec).unwrap_err();
            assert_eq!(failure.kind, FailureKind::Invalid);
            failure.message
        };
        let mut exec = Exec::new([b"x".to_vec()]);
        exec.env = vec![(b"A=B".to_vec(), b"".to_vec())];
        assert_eq!(refused(&exec), "'A=B' cannot name a variable");
        assert_eq!(refused(&Exec::new([])), "the command is empty");
        assert_eq!(
            refused(&Exec::new([b"x".to_vec(), b"a\0b".to_vec()])),
            "argument 'a\\u{0}b' has a NUL byte in it"
        );
        let mut exec = Exec::new([b"x".to_vec()]);
        exec.user = Some("mallory".into());
        assert_eq!(refused(&exec), "no user 'mallory' in the sandbox");
    }
}
