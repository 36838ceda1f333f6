//! `coffer cp`: files in and out of a session.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use tokio::{runtime::Handle, sync::oneshot};

use crate::{
    Error, Paths, Result, SessionName,
    copy::{Cancel, GuestFiles, Place, Tally},
    error::Context,
    keeper::KeeperClient,
    output,
    progress::watched,
    signals::Signals,
};

/// An interrupted copy removes its half-made file before we end, unless it hangs.
const CLEAN_UP: Duration = Duration::from_secs(2);

/// Copy files between the host and a session; one of the two is NAME:PATH
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What to copy: a file, a directory with all in it, or - for standard input
    #[arg(value_name = "SRC", allow_hyphen_values = true)]
    from: OsString,
    /// Where to: a directory to put it in, a new name, or - for standard output
    #[arg(value_name = "DST", allow_hyphen_values = true)]
    to: OsString,
    /// Say nothing
    #[arg(long, short)]
    quiet: bool,
    /// Print what was copied as JSON on standard error
    #[arg(long)]
    json: bool,
}

/// Which way, once it is known that there is one.
#[derive(Debug)]
enum Job {
    Up(PathBuf, Vec<u8>),
    UpFromStdin(Vec<u8>),
    Down(Vec<u8>, PathBuf),
    DownToStdout(Vec<u8>),
}

pub(super) async fn copy(paths: &Paths, arguments: Arguments) -> Result<u8> {
    let (name, job) = job(Place::parse(&arguments.from)?, Place::parse(&arguments.to)?)?;
    let mut signals = Signals::catch()?;
    let session = Arc::new(KeeperClient::connect(paths, &name).await?);
    let cancel = Cancel::default();
    let mut done = spawn(Arc::clone(&session), job, cancel.clone())?;
    let quiet = arguments.quiet || matches!(arguments.to.to_str(), Some("-"));
    let copied = tokio::select! {
        copied = watched("copying", quiet, &mut done) => copied,
        signal = signals.next_ending() => {
            cancel.cancel();
            let _ = tokio::time::timeout(CLEAN_UP, done).await;
            return Err(Error::Interrupted { signal });
        }
    };
    let tally = match copied {
        Ok(Err(Error::AgentGone)) | Err(_) => return Err(crate::Host::fate(&*session).await),
        Ok(tally) => tally?,
    };
    report(&arguments, tally);
    Ok(0)
}

fn job(from: Place, to: Place) -> Result<(SessionName, Job)> {
    match (from, to) {
        (Place::Guest(..), Place::Guest(..)) => Err(usage("both sides are in a session")),
        (Place::Guest(name, from), Place::Host(to)) => Ok((name, Job::Down(from, to))),
        (Place::Guest(name, from), Place::Stdio) => Ok((name, Job::DownToStdout(from))),
        (Place::Host(from), Place::Guest(name, to)) => Ok((name, Job::Up(from, to))),
        (Place::Stdio, Place::Guest(name, to)) => Ok((name, Job::UpFromStdin(to))),
        _ => Err(usage("neither side is in a session")),
    }
}

fn usage(what: &str) -> Error {
    let hint = "coffer cp FILE NAME:PATH, or coffer cp NAME:PATH FILE".to_owned();
    Error::Usage {
        what: what.to_owned(),
        hint,
    }
}

/// The copy blocks on streams and files, so it has a thread; the loop here serves its requests.
fn spawn(session: Arc<KeeperClient>, job: Job, cancel: Cancel) -> Result<oneshot::Receiver<Result<Tally>>> {
    let (tell, done) = oneshot::channel();
    let runtime = Handle::current();
    let work = move || {
        let mut files = GuestFiles::new(&*session, runtime, cancel);
        let copied = match job {
            Job::Up(from, to) => files.upload(&from, &to),
            Job::UpFromStdin(to) => files.upload_from_stdin(&to),
            Job::Down(from, to) => files.download(&from, Path::new(&to)),
            Job::DownToStdout(from) => files.download_to_stdout(&from),
        };
        let _ = tell.send(copied.map(|()| files.tally()));
    };
    std::thread::Builder::new()
        .name("copy".to_owned())
        .spawn(work)
        .act("thread cannot be started")?;
    Ok(done)
}

fn report(arguments: &Arguments, tally: Tally) {
    if arguments.json {
        output::note_json(&serde_json::json!({
            "files": tally.files,
            "directories": tally.directories,
            "symlinks": tally.symlinks,
            "bytes": tally.bytes,
            "skipped": tally.skipped,
        }));
    } else if tally.skipped > 0 && !arguments.quiet {
        output::note(&format!(
            "devices, sockets and FIFOs were not copied: {}",
            tally.skipped
        ));
    }
}
