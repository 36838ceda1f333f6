#![no_main]

use hostile::question;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| question::dns_question(input));
