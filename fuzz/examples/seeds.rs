//! Writes the seeds of both targets into a folder: `seeds FOLDER`.

use std::{env, fs, io, path::PathBuf};

fn main() -> io::Result<()> {
    let folder: PathBuf = env::args_os().nth(1).unwrap_or_else(|| "corpus".into()).into();
    fs::create_dir_all(&folder)?;
    for (name, input) in hostile::seeds::all() {
        fs::write(folder.join(name), input.to_bytes())?;
    }
    Ok(())
}
