//! A connection that has said its last word discards what still comes, and no more than so much of it.
#![allow(clippy::unwrap_used)] // In helpers too: what fails here fails the test.

mod support;

use std::io::Write;
use std::time::Duration;

use reactor::{CloseReason, Config};
use support::lines::Lines;
use support::{start, until};

#[test]
fn a_client_that_sends_on_and_on_after_the_end_is_cut_off_after_so_many_bytes() {
    let mut config = Config::default();
    config.limits.linger_bytes_max = 200_000;
    config.limits.linger_timeout = Duration::from_secs(3600);
    let scratch = u64::from(config.limits.buffer_bytes_max);
    let server = start(config, Lines::silent());
    let mut client = server.connect();
    client.write_all(b"close\n").unwrap();
    until("it lingers", || server.stats.connections_lingering.get() == 1);
    // Far more than all buffers on the way can hold: only the reset ends it.
    let cut_off = (0..10_000).any(|_| client.write_all(&[b'x'; 65_536]).is_err());
    assert!(cut_off, "650 MB were read and forgotten");
    until("it is closed", || server.stats.closes(CloseReason::Finished).get() == 1);
    let discarded = server.stats.bytes_discarded.get();
    assert!((200_000..200_000 + scratch).contains(&discarded), "{discarded} bytes were discarded");
}
