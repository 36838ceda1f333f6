//! Answers requests: copies each once, checks all of it, and only then asks the file system.

mod answer;
mod attributes;
mod body;
mod buffers;
mod convert;
mod data;
mod directory;
mod extended;
mod init;
mod limits;
mod names;
mod open;
mod references;
mod weight;

use std::sync::Arc;

use rustix::io::Errno;
use zerocopy::{FromZeros, IntoBytes};

use self::{
    answer::{Answer, Length},
    body::Body,
    buffers::Buffers,
    init::Session,
};
use crate::{
    Answered, Caller, FileSystem, Incoming, NodeId, Outgoing, Reply,
    wire::{InHeader, Opcode},
};

pub use limits::{MAX_READ, MAX_REQUEST, MAX_WRITE};
pub use weight::{Peek, Weight};

/// A file system behind the protocol. Answers on any number of threads at once.
#[derive(Debug)]
pub struct Server<F> {
    fs: Arc<F>,
    session: Session,
    buffers: Buffers,
}

/// A request that was checked so far as all requests are alike.
struct Call<'a, F> {
    fs: &'a F,
    session: &'a Session,
    caller: Caller,
    node: NodeId,
    body: Body<'a>,
}

impl<F: FileSystem> Server<F> {
    pub fn new(fs: F) -> Self {
        Server::sharing(Arc::new(fs))
    }

    /// For a file system that its owner keeps a hold of.
    pub fn sharing(fs: Arc<F>) -> Self {
        Server {
            fs,
            session: Session::default(),
            buffers: Buffers::default(),
        }
    }

    pub fn file_system(&self) -> &F {
        &self.fs
    }

    pub fn answer(&self, request: &mut impl Incoming, reply: &mut impl Outgoing) -> Answered {
        let mut header = InHeader::new_zeroed();
        if copy_whole(request, 0, header.as_mut_bytes()).is_err() {
            return Answered::Broken;
        }
        let opcode = Opcode::parse(header.opcode);
        let mut answer = Answer::new(reply);
        let result = self.handle(&header, opcode, request, &mut answer);
        match opcode {
            Some(opcode) if opcode.wants_no_reply() => Answered::Silence,
            _ => answer.finish(header.unique, result),
        }
    }

    fn handle(
        &self,
        header: &InHeader,
        opcode: Option<Opcode>,
        request: &mut impl Incoming,
        answer: &mut Answer<'_, impl Outgoing>,
    ) -> Reply<Length> {
        if usize::try_from(header.len) != Ok(request.len()) || header.extensions != 0 {
            return Err(Errno::INVAL);
        }
        if !self.session.is_open() && opcode != Some(Opcode::Init) {
            return Err(Errno::IO);
        }
        match opcode.ok_or(Errno::NOSYS)? {
            Opcode::Write => data::write(&self.call(header, Body::new(&[])), request, answer),
            Opcode::BatchForget => references::forget_many(&*self.fs, request),
            opcode => self
                .buffers
                .with_body(request, |body| dispatch(opcode, &self.call(header, body), answer)),
        }
    }

    fn call<'a>(&'a self, header: &InHeader, body: Body<'a>) -> Call<'a, F> {
        Call {
            fs: &self.fs,
            session: &self.session,
            caller: Caller {
                uid: header.uid,
                gid: header.gid,
                pid: header.pid,
            },
            node: NodeId(header.node),
            body,
        }
    }
}

/// All operations whose requests are copied whole.
fn dispatch<F: FileSystem>(
    opcode: Opcode,
    call: &Call<'_, F>,
    answer: &mut Answer<'_, impl Outgoing>,
) -> Reply<Length> {
    match opcode {
        Opcode::Init => init::init(call, answer),
        Opcode::Destroy => init::destroy(call),
        Opcode::Lookup => names::lookup(call, answer),
        Opcode::Forget => references::forget(call),
        Opcode::GetAttr => attributes::get(call, answer),
        Opcode::SetAttr => attributes::set(call, answer),
        Opcode::StatX => attributes::statx(call, answer),
        Opcode::StatFs => attributes::status(call, answer),
        Opcode::ReadLink => names::read_link(call, answer),
        Opcode::Symlink => names::make_symlink(call, answer),
        Opcode::MkNod => names::make_node(call, answer),
        Opcode::MkDir => names::make_directory(call, answer),
        Opcode::Link => names::make_link(call, answer),
        Opcode::Unlink => names::unlink(call),
        Opcode::RmDir => names::remove_directory(call),
        Opcode::Rename => names::rename(call),
        Opcode::Rename2 => names::rename_with_flags(call),
        Opcode::Open => open::open(call, answer),
        Opcode::OpenDir => open::open_directory(call, answer),
        Opcode::Release => open::release(call),
        Opcode::ReleaseDir => open::release_directory(call),
        Opcode::Create => open::create(call, answer),
        Opcode::TmpFile => open::make_temporary(call, answer),
        Opcode::Read => data::read(call, answer),
        Opcode::FSync | Opcode::FSyncDir => data::sync(call),
        Opcode::SyncFs => data::sync_all(call),
        Opcode::FAllocate => data::allocate(call),
        Opcode::LSeek => data::seek(call, answer),
        Opcode::CopyFileRange => data::copy_range(call, answer),
        Opcode::ReadDir => directory::read(call, answer, false),
        Opcode::ReadDirPlus => directory::read(call, answer, true),
        Opcode::SetXattr => extended::set(call),
        Opcode::GetXattr => extended::get(call, answer),
        Opcode::ListXattr => extended::list(call, answer),
        Opcode::RemoveXattr => extended::remove(call),
        // The kernel checks permissions itself (default_permissions) and keeps locks itself; nothing is to be done
        // when a descriptor is closed. It asks once and then knows.
        Opcode::Access | Opcode::Flush | Opcode::GetLock | Opcode::SetLock | Opcode::SetLockWait => {
            Err(Errno::NOSYS)
        }
        Opcode::BMap | Opcode::Ioctl | Opcode::Poll | Opcode::SetupMapping | Opcode::RemoveMapping => {
            Err(Errno::NOSYS)
        }
        // Operations are not waited for so long that interrupting them would be worth it.
        Opcode::Interrupt | Opcode::NotifyReply => Ok(Length::NOTHING),
        // Not copied whole, and so not asked for here.
        Opcode::Write | Opcode::BatchForget => Err(Errno::INVAL),
    }
}

fn copy_whole(request: &mut impl Incoming, offset: usize, into: &mut [u8]) -> Reply<()> {
    match request.copy(offset, into) {
        Ok(len) if len == into.len() => Ok(()),
        Ok(_) => Err(Errno::INVAL),
        Err(_) => Err(Errno::IO),
    }
}

#[cfg(test)]
mod tests;
