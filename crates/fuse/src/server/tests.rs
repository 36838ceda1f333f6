//! The server, asked by a kernel that is well and by one that is not.

mod limits;
mod malformed;
mod operations;
mod random;
mod recorder;
mod session;

use std::sync::LazyLock;

use rustix::io::Errno;

use self::recorder::Recorder;
use crate::{
    Changes, Server, TimeChange, Timestamp,
    testing::{Answer, Message, ask, started},
    wire::{O_EXCL, O_TRUNC, Opcode},
};

/// A well-formed message of every operation that reaches the file system, and the call it makes.
static MESSAGES: LazyLock<Vec<(Message, &str)>> = LazyLock::new(|| {
    let changes = Changes {
        permissions: Some(0o4755),
        uid: Some(7),
        gid: Some(8),
        size: Some(9),
        accessed: Some(TimeChange::Now),
        modified: Some(TimeChange::To(Timestamp {
            seconds: -1,
            nanoseconds: 5,
        })),
        kill_privileges: true,
    };
    vec![
        (Message::lookup(1, b"name"), "lookup 1 \"name\""),
        (Message::forget(5, 3), "forget 5 3"),
        (Message::batch_forget(&[(5, 3), (6, 1)]), "forget 5 3, forget 6 1"),
        (Message::getattr(5), "attributes 5"),
        (Message::statx(5), "attributes 5"),
        (
            Message::setattr(5, &changes),
            "set_attributes 5 mode 4755 uid 7 gid 8 size 9 accessed Now modified -1.5 kill",
        ),
        (Message::readlink(5), "read_link 5"),
        (
            Message::symlink(1, b"name", b"../to"),
            "make_symlink 1 \"name\" \"../to\"",
        ),
        (
            Message::mknod(1, b"name", 0o100_640),
            "make_node 1 \"name\" File 640",
        ),
        (
            Message::mknod(1, b"name", 0o010_600),
            "make_node 1 \"name\" Fifo 600",
        ),
        (
            Message::mkdir(1, b"name", 0o1755),
            "make_directory 1 \"name\" 1755",
        ),
        (Message::unlink(1, b"name"), "unlink 1 \"name\""),
        (Message::rmdir(1, b"name"), "remove_directory 1 \"name\""),
        (
            Message::rename((1, b"old"), (2, b"new")),
            "rename 1 \"old\" 2 \"new\" 0",
        ),
        (
            Message::rename2((1, b"old"), (2, b"new"), 1),
            "rename 1 \"old\" 2 \"new\" 1",
        ),
        (Message::link(5, 1, b"name"), "make_link 5 1 \"name\""),
        (
            Message::create(1, b"name", O_EXCL, 0o100_644),
            "create 1 \"name\" 644 exclusive",
        ),
        (
            Message::create(1, b"name", O_TRUNC, 0o100_600),
            "create 1 \"name\" 600 truncate",
        ),
        (Message::tmpfile(1, 0o100_600), "make_temporary 1 600"),
        (Message::release(5, 1), "release 5"),
        (Message::read(5, 10, 4), "read 5 10 4"),
        (Message::write(5, 10, b"data"), "write 5 10 \"data\" "),
        (Message::statfs(1), "status 1"),
        (Message::fsync(5, true), "sync 5 data"),
        (Message::fsyncdir(5, false), "sync 5 all"),
        (Message::syncfs(1), "sync_all 1"),
        (
            Message::setxattr(5, b"user.a", b"value", 1),
            "set_xattr 5 \"user.a\" \"value\" 1",
        ),
        (Message::getxattr(5, b"user.a", 100), "xattr 5 \"user.a\""),
        (Message::listxattr(5, 100), "list_xattrs 5"),
        (Message::removexattr(5, b"user.a"), "remove_xattr 5 \"user.a\""),
        (Message::readdir(1, 2, 4096), "read_directory 1 2 plain"),
        (Message::readdirplus(1, 2, 4096), "read_directory 1 2 plus"),
        (Message::fallocate(5, (10, 20), 3), "allocate 5 10 20 3"),
        (Message::lseek(5, 10, 3), "seek 5 10 data"),
        (Message::lseek(5, 10, 4), "seek 5 10 hole"),
        (
            Message::copy_file_range((5, 10), (6, 20), 30),
            "copy_range 5 10 6 20 30",
        ),
        (Message::destroy(), "forget_all"),
    ]
});

/// Operations that never reach the file system.
static OURS: LazyLock<Vec<Message>> = LazyLock::new(|| {
    let bare = |opcode: Opcode, len| Message::of(opcode as u32, 5).and(&vec![0; len]);
    vec![
        Message::open(5, 0),
        Message::opendir(5),
        Message::releasedir(5),
        Message::release(5, 0),
        Message::interrupt(99),
        bare(Opcode::NotifyReply, 40),
        bare(Opcode::Flush, 24),
        bare(Opcode::Access, 8),
        bare(Opcode::GetLock, 48),
        bare(Opcode::SetLock, 48),
        bare(Opcode::SetLockWait, 48),
        bare(Opcode::BMap, 16),
        bare(Opcode::Ioctl, 32),
        bare(Opcode::Poll, 24),
        bare(Opcode::SetupMapping, 40),
        bare(Opcode::RemoveMapping, 4),
    ]
});

/// Every operation with a name, and a name for it.
fn messages_with_name(name: &[u8]) -> Vec<Message> {
    vec![
        Message::lookup(1, name),
        Message::symlink(1, name, b"text"),
        Message::mknod(1, name, 0o100_644),
        Message::mkdir(1, name, 0o755),
        Message::unlink(1, name),
        Message::rmdir(1, name),
        Message::rename((1, name), (1, b"good")),
        Message::rename((1, b"good"), (1, name)),
        Message::rename2((1, name), (1, b"good"), 0),
        Message::rename2((1, b"good"), (1, name), 0),
        Message::link(5, 1, name),
        Message::create(1, name, 0, 0o644),
        Message::setxattr(5, name, b"value", 0),
        Message::getxattr(5, name, 100),
        Message::removexattr(5, name),
    ]
}

fn recorder() -> Server<Recorder> {
    started(Recorder::default())
}

fn answered(server: &Server<Recorder>, message: &Message) -> Answer {
    ask(server, message).expect("an answer")
}

fn error(server: &Server<Recorder>, message: &Message) -> Option<Errno> {
    answered(server, message).error()
}
