//! Can this host run a guest? Answered by running one.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::MetadataExt,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use super::{
    Check, Level,
    guest::{self, Stage},
};
use crate::users;

const DEVICE: &str = "/dev/kvm";
/// The guest is through in less than a millisecond on hardware and in some ten on nested virtualization.
const DEADLINE: Duration = Duration::from_secs(10);
/// How much longer the loop may take in the guest than here before we call it emulated, and how long at
/// least, so that a host that is busy for a moment is not accused.
///
/// Measured: here 28 µs, in a guest of a host whose KVM emulates every instruction 421 ms, 14,000 times as
/// long (and it stops before SSE). In the lab, which nests real KVM in an emulated host on a busy machine:
/// about 1 ms outside, 2.6 to 52 ms in the guest, at most some 50 times as long.
const MAX_RATIO: u32 = 1000;
const MIN_SLOW: Duration = Duration::from_millis(100);

/// What became of the guest.
#[derive(Debug)]
struct Run {
    /// The stages it passed, each with the time since its start.
    passed: Vec<(Stage, Duration)>,
    /// What the process that ran it said at its end.
    error: String,
    in_time: bool,
}

pub(super) fn check() -> Check {
    let make = |level, found: String, hint: &str| Check::new("KVM", level, found, hint);
    match fs::OpenOptions::new().read(true).write(true).open(DEVICE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(
            Level::Missing,
            "no /dev/kvm: no hardware virtualization, or its module is not loaded".to_owned(),
            "switch virtualization on in the firmware or the VM's settings; sudo modprobe kvm_intel or kvm_amd",
        ),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => make(
            Level::Missing,
            "/dev/kvm may not be opened by this user".to_owned(),
            &how_to_join(),
        ),
        Err(error) => make(Level::Missing, format!("/dev/kvm cannot be opened: {error}"), ""),
        Ok(_) => match run_guest() {
            Ok(run) => judge(&run, guest::native_time()),
            Err(error) => make(
                Level::Missing,
                format!("the probe cannot be started: {error}"),
                "",
            ),
        },
    }
}

fn how_to_join() -> String {
    let group = fs::metadata(DEVICE).ok().map(|found| (found.gid(), found.mode()));
    match group {
        // Root's own group has nobody else in it; a rule for the device is what is missing then.
        Some((gid, mode)) if gid != 0 && mode & 0o060 == 0o060 => {
            let group = users::group_name(gid).unwrap_or_else(|| gid.to_string());
            format!("sudo usermod -aG {group} $USER, then log in again")
        }
        _ => format!(
            "sudo chgrp kvm {DEVICE} && sudo chmod 660 {DEVICE} && sudo usermod -aG kvm $USER, then log in again"
        ),
    }
}

const EMULATED_HINT: &str = "scripts/coffer runs it in the lab instead, slowly; for real use take a host with hardware virtualization";

fn judge(run: &Run, native: Duration) -> Check {
    let make = |level, found: String| {
        let hint = if level == Level::Ok { "" } else { EMULATED_HINT };
        Check::new("KVM", level, found, hint)
    };
    let slow = run
        .passed
        .first()
        .filter(|(_, took)| *took > MIN_SLOW && *took > native * MAX_RATIO);
    let last = run.passed.last().map(|(stage, _)| *stage);
    match (slow, last) {
        (Some((_, took)), _) => {
            let ratio = took.as_nanos() / native.as_nanos().max(1);
            make(
                Level::Missing,
                format!(
                    "KVM is here but emulated: a loop takes {ratio} times as long in a guest; guests cannot run"
                ),
            )
        }
        (None, Some(Stage::LAST)) => make(Level::Ok, "runs guests".to_owned()),
        (None, Some(stage)) => make(
            Level::Missing,
            format!(
                "KVM is here but emulated: a small guest stopped after {}{}; guests cannot run",
                stage.word(),
                ending(run)
            ),
        ),
        (None, None) => make(
            Level::Missing,
            format!("KVM is here but a small guest did not run{}", ending(run)),
        ),
    }
}

fn ending(run: &Run) -> String {
    match (run.in_time, run.error.trim()) {
        (false, _) => format!(" and hung for {} s", DEADLINE.as_secs()),
        (true, "") => String::new(),
        (true, error) => format!(" ({error})"),
    }
}

/// The guest in a process of its own, killed when it takes too long.
fn run_guest() -> io::Result<Run> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["probe", "kvm"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let run = watch(&mut child);
    // A process stuck in the kernel's emulator goes when that lets it.
    let _ = child.kill();
    let _ = child.wait();
    run
}

fn watch(child: &mut Child) -> io::Result<Run> {
    let (tell, told) = mpsc::channel();
    let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut stderr = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
    std::thread::Builder::new()
        .name("probe".to_owned())
        .spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        })?;
    let (mut passed, start) = (Vec::new(), Instant::now());
    let in_time = loop {
        match told.recv_timeout(DEADLINE.saturating_sub(start.elapsed())) {
            Ok(line) => passed.extend(parse(&line)),
            Err(mpsc::RecvTimeoutError::Disconnected) => break true,
            Err(mpsc::RecvTimeoutError::Timeout) => break false,
        }
    };
    let _ = child.kill();
    let mut error = String::new();
    if in_time {
        stderr.read_to_string(&mut error)?;
    }
    Ok(Run {
        passed,
        error,
        in_time,
    })
}

fn parse(line: &str) -> Option<(Stage, Duration)> {
    let (word, micros) = line.split_once(' ')?;
    Some((
        Stage::from_word(word)?,
        Duration::from_micros(micros.parse().ok()?),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(passed: &[(&str, u64)], error: &str, in_time: bool) -> Run {
        let passed = passed
            .iter()
            .map(|(word, us)| (Stage::from_word(word).unwrap(), Duration::from_micros(*us)));
        Run {
            passed: passed.collect(),
            error: error.to_owned(),
            in_time,
        }
    }

    #[test]
    fn a_guest_that_gets_through_in_time_is_the_only_good_one() {
        let native = Duration::from_micros(60);
        let all = [("loop", 70), ("sse", 80), ("cmpxchg16b", 90), ("xrstor", 95)];
        assert_eq!(judge(&run(&all, "", true), native).level, Level::Ok);
        for (bad, word) in [
            (
                run(&all[..2], "emulation failed", true),
                "stopped after sse (emulation failed)",
            ),
            (run(&all[..1], "", false), "hung"),
            (run(&[], "no vcpu", true), "did not run (no vcpu)"),
            (
                run(&[("loop", 2_000_000), ("xrstor", 2_100_000)], "", true),
                "times as long",
            ),
        ] {
            let check = judge(&bad, native);
            assert_eq!(check.level, Level::Missing);
            assert!(check.found.contains(word), "{}", check.found);
        }
    }

    #[test]
    fn a_busy_host_is_not_accused() {
        let all = [("loop", 15_000), ("xrstor", 16_000)];
        assert_eq!(
            judge(&run(&all, "", true), Duration::from_micros(60)).level,
            Level::Ok
        );
    }
}
