//! Any bytes at any times: the whole connection, on a simulated system, gives what the input is owed, in bounded turns, and lets go.
//!
//! `fuzz/run connection 60`. A failure goes into `corpus/connection`, which `cargo test -p server` replays without a fuzzer.
#![no_main]

#[path = "../../server/tests/data/driver.rs"]
mod driver;
#[path = "../../server/tests/data/scripted_connection.rs"]
mod scripted_connection;

libfuzzer_sys::fuzz_target!(|input: &[u8]| scripted_connection::any_script(input));
