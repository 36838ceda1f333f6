#![no_main]

use hostile::{Input, fuse_server};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: Input| fuse_server::run(&input));
