//! Says what an input of `share_fs` asks and what it is answered, up to where it fails: `replay FILE…`.

use std::{env, fs, io};

use arbitrary::{Arbitrary as _, Unstructured};
use hostile::{Input, share_fs};

fn main() -> io::Result<()> {
    for path in env::args_os().skip(1) {
        let bytes = fs::read(&path)?;
        let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(&bytes)) else {
            continue;
        };
        println!("{}: {} steps", path.display(), input.steps.len());
        share_fs::run_and_say(&input, &mut |asked, answer| {
            let answer = answer.map(|answer| answer.result().map(|body| body.len()));
            println!("{asked}\n    {answer:?}");
        });
    }
    Ok(())
}
