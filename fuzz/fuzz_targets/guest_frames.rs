#![no_main]

use hostile::network::{Input, guest_frames};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: Input| guest_frames(&input));
