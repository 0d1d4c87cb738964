//! Near the connection limit a place that is about to be free is worth a turn's wait, and no more: a client that sends faster than it is read
//! does not keep newcomers waiting for a place that it never leaves.
#![allow(clippy::unwrap_used)] // In helpers too: what fails here fails the test.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use reactor::{Config, Context, Handler, Origin, Pressure};
use support::{connect, prepare};

/// Everybody waits for its peer from the beginning, but who begins with `a`, for whom something is under way. All input is swallowed.
struct Swallows;

impl Handler for Swallows {
    type Conn = ();
    type Mail = ();

    fn opened(&mut self, _: Origin, cx: &mut Context<'_>) {
        cx.expendable();
    }

    fn input(&mut self, (): &mut (), input: &[u8], cx: &mut Context<'_>) -> usize {
        if input[0] == b'a' {
            cx.essential();
            cx.write(b"!");
        }
        input.len()
    }

    fn mail(&mut self, (): &mut (), (): (), _: &mut Context<'_>) {}

    fn pressed(&mut self, (): &mut (), _: Pressure, cx: &mut Context<'_>) {
        cx.write(b"full");
        cx.close();
    }
}

/// As much as the kernel takes.
fn fill(mut client: &TcpStream) {
    while client.write(&[b'x'; 65_536]).is_ok() {}
}

#[test]
fn a_new_client_next_to_a_flood_is_served_or_gets_503() {
    let mut config = Config::default();
    config.limits.connections_max = 2;
    config.limits.free_slots_min = 1;
    // A visit reads far less than the kernel holds.
    config.limits.buffer_bytes_max = 4096;
    config.limits.output_high_water_bytes = 4096;
    config.limits.output_low_water_bytes = 1024;
    let mut server = prepare(config, Swallows);
    let flood = connect(server.address);
    flood.set_nonblocking(true).unwrap();
    fill(&flood);
    server.event_loop.turn().unwrap();
    let mut guest = connect(server.address);
    guest.write_all(b"a").unwrap();
    guest.set_nonblocking(true).unwrap();
    while guest.read(&mut [0]).is_err() {
        fill(&flood);
        server.event_loop.turn().unwrap();
    }
    let mut newcomer = connect(server.address);
    newcomer.write_all(b"a").unwrap();
    newcomer.set_nonblocking(true).unwrap();
    // Three turns will do. The kernel holds enough for forty visits to the flood.
    for _ in 0..10 {
        fill(&flood);
        server.event_loop.turn().unwrap();
        match newcomer.read(&mut [0; 4]) {
            Ok(n) => return assert!(n > 0, "an end without a word"),
            Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
        }
    }
    panic!("the newcomer waits for as long as the flood lasts");
}
