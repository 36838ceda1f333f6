#![no_main]

use hostile::{Input, share_fs};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: Input| share_fs::run(&input));
