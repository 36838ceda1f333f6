//! Programs of others work in a folder of the host, and what a file system is asked for there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

use tests::{Host, Run, Session, cases};

/// The image with Python's own tests beside the default packages.
const TESTING: &str = "testing";

fn session(name: &str) -> Session {
    let host = Host::new();
    let folder = host.folder("work").display().to_string();
    host.up(
        name,
        &[
            "--image", TESTING, "--cpus", "2", "--memory", "1G", "--share", &folder,
        ],
    )
}

fn on_host(session: &Session, path: &str) -> PathBuf {
    session.host().root().join("folders/work").join(path)
}

#[test]
fn tools_in_a_folder() {
    cases!(session("tools");
        git_works_in_it,
        two_writers_share_a_database,
        a_thousand_files_come_out_of_an_archive_and_go,
        a_virtual_environment_is_made_and_runs,
    );
}

fn git_works_in_it(session: &Session) {
    let line = "
        git config --global user.name a; git config --global user.email a@b
        git init --quiet --initial-branch main repository; cd repository
        for i in $(seq 3); do
            mkdir -p d$i; for j in $(seq 5); do head -c 3000 /dev/urandom | base64 > d$i/$j; done
            git add .; git commit --quiet --message $i
        done
        git switch --quiet --create side; git mv d1 moved; git commit --quiet --message moved
        git switch --quiet main; echo x >> d2/1; git commit --quiet --all --message x; git merge --quiet side --message merged
        git stash list; git gc --quiet --prune=now; git clone --quiet . ../clone
        git -C ../clone fsck --full --strict 2>&1; git worktree add --quiet ../tree side 2>&1; git -C ../tree status --short
        git rebase --quiet HEAD~1 2>&1; git status --short; git log --oneline --all | wc -l; git rev-parse HEAD";
    let ended = session.exec(&[], ["sh", "-ec", line]).end().code(0);
    let text = ended.text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 2, "{ended}");
    let host = "git -c safe.directory='*' fsck --full --strict 2>&1 && git -c safe.directory='*' rev-parse HEAD && git -c safe.directory='*' status --short";
    let there = Run::new(["sh", "-c", host])
        .at(on_host(session, "repository"))
        .end();
    there.says(lines[1]);
    session.sh("rm -rf repository clone tree").end().says("");
    assert!(!on_host(session, "repository").exists());
}

const WRITER: &str = "
import sqlite3, sys
base = sqlite3.connect('base.db', timeout=60, isolation_level=None)
print('ready', flush=True); sys.stdin.readline()
for n in range(50):
    base.execute('begin immediate')
    total = base.execute('select count(*) from t').fetchone()[0]
    base.execute('insert into t values (?, ?, ?)', (sys.argv[1], n, bytes(2000)))
    assert base.execute('select count(*) from t').fetchone()[0] == total + 1
    base.execute('commit')
";

fn two_writers_share_a_database(session: &Session) {
    let make = "import sqlite3; base = sqlite3.connect('base.db'); print(*base.execute('pragma journal_mode=wal').fetchone())
base.execute('create table t (who text, n integer, filler blob)')";
    session.exec(&[], ["python3", "-c", make]).end().says("wal");
    let mut writers = ["one", "two"].map(|name| {
        let writer = session.exec(&["-i"], ["python3", "-c", WRITER, name]);
        writer.open_input().start()
    });
    writers.iter().for_each(|writer| writer.wait_for("ready"));
    writers.iter_mut().for_each(|writer| writer.send("go\n"));
    for writer in writers {
        writer.end().says("ready");
    }
    let check = "import sqlite3; base = sqlite3.connect('base.db')
print(*base.execute('pragma integrity_check').fetchone(), *base.execute('select count(*), count(distinct who || n) from t').fetchone())";
    session
        .exec(&[], ["python3", "-c", check])
        .end()
        .says("ok 100 100");
    Run::new(["python3", "-c", check])
        .at(on_host(session, ""))
        .end()
        .says("ok 100 100");
    session.sh("rm base.db*").end().code(0);
}

fn a_thousand_files_come_out_of_an_archive_and_go(session: &Session) {
    let make = "
import os
for d in range(20):
    os.makedirs(f'/tmp/many/{d}/sub')
    for n in range(50):
        open(f'/tmp/many/{d}/sub/{n}', 'w').write(f'{d} {n}' * (n + 1))
        if n % 10 == 0: os.symlink(f'sub/{n}', f'/tmp/many/{d}/link-{n}')
";
    session.exec(&[], ["python3", "-c", make]).end().says("");
    session
        .sh("tar c -C /tmp many | tar x && diff --recursive --no-dereference /tmp/many many && find many | wc -l")
        .deadline(400)
        .end()
        .says("1141");
    let archive = Run::new([
        "sh",
        "-c",
        "tar c many | wc -c; find many -type f | wc -l; find many ! -perm -u+r",
    ])
    .at(on_host(session, ""))
    .end();
    assert!(archive.code(0).text().ends_with("\n1000"));
    session
        .sh("tar cf all.tar many && rm -rf many && tar tf all.tar | wc -l && rm all.tar")
        .deadline(400)
        .end()
        .says("1141");
    assert!(!on_host(session, "many").exists() && !on_host(session, "all.tar").exists());
}

fn a_virtual_environment_is_made_and_runs(session: &Session) {
    let line =
        "python3 -m venv --without-pip v && v/bin/python -c 'import sys; print(sys.prefix)' && rm -rf v";
    session.sh(line).end().says("/sessions/tools/mnt/work/v");
}

#[test]
fn a_file_system_in_full() {
    cases!(session("calls");
        memory_that_is_shared_with_a_file_is_the_file,
        direct_reads_and_writes_go_to_the_host,
        locks_hold_between_processes,
        files_have_holes_and_are_longer_than_four_gibibytes,
        names_are_as_long_as_anywhere,
        a_file_without_a_name_gets_one_or_goes,
        what_is_open_stays_when_its_name_is_gone,
        a_directory_that_was_removed_is_an_empty_one,
        attributes_of_users_are_kept,
    );
}

fn python(session: &Session, program: &str) -> tests::Ended {
    let start = "import ctypes, errno, fcntl, mmap, os, struct, subprocess, sys\n";
    session
        .exec(&[], ["python3", "-c", &format!("{start}{program}")])
        .end()
        .code(0)
}

fn memory_that_is_shared_with_a_file_is_the_file(session: &Session) {
    let program = "
with open('mapped', 'wb') as file: file.write(bytes(100_000))
file = open('mapped', 'r+b')
one, two = mmap.mmap(file.fileno(), 0), mmap.mmap(file.fileno(), 0)
one[50_000:50_005] = b'hello'
assert two[50_000:50_005] == b'hello' and os.pread(file.fileno(), 5, 50_000) == b'hello'
os.pwrite(file.fileno(), b'other', 10)
assert one[10:15] == b'other'
one.flush()
private = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE)
private[0:4] = b'mine'
assert os.pread(file.fileno(), 4, 0) == bytes(4)
print('done')
";
    python(session, program).says("done");
    let file = fs::read(on_host(session, "mapped")).unwrap();
    assert_eq!(
        (&file[50_000..50_005], &file[10..15], &file[..4]),
        (&b"hello"[..], &b"other"[..], &[0; 4][..])
    );
    // A program that is run is mapped too.
    session
        .sh("cp /usr/bin/echo run && ./run ran && rm run mapped")
        .end()
        .says("ran");
}

fn direct_reads_and_writes_go_to_the_host(session: &Session) {
    let program = "
buffer = mmap.mmap(-1, 65536)
buffer[:] = b'a' * 65536
file = os.open('direct', os.O_RDWR | os.O_CREAT | os.O_DIRECT)
assert os.pwritev(file, [buffer], 65536) == 65536
buffer[:] = bytes(65536)
assert os.preadv(file, [buffer], 65536) == 65536 and buffer[:] == b'a' * 65536
cached = open('direct', 'r+b', buffering=0)
assert os.pread(cached.fileno(), 3, 65536) == b'aaa'
os.pwrite(cached.fileno(), b'cached', 65536)
os.preadv(file, [buffer], 65536)
assert buffer[:6] == b'cached'
buffer[:6] = b'direct'
os.pwritev(file, [buffer], 65536)
print(os.pread(cached.fileno(), 6, 65536).decode(), os.fstat(file).st_size)
";
    python(session, program).says("direct 131072");
    let file = fs::read(on_host(session, "direct")).unwrap();
    assert!(file.len() == 131_072 && file[..65_536] == [0; 65_536] && file[65_536..65_544] == *b"directaa");
    session.sh("rm direct").end().code(0);
}

fn locks_hold_between_processes(session: &Session) {
    let program = "
file = open('locked', 'w+b'); file.write(bytes(100)); file.flush()
def other(call):
    code = 'import fcntl, sys; file = open(\"locked\", \"r+b\")\\ntry:\\n    fcntl.' + call + '\\n    print(\"got\")\\nexcept OSError as error: print(type(error).__name__)'
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip()
fcntl.flock(file, fcntl.LOCK_EX)
print(other('flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)'))
fcntl.flock(file, fcntl.LOCK_SH)
print(other('flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)'))
fcntl.flock(file, fcntl.LOCK_UN)
fcntl.lockf(file, fcntl.LOCK_EX, 10, 0)
print(other('lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)'))
print(other('lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 50)'))
waiter = subprocess.Popen([sys.executable, '-c', 'import fcntl; file = open(\"locked\", \"r+b\"); print(\"waits\", flush=True); fcntl.lockf(file, fcntl.LOCK_EX); print(\"has it\")'], stdout=subprocess.PIPE, text=True)
print(waiter.stdout.readline().strip())
fcntl.lockf(file, fcntl.LOCK_UN)
print(waiter.communicate(timeout=30)[0].strip())
os.unlink('locked')
";
    python(session, program).says("BlockingIOError\ngot\nBlockingIOError\ngot\nwaits\nhas it");
}

fn files_have_holes_and_are_longer_than_four_gibibytes(session: &Session) {
    let program = "
GIB = 1 << 30
file = os.open('sparse', os.O_RDWR | os.O_CREAT)
os.pwrite(file, b'end', 5 * GIB)
assert os.pread(file, 3, 5 * GIB) == b'end' and os.pread(file, 3, 4 * GIB + 1) == bytes(3)
print(os.fstat(file).st_size == 5 * GIB + 3, os.fstat(file).st_blocks * 512 < 1 << 20)
print(os.lseek(file, 0, os.SEEK_DATA) == 5 * GIB, os.lseek(file, 5 * GIB, os.SEEK_HOLE) >= 5 * GIB + 3)
os.ftruncate(file, 4 * GIB + 5); print(os.fstat(file).st_size == 4 * GIB + 5)
os.unlink('sparse')
file = os.open('space', os.O_RDWR | os.O_CREAT)
os.posix_fallocate(file, 0, 1 << 20); print(os.fstat(file).st_size, os.fstat(file).st_blocks >= 2048)
os.pwrite(file, b'x' * (1 << 20), 0)
libc = ctypes.CDLL(None, use_errno=True)
punched = libc.fallocate64(file, 3, ctypes.c_long(65536), ctypes.c_long(65536))
print(punched, os.pread(file, 4, 65534), os.fstat(file).st_size)
kept = libc.fallocate64(file, 1, ctypes.c_long(1 << 20), ctypes.c_long(1 << 20))
print(kept, os.fstat(file).st_size)
other = os.open('copy', os.O_RDWR | os.O_CREAT)
print(os.copy_file_range(file, other, 1000, 65536 - 500, 0), os.pread(other, 502, 499)[0:2])
";
    python(session, program).says(
        "True True\nTrue True\nTrue\n1048576 True\n0 b'xx\\x00\\x00' 1048576\n0 1048576\n1000 b'x\\x00'",
    );
    let space = fs::metadata(on_host(session, "space")).unwrap();
    assert_eq!(space.len(), 1 << 20);
    assert_eq!(
        fs::read(on_host(session, "space")).unwrap()[65_536..131_072],
        [0; 65_536]
    );
    session.sh("rm space copy").end().code(0);
}

fn names_are_as_long_as_anywhere(session: &Session) {
    let program = "
name = 'n' * 255
open(name, 'w').write('x'); os.rename(name, 'm' * 255); os.mkdir(name); os.symlink('t' * 4095, name + '/link')
print(os.path.getsize('m' * 255), len(os.readlink(name + '/link')))
try: open('n' * 256, 'w')
except OSError as error: print(errno.errorcode[error.errno])
for odd in [b'a\\nb', b'\\xff\\xfe', b' ', b'-rf', 'é'.encode(), b'a\\\\b']:
    open(odd, 'w').close()
print(len(os.listdir(b'.')))
";
    python(session, program).says("1 4095\nENAMETOOLONG\n8");
    assert_eq!(fs::metadata(on_host(session, &"m".repeat(255))).unwrap().len(), 1);
    session.sh("rm -rf -- * && ls -A").end().says("");
}

fn a_file_without_a_name_gets_one_or_goes(session: &Session) {
    let program = "
libc = ctypes.CDLL(None, use_errno=True)
file = os.open('.', os.O_TMPFILE | os.O_RDWR, 0o644)
os.write(file, b'nameless'); print(os.listdir('.'), os.pread(file, 8, 0), os.fstat(file).st_nlink)
print(libc.linkat(-100, f'/proc/self/fd/{file}'.encode(), -100, b'named', 0x400), ctypes.get_errno(), os.listdir('.'))
os.close(os.open('.', os.O_TMPFILE | os.O_RDWR))
os.link('named', 'second'); print(os.stat('named').st_nlink, os.stat('second').st_ino == os.stat('named').st_ino)
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
open('other', 'w').write('other')
print(libc.renameat2(-100, b'named', -100, b'other', RENAME_NOREPLACE), errno.errorcode[ctypes.get_errno()])
print(libc.renameat2(-100, b'named', -100, b'other', RENAME_EXCHANGE), open('named').read(), open('other').read())
";
    python(session, program).says("[] b'nameless' 0\n0 0 ['named']\n2 True\n-1 EEXIST\n0 other nameless");
    assert_eq!(fs::read(on_host(session, "second")).unwrap(), b"nameless");
    assert_eq!(fs::read_dir(on_host(session, "")).unwrap().count(), 3);
    session.sh("rm named second other").end().code(0);
}

fn what_is_open_stays_when_its_name_is_gone(session: &Session) {
    let program = "
file = open('gone', 'w+b', buffering=0)
file.write(b'still'); os.unlink('gone')
file.write(b' here'); print(os.pread(file.fileno(), 20, 0), os.fstat(file.fileno()).st_nlink)
os.ftruncate(file.fileno(), 3); os.fchmod(file.fileno(), 0o600); print(os.pread(file.fileno(), 20, 0), oct(os.fstat(file.fileno()).st_mode))
";
    python(session, program).says("b'still here' 0\nb'sti' 0o100600");
}

fn a_directory_that_was_removed_is_an_empty_one(session: &Session) {
    let program = "
os.mkdir('d'); fd = os.open('d', os.O_RDONLY); os.rmdir('d')
print(os.fstat(fd).st_nlink, os.listdir('.'), os.listdir(fd))
";
    python(session, program).says("0 [] []");
}

fn attributes_of_users_are_kept(session: &Session) {
    let program = "
open('attributed', 'w').close()
os.setxattr('attributed', 'user.note', b'value' * 100); os.setxattr('attributed', 'user.empty', b'')
print(sorted(os.listxattr('attributed')), len(os.getxattr('attributed', 'user.note')))
os.removexattr('attributed', 'user.note')
def refused(*words):
    try: os.setxattr('attributed', *words); return 'stored'
    except OSError as error: return errno.errorcode[error.errno]
print(os.listxattr('attributed'), refused('user.empty', b'x', os.XATTR_CREATE), refused('user.none', b'x', os.XATTR_REPLACE))
os.utime('attributed', ns=(1_000_000_001, 2_000_000_002)); print(os.stat('attributed').st_mtime_ns, os.stat('attributed').st_atime_ns)
";
    python(session, program)
        .says("['user.empty', 'user.note'] 500\n['user.empty'] EEXIST ENODATA\n2000000002 1000000001");
    let ours = fs::metadata(on_host(session, "attributed")).unwrap();
    assert_eq!((ours.mtime(), ours.mtime_nsec()), (2, 2));
    session.sh("rm attributed").end().code(0);
}

#[test]
fn pythons_own_tests_in_a_folder() {
    cases!(session("python"); python_finds_files_as_they_should_be);
}

fn python_finds_files_as_they_should_be(session: &Session) {
    let words = "mkdir python && TMPDIR=$PWD/python exec python3 -m test --rerun --tempdir $PWD/python";
    let command = LEFT_OUT
        .iter()
        .fold(words.to_owned(), |line, name| format!("{line} --ignore '{name}'"));
    let line = format!("{command} test_os test_shutil test_mmap test_fcntl");
    let ended = session.sh(&line).deadline(840).end().code(0);
    let text = ended.text();
    text.lines()
        .filter(|line| line.contains("] test_"))
        .for_each(|line| println!("       {line}"));
    assert!(text.contains("SUCCESS"), "{ended}");
}

const LEFT_OUT: [&str; 2] = [
    // Timers to the millisecond are not for a machine that is emulated.
    "*TimerfdTests*",
    // A FIFO cannot be made in a folder: where its two ends are, on the host or in the sandbox, could not be told.
    "*named_pipe*",
];
