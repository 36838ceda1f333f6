//! What nobody here wrote runs in a guest, and what a guest gives back arrives.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::MetadataExt,
    process::Command,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tests::{Host, Session, cases, noise, wait_until};

/// The image with stress-ng, watchdog and Python's own tests beside the default packages.
const TESTING: &str = "testing";

#[test]
fn programs_of_others() {
    let session = Host::new().up("others", &["--image", TESTING, "--cpus", "2", "--memory", "1G"]);
    cases!(session; git_clones_a_repository_that_was_copied_in, under_a_minute_of_stress_the_agent_answers);
}

fn git_clones_a_repository_that_was_copied_in(session: &Session) {
    let root = tempfile::tempdir().unwrap();
    let repository = root.path().join("repository");
    let git = |words: &[&str]| {
        let identity = [
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@b",
            "-c",
            "init.defaultBranch=main",
        ];
        let done = Command::new("git")
            .args(identity)
            .arg("-C")
            .arg(&repository)
            .args(words)
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    fs::create_dir(&repository).unwrap();
    git(&["init", "--quiet"]);
    for i in 0..5 {
        fs::write(repository.join(format!("file-{i}")), noise(200_000 * i)).unwrap();
        git(&["add", "."]);
        git(&["commit", "--quiet", "--message", "one more"]);
    }
    session
        .host()
        .coffer([OsStr::new("cp"), repository.as_os_str(), OsStr::new("others:")])
        .end()
        .code(0);
    let line = "git clone --quiet repository clone && cd clone && git fsck --full --strict && git rev-parse HEAD && git status --short";
    session.sh(line).end().says(git(&["rev-parse", "HEAD"]).trim());
}

fn under_a_minute_of_stress_the_agent_answers(session: &Session) {
    let stress =
        "exec stress-ng --cpu 2 --vm 2 --vm-bytes 128M --io 2 --hdd 1 --hdd-bytes 64M --timeout 60s --verify";
    let running = session.sh(stress).deadline(240).start();
    let (start, mut slowest, mut answers) = (Instant::now(), Duration::ZERO, 0);
    while start.elapsed() < Duration::from_secs(60) {
        slowest = slowest.max(session.exec(&[], ["true"]).deadline(30).end().code(0).took);
        answers += 1;
    }
    println!("       {answers} answers, the slowest after {slowest:.1?}");
    running.end().code(0);
}

#[test]
fn pythons_own_tests() {
    let session = Host::new().up("python", &["--image", TESTING, "--cpus", "2", "--memory", "1G"]);
    cases!(session; python_finds_processes_and_the_system_as_it_should);
}

fn python_finds_processes_and_the_system_as_it_should(session: &Session) {
    // Timers to the millisecond are not for a machine that is emulated; what fails once is tried again.
    let test = [
        "python3",
        "-m",
        "test",
        "--rerun",
        "--ignore",
        "*TimerfdTests*",
        "test_subprocess",
        "test_os",
    ];
    let ended = session.exec(&[], test).deadline(840).end().code(0);
    assert!(ended.text().contains("SUCCESS"), "{ended}");
}

#[test]
fn what_is_not_needed_goes_back_to_the_host() {
    let session = Host::new().up("giver", &["--image", "small", "--memory", "1G"]);
    cases!(session; memory_that_was_freed_is_the_hosts_again, files_that_were_deleted_take_no_space);
}

fn memory_that_was_freed_is_the_hosts_again(session: &Session) {
    let machine = session.number("machine_pid");
    let resident = || {
        let status = fs::read_to_string(format!("/proc/{machine}/status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    };
    let hog =
        "x = bytearray(400 << 20)\nx[::4096] = bytes(len(x[::4096]))\nprint('full', flush=True)\ninput()";
    let before = resident();
    let mut running = session.exec(&["-i"], ["python3", "-c", hog]).open_input().start();
    running.wait_for("full");
    let full = resident();
    assert!(full > before + 380, "{before} MiB, then {full} MiB");
    running.send("\n");
    running.end().code(0);
    wait_until("the memory is the host's again", 60, || resident() < before + 100);
    println!("       {before} MiB, {full} MiB, {} MiB", resident());
    assert!(session.number("machine.statistics.reclaimed_bytes") > 300 << 20);
}

fn files_that_were_deleted_take_no_space(session: &Session) {
    let disk = session.host().directory("giver").join("scratch.img");
    let used = || (fs::metadata(&disk).unwrap().blocks() * 512) >> 20;
    let before = used();
    session.sh("head -c 200M /dev/zero > file && sync").end().code(0);
    let full = used();
    assert!(full >= before + 190, "{before} MiB, then {full} MiB");
    session.sh("rm file && sync").end().code(0);
    wait_until("the space is the host's again", 60, || used() < before + 20);
    assert_eq!(fs::metadata(&disk).unwrap().len(), 64 << 30);
}

#[test]
fn every_session_is_its_own() {
    let host = Host::new();
    let pair = ["one", "two"].map(|name| host.up(name, &["--image", "small", "--memory", "256M"]));
    cases!(pair; they_draw_different_numbers, they_have_the_hosts_time, one_that_is_busy_does_not_stop_the_other);
}

fn they_draw_different_numbers(pair: &[Session; 2]) {
    let line =
        "head -c 16 /dev/urandom | base64; cat /proc/sys/kernel/random/boot_id /etc/machine-id; hostname";
    let [one, two] = pair
        .each_ref()
        .map(|session| session.sh(line).end().code(0).text());
    let same: Vec<_> = one
        .lines()
        .filter(|line| two.lines().any(|other| other == *line))
        .collect();
    assert!(same.is_empty() && one.lines().count() == 4, "{one}\n{two}");
}

fn they_have_the_hosts_time(pair: &[Session; 2]) {
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs_f64()
    };
    let second = 1.0;
    let before = now() - second;
    let there: f64 = pair[0]
        .exec(&[], ["date", "+%s.%N"])
        .end()
        .code(0)
        .text()
        .parse()
        .unwrap();
    assert!(
        (before..now() + second).contains(&there),
        "{there} is not within {before} and {}",
        now()
    );
}

fn one_that_is_busy_does_not_stop_the_other(pair: &[Session; 2]) {
    let flood = pair[0].sh("yes | head -c 20M; exec cat /dev/zero").start();
    flood.wait_for("y\n");
    pair[1]
        .exec(&[], ["echo", "here"])
        .deadline(30)
        .end()
        .says("here");
}
