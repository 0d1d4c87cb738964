//! Any bytes, in any pieces, with any appetite: the HTTP machine says the same as for the whole.
//!
//! `fuzz/run http_machine 60`. A failure goes into `corpus/http_machine`, which `cargo test -p server` replays without a fuzzer.
#![no_main]

#[path = "../../server/tests/data/driver.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|input: &[u8]| driver::any_input(input));
