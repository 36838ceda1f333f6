//! Kernel modules, in the order the initramfs lists them. A kernel with everything built in has none.

use std::{
    fs::{self, File},
    io,
    path::Path,
    thread,
};

use rustix::{io::Errno, process::setpriority_process, system::finit_module, thread::gettid};

use crate::{Error, log};

/// Loaded once the session is up: nothing on the way there needs them, nor does any other module, and
/// together they are a good part of the time modules take.
const CAN_WAIT: [&str; 2] = ["virtio_balloon.ko", "virtio_rng.ko"];

/// Only what the machine's commands leave idle.
const LOWEST_PRIORITY: i32 = 19;

/// Modules for later, open because their directory will be out of reach.
#[derive(Debug, Default)]
pub struct Later(Vec<(String, File)>);

/// Loads the files named in `order`, and frees the memory the initramfs holds them in.
pub fn load_all(directory: &Path) -> Result<Later, Error> {
    let order = match fs::read_to_string(directory.join("order")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Later::default()),
        Err(source) => return Err(failed("order", source)),
        Ok(order) => order,
    };
    let mut later = Later::default();
    for name in order.lines().map(str::trim).filter(|name| !name.is_empty()) {
        let path = directory.join(name);
        let file = File::open(&path).map_err(|source| failed(name, source))?;
        if CAN_WAIT.contains(&name) {
            later.0.push((name.into(), file));
        } else {
            load(&file).map_err(|source| failed(name, source))?;
        }
        let _ = fs::remove_file(&path);
    }
    Ok(later)
}

impl Later {
    pub fn load_in_background(self) {
        if self.0.is_empty() {
            return;
        }
        let started = thread::Builder::new().name("modules".into()).spawn(move || {
            // Linux takes a thread where POSIX says process.
            let _ = setpriority_process(Some(gettid()), LOWEST_PRIORITY);
            for (name, file) in &self.0 {
                if let Err(source) = load(file) {
                    log::warn(log::with_causes(&failed(name, source)));
                }
            }
        });
        if let Err(error) = started {
            log::warn(log::with_causes(&Error::Thread(error)));
        }
    }
}

fn load(file: &File) -> io::Result<()> {
    match finit_module(file, c"", 0) {
        // Built in, or loaded by the kernel itself meanwhile.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn failed(name: &str, source: io::Error) -> Error {
    Error::Module {
        name: name.into(),
        source,
    }
}
