//! `partial-write`: write(2) accepted a part of the bytes, and the server ignored its return value.
//!
//! A write is short when the send buffer is nearly full: never with a small response, never with a client that reads as fast as the server
//! writes, so a test on one machine finds nothing. Here each client has a receive buffer of a few kilobytes, which has the effect of a slow
//! link.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::contrast::Contrast;
use crate::results_by_name::Figure;
use crate::scenario::{Code, MistakeIn, Row, Scenario};
use crate::side::{Measured, Side};
use crate::socket_client::connect_with_small_receive_buffer;

/// Clients, and the size of the body that each requests.
const CLIENTS: u64 = 20;
const BODY_BYTES: usize = 1 << 20;
const REQUEST: &[u8] = b"GET /bytes?n=1048576 HTTP/1.1\r\nHost: x\r\n\r\n";
/// What the route repeats (server/src/demo/bytes.rs), so that a missing or repeated byte shows.
const PATTERN: &[u8; 64] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-\n";
/// The receive buffer that each sets (SO_RCVBUF, socket(7)); the kernel doubles it.
const RECEIVE_BYTES: usize = 4096;
/// Each client reads this many bytes at once, one client after the other, and then all pause.
const PIECE_BYTES: usize = 16 << 10;
const READ_PAUSE: Duration = Duration::from_micros(500);
/// A client that has received nothing for this long hangs.
const QUIET: Duration = Duration::from_secs(2);

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "partial-write",
    title: "a short write taken for a whole one",
    cause: "write(2) accepts what fits the send buffer and returns how much that was; a server that ignores the number loses the rest, and the client \
            waits for bytes that will never be sent.",
    load: "20 clients with a receive buffer of 4 KiB request 1 MiB each and read it as it arrives.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "1", "--workers", "1"],
    drive,
    rows: &[
        Row::new("complete_clients", "clients that got every byte of 1 MiB").of("clients"),
        Row::new("hung_clients", "clients that hang").of("clients"),
        Row::new("missing_kib_each", "bytes missing, per client").unit("KiB"),
    ],
    expect: &[
        "broken.complete_clients == 0",
        "correct.complete_clients == 20",
        "broken.hung_clients == 20",
        "correct.hung_clients == 0",
        "broken.missing_kib_each > 0",
    ],
    happened,
    look: &[
        "cargo run --release -p server -- --loops 1 --mistake partial-write",
        "python3 -c 'import socket as s; c = s.socket(); c.setsockopt(s.SOL_SOCKET, s.SO_RCVBUF, 4096); c.connect((\"127.0.0.1\", 8080)); \
         c.sendall(b\"GET /bytes?n=1048576 HTTP/1.0\\r\\n\\r\\n\"); print(sum(map(len, iter(lambda: c.recv(65536), b\"\"))))'    # fewer than 1048576",
        "strace -f -e trace=write,writev,sendto,sendmsg -p PID    # sendto(..., 65536, ...) = 12345, and the next one begins after the 65536",
    ],
    code: Code { file: "reactor/src/io.rs", source: include_str!("../../../reactor/src/io.rs") },
    takes: Duration::from_secs(4),
};

fn drive(side: &mut Side<'_>) -> Result<Measured, String> {
    let fail = |e: std::io::Error| format!("a client failed: {e}");
    let mut readers = Vec::new();
    for _ in 0..CLIENTS {
        let mut stream = connect_with_small_receive_buffer(side.http, side.from, RECEIVE_BYTES).map_err(fail)?;
        stream.write_all(REQUEST).map_err(fail)?;
        stream.set_nonblocking(true).map_err(fail)?;
        readers.push(Reader { stream, head: Vec::new(), in_body: false, body_bytes: 0, is_wrong: false, ended: false });
    }
    let mut moved_at = Instant::now();
    while readers.iter().any(Reader::waits) && moved_at.elapsed() < QUIET && !side.interrupted().load(Ordering::Relaxed) {
        // No `any`, which stops at the first: every client reads at its own pace.
        if readers.iter_mut().filter(|reader| reader.waits()).fold(false, |moved, reader| reader.read() | moved) {
            moved_at = Instant::now();
        }
        std::thread::sleep(READ_PAUSE);
    }
    let count = |what: fn(&Reader) -> bool| readers.iter().filter(|reader| what(reader)).count() as u64;
    let missing: usize = readers.iter().map(|reader| BODY_BYTES - reader.body_bytes.min(BODY_BYTES)).sum();
    Ok(Measured::default()
        .with("clients", Figure::count(CLIENTS))
        .with("complete_clients", Figure::count(count(|reader| reader.body_bytes == BODY_BYTES && !reader.is_wrong)))
        .with("hung_clients", Figure::count(count(Reader::waits)))
        .with("missing_kib_each", Figure::number(missing as f64 / 1024.0 / CLIENTS as f64)))
}

/// A client, and what it has received.
struct Reader {
    stream: TcpStream,
    head: Vec<u8>,
    in_body: bool,
    body_bytes: usize,
    /// A byte was not the one that belongs in its place.
    is_wrong: bool,
    ended: bool,
}

impl Reader {
    fn waits(&self) -> bool {
        !self.ended && self.body_bytes < BODY_BYTES
    }

    /// Reads once. Returns whether anything arrived.
    fn read(&mut self) -> bool {
        let mut piece = [0; PIECE_BYTES];
        match self.stream.read(&mut piece) {
            Ok(0) => self.ended = true,
            Ok(n) => self.take(&piece[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return false,
            Err(_) => self.ended = true,
        }
        true
    }

    fn take(&mut self, piece: &[u8]) {
        if self.in_body {
            return self.take_body(piece);
        }
        self.head.extend_from_slice(piece);
        if let Some(at) = self.head.windows(4).position(|four| four == b"\r\n\r\n") {
            self.in_body = true;
            let body = self.head.split_off(at + 4);
            self.take_body(&body);
        }
    }

    fn take_body(&mut self, piece: &[u8]) {
        let due = PATTERN.iter().cycle().skip(self.body_bytes % PATTERN.len());
        self.is_wrong |= piece.iter().zip(due).any(|(came, due)| came != due);
        self.body_bytes += piece.len();
    }
}

fn happened(contrast: &Contrast) -> String {
    let broken = |name| Contrast::text(&contrast.broken, name);
    format!(
        "{} of 20 clients hung, with {} KiB of their 1,024 missing on average, since the server took each short write for a whole one; with the rest \
         of each short write kept and sent next, {} of 20 got every byte.",
        broken("hung_clients"),
        broken("missing_kib_each"),
        Contrast::text(&contrast.correct, "complete_clients"),
    )
}
