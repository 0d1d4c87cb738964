//! Several connections at once, some of which read slowly: each gets the responses that it gets alone, and the buffers stay within their memory.
//!
//! `fuzz/run connections 60`. A failure goes into `corpus/connections`, which `cargo test -p server` replays without a fuzzer.
#![no_main]

#[path = "../../server/tests/data/driver.rs"]
mod driver;
#[allow(dead_code)] // Its own script is another target's.
#[path = "../../server/tests/data/scripted_connection.rs"]
mod scripted_connection;
#[path = "../../server/tests/data/scripted_connections.rs"]
mod scripted_connections;

libfuzzer_sys::fuzz_target!(|input: &[u8]| scripted_connections::any_script(input));
