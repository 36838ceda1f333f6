//! What a folder costs: a fixed list of operations, each timed by itself, on a shared folder in a guest or on any
//! directory. *Cold* is a file system that was unmounted and mounted again, or where that cannot be done, a kernel
//! that was told to drop what it caches.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    iter,
    mem::MaybeUninit,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::Instant,
};

use rustix::{
    fs::RawDir,
    mount::{MountFlags, UnmountFlags, mount, unmount},
};

const MEBIBYTE: usize = 1 << 20;
const PAGE: usize = 4096;
/// What the small files hold: the median source file's size, about.
const SMALL: usize = 2048;
/// A guest finds its folder here; the initramfs has nothing but `/dev` and `/proc`.
const MOUNTPOINT: &str = "/share";
/// In the folder itself: what readdir-large-cold lists. Whoever has it made beforehand saves a guest the work.
const LISTED: &str = "listed";

const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

/// What to do and where, from words like those of a command line.
#[derive(Debug)]
pub(crate) struct Plan {
    place: Place,
    sizes: Sizes,
}

#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// Small files.
    files: u64,
    /// Of the large file.
    mebibytes: u64,
    /// Of single pages of it.
    reads: u64,
    /// Files in the large directory, if it is to be made here.
    listed: u64,
}

#[derive(Debug)]
enum Place {
    /// As it is; the kernel is told to drop its caches, which only root may and which the whole machine feels.
    Directory { path: PathBuf, drop_caches: bool },
    /// A virtio-fs by its tag, and the folder's path in it.
    Device {
        tag: String,
        folder: PathBuf,
        read_ahead: Option<u32>,
    },
}

impl Plan {
    pub(crate) fn parse<'a>(mut words: impl Iterator<Item = &'a str>) -> io::Result<Self> {
        let (mut directory, mut tag, mut folder, mut read_ahead) = (None, None, PathBuf::new(), None);
        let mut drop_caches = true;
        let (mut files, mut mebibytes, mut reads, mut listed) = (1000, 64, 4096, 5000);
        while let Some(word) = words.next() {
            let value = words
                .next()
                .ok_or_else(|| invalid(format!("{word} wants a value")))?;
            match word {
                "--dir" => directory = Some(PathBuf::from(value)),
                "--tag" => tag = Some(value.to_owned()),
                "--folder" => folder = PathBuf::from(value),
                "--read-ahead" => read_ahead = Some(number(word, value)?),
                "--drop-caches" => drop_caches = value != "no",
                "--files" => files = number(word, value)?,
                "--mebibytes" => mebibytes = number(word, value)?,
                "--reads" => reads = number(word, value)?,
                "--listed" => listed = number(word, value)?,
                _ => return Err(invalid(format!("unknown option {word}"))),
            }
        }
        let place = match (directory, tag) {
            (Some(path), None) => Place::Directory { path, drop_caches },
            (None, Some(tag)) => Place::Device {
                tag,
                folder,
                read_ahead,
            },
            _ => return Err(invalid("one of --dir and --tag is needed".into())),
        };
        let reads = reads.min(mebibytes * (MEBIBYTE / PAGE) as u64);
        let sizes = Sizes {
            files,
            mebibytes,
            reads,
            listed,
        };
        Ok(Plan { place, sizes })
    }

    /// One line per operation: its name, how many, of what, nanoseconds. `turn` is called before each is prepared
    /// and before it begins, so that two guests can take turns and the host can count what happens in between.
    pub(crate) fn run<S>(&self, stream: &mut S, turn: fn(&mut S) -> io::Result<()>) -> io::Result<()>
    where
        S: Write,
    {
        let folder = self.place.open()?;
        let bench = Bench {
            root: folder.join(format!("bench-{}", std::process::id())),
            listed: folder.join(LISTED),
            sizes: self.sizes,
        };
        fs::create_dir(&bench.root)?;
        fs::create_dir(bench.root.join("files"))?;
        let is_ours = !bench.listed.exists();
        if is_ours {
            bench.make_listed()?;
        }
        let rounds = OPERATIONS
            .iter()
            .flat_map(|operation| iter::repeat_n(operation, operation.rounds));
        for operation in rounds {
            turn(stream)?;
            if operation.cold {
                self.place.forget()?;
            }
            turn(stream)?;
            let begin = Instant::now();
            let count = (operation.act)(&bench)?;
            let nanoseconds = begin.elapsed().as_nanos();
            let line = format!("{} {count} {} {nanoseconds}\n", operation.name, operation.unit);
            stream.write_all(line.as_bytes())?;
        }
        turn(stream)?;
        fs::remove_dir_all(&bench.root)?;
        if is_ours {
            fs::remove_dir_all(&bench.listed)?;
        }
        self.place.close()
    }
}

impl Place {
    fn open(&self) -> io::Result<PathBuf> {
        match self {
            Place::Directory { path, .. } => Ok(path.clone()),
            Place::Device {
                tag,
                folder,
                read_ahead,
            } => {
                fs::create_dir_all(MOUNTPOINT)?;
                mount(
                    tag.as_str(),
                    MOUNTPOINT,
                    "virtiofs",
                    MountFlags::NOSUID | MountFlags::NODEV,
                    None,
                )?;
                if let Some(kibibytes) = read_ahead {
                    set_read_ahead(*kibibytes)?;
                }
                let folder = Path::new(MOUNTPOINT).join(folder);
                // A folder below is mounted at the first step into it, and a mount is never part of what is timed.
                fs::metadata(folder.join("."))?;
                Ok(folder)
            }
        }
    }

    fn close(&self) -> io::Result<()> {
        match self {
            Place::Directory { .. } => Ok(()),
            // A folder mounted below goes with it: the kernel made that mount by itself, and takes it back.
            Place::Device { .. } => Ok(unmount(MOUNTPOINT, UnmountFlags::empty())?),
        }
    }

    fn forget(&self) -> io::Result<()> {
        rustix::fs::sync();
        match self {
            Place::Directory { drop_caches, .. } => {
                if *drop_caches && let Err(error) = fs::write(DROP_CACHES, "3") {
                    eprintln!("bench-init: cold is warm here: cannot drop the caches: {error}");
                }
                Ok(())
            }
            Place::Device { .. } => {
                fs::write(DROP_CACHES, "3")?;
                self.close()?;
                self.open().map(drop)
            }
        }
    }
}

fn set_read_ahead(kibibytes: u32) -> io::Result<()> {
    if !Path::new("/sys/class").exists() {
        fs::create_dir_all("/sys")?;
        mount("sysfs", "/sys", "sysfs", MountFlags::empty(), None)?;
    }
    // A folder mounted below shares this with the mount above, which is the one that has a name there.
    let device = fs::metadata(MOUNTPOINT)?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    fs::write(
        format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"),
        kibibytes.to_string(),
    )
}

struct Bench {
    root: PathBuf,
    listed: PathBuf,
    sizes: Sizes,
}

struct Operation {
    name: &'static str,
    unit: &'static str,
    cold: bool,
    /// How often it is done, timed and told.
    rounds: usize,
    /// Returns how many of the unit it did.
    act: fn(&Bench) -> io::Result<u64>,
}

impl Operation {
    const fn cold(name: &'static str, unit: &'static str, act: fn(&Bench) -> io::Result<u64>) -> Self {
        Operation {
            name,
            unit,
            cold: true,
            rounds: 1,
            act,
        }
    }

    const fn times(self, rounds: usize) -> Self {
        Operation { rounds, ..self }
    }

    const fn warm(name: &'static str, unit: &'static str, act: fn(&Bench) -> io::Result<u64>) -> Self {
        Operation {
            name,
            unit,
            cold: false,
            rounds: 1,
            act,
        }
    }
}

/// A listing is over in a few requests, and the first one in a machine is mostly code that runs for the first time,
/// which costs where processors are emulated.
const LISTINGS: usize = 6;

/// In the order in which each finds what it needs.
const OPERATIONS: [Operation; 11] = [
    Operation::cold("sequential-write", "bytes", Bench::sequential_write),
    Operation::cold("sequential-read-cold", "bytes", Bench::sequential_read),
    Operation::cold("random-read-cold", "reads", Bench::random_read),
    Operation::cold("create", "files", Bench::create),
    Operation::warm("write-small", "files", Bench::write_small),
    Operation::cold("stat-cold", "files", Bench::stat),
    Operation::cold("open-read-cold", "files", Bench::open_and_read),
    Operation::cold("readdir-cold", "entries", Bench::list).times(LISTINGS),
    Operation::cold("readdir-large-cold", "entries", Bench::list_large).times(LISTINGS),
    Operation::cold("rename-cold", "files", Bench::rename),
    Operation::cold("unlink-cold", "files", Bench::unlink),
];

impl Bench {
    /// And fsync, so that nothing is left in the guest's memory.
    fn sequential_write(&self) -> io::Result<u64> {
        let block = vec![0x5a; MEBIBYTE];
        let mut file = File::create(self.large())?;
        for _ in 0..self.sizes.mebibytes {
            file.write_all(&block)?;
        }
        file.sync_all()?;
        Ok(self.sizes.mebibytes * MEBIBYTE as u64)
    }

    fn sequential_read(&self) -> io::Result<u64> {
        let mut block = vec![0; MEBIBYTE];
        let mut file = File::open(self.large())?;
        let mut total = 0;
        loop {
            match file.read(&mut block)? {
                0 => return Ok(total),
                n => total += n as u64,
            }
        }
    }

    /// Each page at most once.
    fn random_read(&self) -> io::Result<u64> {
        let file = File::open(self.large())?;
        let mut page = [0; PAGE];
        for index in shuffled(file.metadata()?.len() / PAGE as u64)
            .into_iter()
            .take(self.sizes.reads as usize)
        {
            file.read_exact_at(&mut page, index * PAGE as u64)?;
        }
        Ok(self.sizes.reads)
    }

    fn create(&self) -> io::Result<u64> {
        self.each(|index| {
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(self.small("f", index))
                .map(drop)
        })
    }

    fn write_small(&self) -> io::Result<u64> {
        let content = [0x5a; SMALL];
        self.each(|index| {
            OpenOptions::new()
                .write(true)
                .open(self.small("f", index))?
                .write_all(&content)
        })
    }

    fn stat(&self) -> io::Result<u64> {
        // The standard library would ask for the birth time as well, which no tool that stats a tree does.
        self.each(|index| Ok(rustix::fs::lstat(self.small("f", index)).map(drop)?))
    }

    fn open_and_read(&self) -> io::Result<u64> {
        let mut content = [0; SMALL];
        self.each(|index| File::open(self.small("f", index))?.read_exact(&mut content))
    }

    fn list(&self) -> io::Result<u64> {
        entries(&self.root.join("files"))
    }

    fn list_large(&self) -> io::Result<u64> {
        entries(&self.listed)
    }

    fn make_listed(&self) -> io::Result<()> {
        fs::create_dir(&self.listed)?;
        for index in 0..self.sizes.listed {
            File::create(self.listed.join(format!("f{index:06}")))?;
        }
        Ok(())
    }

    fn rename(&self) -> io::Result<u64> {
        self.each(|index| fs::rename(self.small("f", index), self.small("g", index)))
    }

    fn unlink(&self) -> io::Result<u64> {
        self.each(|index| fs::remove_file(self.small("g", index)))
    }

    fn each(&self, mut act: impl FnMut(u64) -> io::Result<()>) -> io::Result<u64> {
        for index in 0..self.sizes.files {
            act(index)?;
        }
        Ok(self.sizes.files)
    }

    fn large(&self) -> PathBuf {
        self.root.join("large")
    }

    fn small(&self, letter: &str, index: u64) -> PathBuf {
        self.root.join(format!("files/{letter}{index:06}"))
    }
}

/// As the C library lists: the standard library allocates for each name, which is no business of the folder's.
fn entries(directory: &Path) -> io::Result<u64> {
    let directory = File::open(directory)?;
    let mut buffer = [MaybeUninit::uninit(); 32 << 10];
    let mut listing = RawDir::new(&directory, &mut buffer);
    let mut count = 0;
    while let Some(entry) = listing.next() {
        let is_dots = matches!(entry?.file_name().to_bytes(), b"." | b"..");
        count += u64::from(!is_dots);
    }
    Ok(count)
}

/// The numbers below `count` in an order no read-ahead guesses, the same each time.
fn shuffled(count: u64) -> Vec<u64> {
    let mut numbers: Vec<u64> = (0..count).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for last in (1..numbers.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        numbers.swap(last, (state % (last as u64 + 1)) as usize);
    }
    numbers
}

fn number<T: std::str::FromStr>(option: &str, value: &str) -> io::Result<T> {
    value
        .parse()
        .map_err(|_| invalid(format!("{option} wants a number, not {value}")))
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(words: &str) -> io::Result<Plan> {
        Plan::parse(words.split_whitespace())
    }

    #[test]
    fn a_plan_wants_exactly_one_place() {
        assert!(plan("--files 3").is_err());
        assert!(plan("--dir / --tag t").is_err());
        assert!(matches!(plan("--dir /x").unwrap().place, Place::Directory { .. }));
        assert!(matches!(plan("--tag t").unwrap().place, Place::Device { .. }));
    }

    #[test]
    fn an_option_without_a_value_or_with_a_bad_one_is_refused() {
        for words in [
            "--dir",
            "--dir / --files",
            "--dir / --files many",
            "--dir / --colour red",
        ] {
            assert!(plan(words).is_err(), "{words}");
        }
    }

    #[test]
    fn no_more_reads_than_there_are_pages() {
        assert_eq!(
            plan("--dir / --mebibytes 1 --reads 4096").unwrap().sizes.reads,
            256
        );
    }

    #[test]
    fn every_number_comes_once_and_in_no_order() {
        let numbers = shuffled(1000);
        assert!(!numbers.is_sorted());
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn a_run_reports_every_operation_and_leaves_nothing() {
        let folder = std::env::temp_dir().join(format!("bench-init-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let plan = plan(&format!(
            "--dir {} --drop-caches no --files 7 --mebibytes 2 --reads 5 --listed 9",
            folder.display()
        ))
        .unwrap();
        let mut report = Vec::new();
        plan.run(&mut report, |_| Ok(())).unwrap();
        let report = String::from_utf8(report).unwrap();
        let mut lines: Vec<&str> = report
            .lines()
            .map(|line| line.rsplit_once(' ').unwrap().0)
            .collect();
        assert_eq!(lines.len(), 9 + 2 * LISTINGS);
        lines.dedup();
        assert_eq!(
            lines,
            [
                "sequential-write 2097152 bytes",
                "sequential-read-cold 2097152 bytes",
                "random-read-cold 5 reads",
                "create 7 files",
                "write-small 7 files",
                "stat-cold 7 files",
                "open-read-cold 7 files",
                "readdir-cold 7 entries",
                "readdir-large-cold 9 entries",
                "rename-cold 7 files",
                "unlink-cold 7 files",
            ]
        );
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        fs::remove_dir(&folder).unwrap();
    }
}
