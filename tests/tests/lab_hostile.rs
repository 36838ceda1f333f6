//! A guest whose root drives our devices by hand. The other half is `hostile/`, which says what it does.
//!
//! It may break its own machine. It may not crash the VMM, make it grow, fill the host's disk with log lines,
//! or slow the session beside it down to nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tests::{Host, Session, wait_until};

const HOSTILE: &str = env!("CARGO_BIN_EXE_hostile");
const MEMORY_KIB: u64 = 384 << 10;

/// What a VMM takes besides guest memory: 3 MiB, and what streams nobody reads may hold, 76 MiB by
/// `vsock_mux::limits`. The rest is room for the allocator.
const MOST_KIB: u64 = 112 << 10;
/// The same when no stream is involved.
const MOST_WITHOUT_STREAMS_KIB: u64 = 16 << 10;
/// The keeper holds a message of 128 KiB for each of 256 connections that have not said what they are.
const MOST_OF_KEEPER_KIB: u64 = 96 << 10;
/// 1,024 streams and what a machine has open otherwise.
const MOST_DESCRIPTORS: usize = 1024 + 128;
/// vCPUs, a thread a device, the main thread.
const MOST_THREADS: usize = 16;
/// Several lines a minute for each thing a guest can do wrong, and the console's own limit elsewhere.
const MOST_LOG_BYTES: u64 = 32 << 10;
/// Often enough to see a peak, seldom enough not to be the load.
const LOOK: Duration = Duration::from_millis(300);
/// A guest that has done nothing for so long will not.
const HANGS: Duration = Duration::from_secs(5);
/// An answer takes a tenth of a second here, and there are three machines on one emulated CPU.
const SLOWEST_ANSWER: Duration = Duration::from_secs(30);

#[test]
fn a_hostile_guest_breaks_only_its_own_machine() {
    let host = Host::new();
    let neighbour = host.up("neighbour", &["--cpus", "1", "--memory", "256M"]);
    let hostile = host.up("hostile", &["--cpus", "2", "--memory", "384M"]);
    host.coffer(["cp", "--quiet", HOSTILE, "hostile:/tmp/hostile"])
        .end()
        .code(0);
    let seed = seed();

    let seen = watched(&neighbour, &hostile, || {
        let phases = "registers rings races doorbells messages ports";
        let said = hostile
            .root(&format!("/tmp/hostile {seed} {phases}"))
            .end()
            .code(0);
        println!("{}", said.text());
    });
    assert!(seen.rss_kib < MOST_WITHOUT_STREAMS_KIB, "{seen:?}");

    // Without its own line to the host, the program says how it went on the console.
    watched(&neighbour, &hostile, || {
        let phases = "floods lengths credit hoard packets buffers packet-rings give-back";
        on_console(&hostile, seed, phases);
        wait_until("the agent is back", 60, || hostile.sh("true").end().code == 0);
    });
    watched(&neighbour, &hostile, || {
        on_console(&hostile, seed, "scratch image wait ruin");
    });
    ruin(&hostile);
    neighbour.sh("echo fine").end().says("fine");
}

/// From the clock, or given, to see the same again.
fn seed() -> u64 {
    let given = std::env::var("HOSTILE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    given.unwrap_or_else(now)
}

fn on_console(hostile: &Session, seed: u64, phases: &str) {
    hostile
        .root(&format!("/tmp/hostile {seed} --console {phases}"))
        .end()
        .code(0);
    let phase = phases
        .split(' ')
        .take_while(|phase| *phase != "wait")
        .last()
        .unwrap();
    let last = format!("hostile: {phase} done");
    let mut said = String::new();
    wait_until(&last, 120, || {
        said = console(hostile);
        said.contains(&last) || said.contains("FAILED")
    });
    let latest = said.rsplit("hostile: seed").next().unwrap();
    let lines = latest.lines().filter(|line| line.starts_with("hostile: "));
    lines.for_each(|line| println!("{line}"));
    assert!(!said.contains("FAILED"), "{said}");
}

/// What the guest does to itself at the end is its own business, and ours only that nothing is left.
fn ruin(hostile: &Session) {
    let vmm = format!("/proc/{}", hostile.number("machine_pid"));
    // No command starts in there any more, but a file can still be put where the program waits for it.
    let go = hostile.host().root().join("go");
    fs::write(&go, "").unwrap();
    hostile
        .host()
        .coffer(["cp", "--quiet", go.to_str().unwrap(), "hostile:/dev/shm/go"])
        .end()
        .code(0);
    wait_until("ruin begins", 60, || {
        console(hostile).contains("hostile: ruin begins")
    });
    // It panics, or its machine ends, or it hangs, of which the sign is that nothing happens.
    let hangs = Instant::now() + HANGS;
    while Instant::now() < hangs && Path::new(&vmm).exists() {
        thread::sleep(LOOK);
    }
    clean(hostile);
}

/// What was seen of the hostile machine, at its worst.
#[derive(Debug, Default)]
struct Seen {
    rss_kib: u64,
    keeper_kib: u64,
    descriptors: usize,
    threads: usize,
    answers: usize,
    slowest: Duration,
}

/// Keeps an eye on the machine, and the neighbour busy, while the attack goes on.
fn watched(neighbour: &Session, hostile: &Session, attack: impl FnOnce()) -> Seen {
    let (vmm, keeper) = (hostile.number("machine_pid"), hostile.number("pid"));
    let over = AtomicBool::new(false);
    let mut seen = thread::scope(|scope| {
        let eye = scope.spawn(|| keep_looking(vmm, keeper, &over));
        let company = scope.spawn(|| keep_asking(neighbour, &over));
        // Whatever becomes of the attack, the threads above have to end.
        let attack = catch_unwind(AssertUnwindSafe(attack));
        over.store(true, Ordering::Relaxed);
        let (mut seen, (answers, slowest)) = (eye.join().unwrap(), company.join().unwrap());
        attack.unwrap_or_else(|panic| resume_unwind(panic));
        (seen.answers, seen.slowest) = (answers, slowest);
        seen
    });
    look(vmm, keeper, &mut seen);
    println!("{seen:?}");
    assert!(
        seen.rss_kib < MOST_KIB && seen.keeper_kib < MOST_OF_KEEPER_KIB,
        "{seen:?}"
    );
    assert!(
        seen.descriptors < MOST_DESCRIPTORS && seen.threads < MOST_THREADS,
        "{seen:?}"
    );
    assert!(seen.slowest < SLOWEST_ANSWER, "{seen:?}");
    clean(hostile);
    seen
}

fn keep_looking(vmm: u64, keeper: u64, over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    while !over.load(Ordering::Relaxed) {
        look(vmm, keeper, &mut seen);
        thread::sleep(LOOK);
    }
    seen
}

fn keep_asking(neighbour: &Session, over: &AtomicBool) -> (usize, Duration) {
    let (mut answers, mut slowest) = (0, Duration::ZERO);
    while !over.load(Ordering::Relaxed) {
        let answer = neighbour.exec(&[], ["true"]).end().code(0);
        slowest = slowest.max(answer.took);
        answers += 1;
        thread::sleep(LOOK);
    }
    (answers, slowest)
}

/// Fails when the VMM is gone.
fn look(vmm: u64, keeper: u64, seen: &mut Seen) {
    let (vmm, keeper) = (format!("/proc/{vmm}"), format!("/proc/{keeper}"));
    let count = |what: &str| {
        fs::read_dir(format!("{vmm}/{what}"))
            .expect("the VMM is gone")
            .count()
    };
    seen.descriptors = seen.descriptors.max(count("fd"));
    seen.threads = seen.threads.max(count("task"));
    seen.rss_kib = seen.rss_kib.max(rss_besides_guest_memory(&vmm));
    seen.keeper_kib = seen.keeper_kib.max(rss_besides_guest_memory(&keeper));
}

/// Resident memory, all mappings but those as large as the guest's.
fn rss_besides_guest_memory(process: &str) -> u64 {
    let maps = fs::read_to_string(format!("{process}/smaps")).unwrap();
    let mut size = 0;
    let mut sum = 0;
    for line in maps.lines() {
        let kib = |name: &str| {
            line.strip_prefix(name)?
                .strip_suffix("kB")?
                .trim()
                .parse::<u64>()
                .ok()
        };
        size = kib("Size:").unwrap_or(size);
        sum += kib("Rss:").filter(|_| size < MEMORY_KIB).unwrap_or(0);
    }
    sum
}

/// Nothing of ours panicked, and what the guest made us write stays small.
fn clean(hostile: &Session) {
    let directory = hostile.host().directory(hostile.name());
    for log in ["vmm.log", "keeper.log"] {
        let text = fs::read_to_string(directory.join(log)).unwrap();
        assert!(!text.contains("panicked at"), "{text}");
        assert!(
            (text.len() as u64) < MOST_LOG_BYTES,
            "{} bytes in {log}",
            text.len()
        );
    }
    assert!(length(&directory.join("console.log")) <= 16 << 20);
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn console(session: &Session) -> String {
    let log = session.host().directory(session.name()).join("console.log");
    String::from_utf8_lossy(&fs::read(log).unwrap()).into_owned()
}
