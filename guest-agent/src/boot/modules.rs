//! Kernel modules, in the order the initramfs lists them. A kernel with everything built in has none.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use rustix::{io::Errno, system::finit_module};

use crate::Error;

/// Loads the files named in `order`, and frees the memory the initramfs holds them in.
pub fn load_all(directory: &Path) -> Result<(), Error> {
    let order = match fs::read_to_string(directory.join("order")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(Error::Module {
                name: "order".into(),
                source,
            });
        }
        Ok(order) => order,
    };
    for name in order.lines().map(str::trim).filter(|name| !name.is_empty()) {
        let path = directory.join(name);
        load(&path).map_err(|source| Error::Module {
            name: name.into(),
            source,
        })?;
        let _ = fs::remove_file(&path);
    }
    Ok(())
}

fn load(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    match finit_module(&file, c"", 0) {
        // Built in, or loaded by the kernel itself meanwhile.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
