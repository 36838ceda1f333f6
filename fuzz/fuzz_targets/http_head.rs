#![no_main]

use hostile::guard;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| guard::http_head(input));
