//! The least rate of responses, by the real program and the kernel's own acknowledgements, with a window of a second.

mod process;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use process::{Server, wait_for};

fn download(server: &Server) -> TcpStream {
    let mut client = TcpStream::connect(server.http).expect("it listens");
    client.write_all(b"GET /bytes?n=1000000000 HTTP/1.1\r\nHost: test\r\n\r\n").expect("it reads");
    client
}

/// Whether the connection was reset, without reading from it: a reset is the socket's error.
fn is_reset(client: &TcpStream) -> bool {
    client.take_error().expect("it is a socket").is_some_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

#[test]
fn a_slow_reader_is_served_and_one_that_never_reads_is_reset() {
    // A receive buffer of 128 KiB takes a second at this rate.
    let server = Server::start(&["--response-rate-min", "128KiB", "--response-rate-window", "1s"]);
    let (mut slow, never) = (download(&server), download(&server));
    let mut piece = vec![0; 32 << 10];
    let mut read_bytes = 0;
    // About 600 KiB a second, for as long as it takes until the other one is reset, and as long again.
    let mut pieces_until_reset = None;
    for pieces in 1_u32.. {
        std::thread::sleep(Duration::from_millis(50));
        slow.read_exact(&mut piece).expect("a slow reader is not reset");
        read_bytes += piece.len();
        if pieces_until_reset.is_none() && is_reset(&never) {
            pieces_until_reset = Some(pieces);
        }
        if pieces_until_reset.is_some_and(|until_reset| pieces >= 2 * until_reset) {
            break;
        }
        assert!(pieces < 1200, "a client that never reads is reset within a minute");
    }
    assert!(read_bytes > 0 && !is_reset(&slow));
    wait_for("one connection is left", || {
        let mut admin = TcpStream::connect(server.admin).ok()?;
        admin.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        admin.read_to_string(&mut text).ok()?;
        text.lines().any(|line| line.contains("write_stalled") && line.ends_with(" 1")).then_some(())
    });
}
