//! Writes the seeds of a target into a folder: `seeds FOLDER TARGET`.

use std::{env, fs, io, path::PathBuf};

fn main() -> io::Result<()> {
    let folder: PathBuf = env::args_os().nth(1).unwrap_or_else(|| "corpus".into()).into();
    let target = env::args().nth(2).unwrap_or_default();
    fs::create_dir_all(&folder)?;
    for (name, input) in hostile::seeds::of(&target) {
        fs::write(folder.join(name), input)?;
    }
    Ok(())
}
