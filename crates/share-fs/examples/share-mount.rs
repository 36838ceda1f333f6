//! Mounts a folder at MOUNTPOINT/share as a guest would see it, through `/dev/fuse` on this machine: for conformance suites, benchmarks,
//! and a look at what a share does. It serves until it is unmounted or told to end.
//!
//! share-mount [--read-only] [--exclusive] [--open] [--descriptors N] [--threads N] FOLDER MOUNTPOINT
//!
//! `--open` leaves the patterns out: nothing is hidden or protected.
#![allow(clippy::print_stderr, reason = "a program for a terminal")]

use std::{path::PathBuf, process::ExitCode};

use fuse::{Server, device::Mount};
use rustix::fs::{Mode as FileMode, OFlags};
use share_fs::{Cache, Exports, Limits, ShareConfig};
use share_policy::{DEFAULT_HIDDEN, DEFAULT_PROTECTED, Mode, PatternSet, SharePolicy};

struct Options {
    mode: Mode,
    cache: Cache,
    open: bool,
    descriptors: usize,
    threads: usize,
    folder: PathBuf,
    mountpoint: PathBuf,
}

fn main() -> ExitCode {
    match options().and_then(|options| serve(&options).map_err(|error| error.to_string())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("share-mount: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        mode: Mode::ReadWrite,
        cache: Cache::Shared,
        open: false,
        descriptors: 512,
        threads: 2,
        folder: PathBuf::new(),
        mountpoint: PathBuf::new(),
    };
    let mut places = Vec::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().and_then(|word| word.parse().ok());
            value.ok_or_else(|| format!("{word} needs a number"))
        };
        match word.as_str() {
            "--read-only" => options.mode = Mode::ReadOnly,
            "--exclusive" => options.cache = Cache::Exclusive,
            "--open" => options.open = true,
            "--descriptors" => options.descriptors = number()?,
            "--threads" => options.threads = number()?,
            _ => places.push(PathBuf::from(word)),
        }
    }
    let [folder, mountpoint] =
        <[PathBuf; 2]>::try_from(places).map_err(|_| "usage: share-mount FOLDER MOUNTPOINT".to_owned())?;
    Ok(Options {
        folder,
        mountpoint,
        ..options
    })
}

fn serve(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    rustix::process::umask(FileMode::empty());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(&options.folder, flags, FileMode::empty())?;
    let (hidden, protected) = if options.open {
        (&[][..], &[][..])
    } else {
        (DEFAULT_HIDDEN, DEFAULT_PROTECTED)
    };
    let policy = SharePolicy::new(
        options.mode,
        PatternSet::parse(hidden)?,
        PatternSet::parse(protected)?,
    )?;
    let exports = Exports::new(options.descriptors)?;
    let config = ShareConfig {
        policy,
        cache: options.cache,
        limits: Limits::default(),
    };
    exports.add("share", root, config)?;
    let mount = Mount::new(&options.mountpoint, Server::new(exports))?;
    mount.serve(options.threads)?;
    Ok(())
}
