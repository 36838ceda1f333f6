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
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tests::{Host, Run, Session, wait_until};

const HOSTILE: &str = env!("CARGO_BIN_EXE_hostile");
const MEMORY_KIB: u64 = 384 << 10;

/// In the content of everything that is not shared; the guest's half looks for it in each answer.
const CANARY: &str = "canary-";
/// By how much the guest may fill a folder of a host whose disk is memory.
const MOST_OF_FOLDER: &str = "max-bytes=64M,max-files=4000";

/// What a VMM takes besides guest memory: 3 MiB, and what streams nobody reads may hold, 76 MiB by
/// `vsock_mux::limits`. The rest is room for the allocator.
const MOST_KIB: u64 = 112 << 10;
/// The same when no stream is involved.
const MOST_WITHOUT_STREAMS_KIB: u64 = 16 << 10;
/// The keeper holds a message of 128 KiB for each of 256 connections that have not said what they are.
const MOST_OF_KEEPER_KIB: u64 = 96 << 10;
/// 1,024 streams and what a machine has open otherwise.
const MOST_DESCRIPTORS: usize = 1024 + 128;
/// Files that folders may hold open besides.
const MOST_DESCRIPTORS_WITH_FOLDERS: usize = MOST_DESCRIPTORS + (16 << 10);
/// The main thread, two vCPUs, one each of five devices, four that wait for the folders' disk, the janitor of the
/// folders, one of the kernel's own (kvm-nx-lpage-recovery), and while somebody asks about folders one more.
const MOST_THREADS: usize = 1 + 2 + 5 + 4 + 1 + 1 + 1;
/// Several lines a minute for each thing a guest can do wrong, and the console's own limit elsewhere.
const MOST_LOG_BYTES: u64 = 32 << 10;
/// Often enough to see a peak, seldom enough not to be the load.
const LOOK: Duration = Duration::from_millis(300);
/// A guest that has done nothing for so long will not.
const HANGS: Duration = Duration::from_secs(5);
/// A hundred thousand requests take minutes there.
const ATTACK_SECONDS: u64 = 600;
/// An answer takes a tenth of a second here, and there are three machines on one emulated CPU.
const SLOWEST_ANSWER: Duration = Duration::from_secs(30);

#[test]
fn a_hostile_guest_breaks_only_its_own_machine() {
    let host = Host::new();
    let neighbour = host.up("neighbour", &["--cpus", "1", "--memory", "256M"]);
    let tree = Tree::make(&host);
    let [work, only, other] = tree.shares();
    let hostile = host.up(
        "hostile",
        &[
            "--cpus", "2", "--memory", "384M", "--share", &work, "--share", &only, "--share", &other,
        ],
    );
    host.coffer(["cp", "--quiet", HOSTILE, "hostile:/tmp/hostile"])
        .end()
        .code(0);
    let seed = seed();

    let seen = watched(&neighbour, &hostile, || {
        let phases = "registers rings races doorbells messages ports";
        println!("{}", attack(&hostile, seed, phases));
    });
    assert!(seen.rss_kib < MOST_WITHOUT_STREAMS_KIB, "{seen:?}");

    let seen = watched(&neighbour, &hostile, || {
        let said = attack(
            &hostile,
            seed,
            "folders names links swaps rewrites kinds nodes hoards babble",
        );
        println!("{said}");
        assert!(!said.contains(CANARY), "{said}");
    });
    assert!(seen.rss_kib < MOST_WITHOUT_STREAMS_KIB, "{seen:?}");
    tree.holds();

    // Without its own line to the host, the program says how it went on the console.
    watched(&neighbour, &hostile, || {
        let phases = "floods lengths credit hoard packets buffers packet-rings give-back";
        on_console(&hostile, seed, phases);
        wait_until("the agent is back", 60, || {
            as_root(&hostile, "true").end().code == 0
        });
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

/// Not in a folder, where commands start: the guest's kernel has lost the device that they are on.
fn as_root(hostile: &Session, line: &str) -> Run {
    hostile.exec(&["--user", "root", "--workdir", "/"], ["sh", "-c", line])
}

/// Runs phases one after the other and gives what the guest's half says.
fn attack(hostile: &Session, seed: u64, phases: &str) -> String {
    let run = as_root(hostile, &format!("/tmp/hostile {seed} {phases}"));
    run.deadline(ATTACK_SECONDS).end().code(0).text()
}

fn on_console(hostile: &Session, seed: u64, phases: &str) {
    as_root(hostile, &format!("/tmp/hostile {seed} --console {phases}"))
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
    let seen = thread::scope(|scope| {
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
    println!("{seen:?}");
    assert!(
        seen.rss_kib < MOST_KIB && seen.keeper_kib < MOST_OF_KEEPER_KIB,
        "{seen:?}"
    );
    assert!(
        seen.descriptors < MOST_DESCRIPTORS_WITH_FOLDERS && seen.threads <= MOST_THREADS,
        "{seen:?}"
    );
    assert!(seen.slowest < SLOWEST_ANSWER, "{seen:?}");
    // Folders are asked for by then as an honest guest does, which forgets what there was before.
    let mut left = Seen::default();
    look(vmm, keeper, &mut left);
    assert!(left.descriptors < MOST_DESCRIPTORS, "{left:?}");
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

/// Folders to share, and what lies beside them and is nobody's business.
struct Tree {
    root: PathBuf,
    before: BTreeMap<PathBuf, String>,
}

impl Tree {
    fn make(host: &Host) -> Self {
        let root = host.root().join("tree");
        for folder in ["work", "only", "other", "beside"] {
            let (folder, outside) = (root.join(folder), folder == "beside");
            let content = if outside { "canary-content" } else { "inside" };
            fs::create_dir_all(folder.join("directory")).unwrap();
            for file in ["plain", "directory/plain"] {
                fs::write(folder.join(file), content).unwrap();
            }
            fs::write(folder.join("hidden.key"), "canary-key").unwrap();
            let beside = root.join("beside");
            for (link, target) in [
                ("to-file", beside.join("plain")),
                ("to-directory", beside),
                ("up-to-file", "../beside/plain".into()),
                ("up-to-directory", "../beside".into()),
                ("to-root", "/".into()),
                ("to-process", "/proc/self".into()),
            ] {
                symlink(target, folder.join(link)).unwrap();
            }
        }
        let mut tree = Tree {
            root,
            before: BTreeMap::new(),
        };
        tree.before = tree.untouchable();
        tree
    }

    fn shares(&self) -> [String; 3] {
        let share = |name: &str, options: &str| {
            let path = self.root.join(name);
            format!("{}:{options},hide=*.key", path.display())
        };
        let (writable, other) = (format!("rw,{MOST_OF_FOLDER}"), format!("rw,{MOST_OF_FOLDER}"));
        [
            share("work", &writable),
            share("only", "ro"),
            share("other", &other),
        ]
    }

    /// What no guest may change.
    fn untouchable(&self) -> BTreeMap<PathBuf, String> {
        let mut state = BTreeMap::new();
        for place in ["beside", "only", "work/hidden.key", "other/hidden.key"] {
            record(&self.root.join(place), &mut state);
        }
        state
    }

    /// Nothing got out, and nothing is in the folders that another program of the host would fall for.
    fn holds(&self) {
        assert_eq!(self.before, self.untouchable());
        let mut shared = BTreeMap::new();
        for folder in ["work", "only", "other"] {
            record(&self.root.join(folder), &mut shared);
        }
        let names = fs::read_dir(&self.root).unwrap().count();
        assert_eq!(names, 4, "something was made beside the folders");
        for path in shared.keys() {
            let found = fs::symlink_metadata(path).unwrap();
            let kind = found.file_type();
            assert!(
                kind.is_file() || kind.is_dir() || kind.is_symlink(),
                "{}",
                path.display()
            );
            let mode = found.permissions().mode();
            assert!(
                kind.is_symlink() || mode & 0o6000 == 0,
                "{}: {mode:o}",
                path.display()
            );
        }
    }
}

/// Everything there is to know of a file and all below it, but when it was last read.
fn record(path: &Path, into: &mut BTreeMap<PathBuf, String>) {
    let found = fs::symlink_metadata(path).unwrap();
    let kind = found.file_type();
    let content = if kind.is_symlink() {
        fs::read_link(path).unwrap().display().to_string()
    } else if kind.is_file() && found.len() < 4096 {
        String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()
    } else {
        String::new()
    };
    let (mode, size, links) = (found.mode(), found.size(), found.nlink());
    let (changed, owner) = ((found.ctime(), found.ctime_nsec()), (found.uid(), found.gid()));
    let state = format!("{mode:o} {owner:?} {links} links, {size} bytes, {changed:?}: {content}");
    into.insert(path.to_owned(), state);
    if kind.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            record(&entry.unwrap().path(), into);
        }
    }
}
