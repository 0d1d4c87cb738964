//! `partial-write`: write(2) took a part of what it was offered, and nobody looked at the number.
//!
//! A write is short when the send buffer is nearly full: never with a small answer, never with a client that reads as fast as the server
//! writes, which is why a test on one machine finds nothing. Here each client has a receive buffer of a few kilobytes, as a slow link would.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::contrast::Contrast;
use crate::figures::{Figure, Unit};
use crate::raw::connect_with_little_room;
use crate::scenario::{Code, Measured, MistakeIn, Scenario, Side};

/// Clients, and the body that each asks for.
const CLIENTS: u64 = 20;
const BODY_BYTES: usize = 1 << 20;
const REQUEST: &[u8] = b"GET /bytes?n=1048576 HTTP/1.1\r\nHost: x\r\n\r\n";
/// What the route repeats (server/src/routes/bytes.rs), so that a hole or a doubled byte shows.
const PATTERN: &[u8; 64] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-\n";
/// The receive buffer that each asks for (SO_RCVBUF, socket(7)); the kernel doubles it.
const RECEIVE_BYTES: usize = 4096;
/// Each reads so much at once, one after the other, and then they wait.
const PIECE_BYTES: usize = 16 << 10;
const READ_PAUSE: Duration = Duration::from_micros(500);
/// A client to whom nothing has come for this long hangs.
const QUIET: Duration = Duration::from_secs(2);

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "partial-write",
    title: "a short write whose rest is dropped",
    cause: "write(2) takes what fits the send buffer and says how much that was; whoever ignores the number loses the rest, and the client waits \
            for bytes that nobody will send.",
    load: "20 clients with a receive buffer of 4 KiB each ask once for 1 MiB and read it as it comes.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "1", "--workers", "1"],
    drive,
    rows: &["complete", "hung", "missing_kib_each"],
    expect: &["broken.complete == 0%", "correct.complete == 100%", "broken.hung >= 20", "correct.hung == 0", "broken.missing_kib_each > 0"],
    happened,
    look: &[
        "cargo run --release -p server -- --loops 1 --mistake partial-write",
        "python3 -c 'import socket as s; c = s.socket(); c.setsockopt(s.SOL_SOCKET, s.SO_RCVBUF, 4096); c.connect((\"127.0.0.1\", 8080)); \
         c.sendall(b\"GET /bytes?n=1048576 HTTP/1.0\\r\\n\\r\\n\"); print(sum(map(len, iter(lambda: c.recv(65536), b\"\"))))'    # fewer than 1048576",
        "strace -f -e trace=sendto -p PID              # sendto(..., 65536, ...) = 12345, and what follows begins behind the 65536",
    ],
    code: Code { file: "reactor/src/io.rs", source: include_str!("../../../reactor/src/io.rs") },
};

fn drive(side: &mut Side<'_>) -> Result<Measured, String> {
    let fail = |e: std::io::Error| format!("a client failed: {e}");
    let mut readers = Vec::new();
    for _ in 0..CLIENTS {
        let mut stream = connect_with_little_room(side.http, side.from, RECEIVE_BYTES).map_err(fail)?;
        stream.write_all(REQUEST).map_err(fail)?;
        stream.set_nonblocking(true).map_err(fail)?;
        readers.push(Reader { stream, head: Vec::new(), in_body: false, body_bytes: 0, is_wrong: false, ended: false });
    }
    let mut moved_at = Instant::now();
    while readers.iter().any(Reader::waits) && moved_at.elapsed() < QUIET && !side.interrupted().load(Ordering::Relaxed) {
        // All of them: each is to go on at its own pace.
        if readers.iter_mut().filter(|reader| reader.waits()).fold(false, |moved, reader| reader.read() | moved) {
            moved_at = Instant::now();
        }
        std::thread::sleep(READ_PAUSE);
    }
    let count = |what: fn(&Reader) -> bool| readers.iter().filter(|reader| what(reader)).count() as u64;
    let missing: usize = readers.iter().map(|reader| BODY_BYTES - reader.body_bytes.min(BODY_BYTES)).sum();
    Ok(Measured::default()
        .with("complete", Figure::share(count(|reader| reader.body_bytes == BODY_BYTES && !reader.is_wrong), CLIENTS))
        .with("hung", Figure::count(count(Reader::waits)))
        .with("missing_kib_each", Figure { value: missing as f64 / 1024.0 / CLIENTS as f64, unit: Unit::Number }))
}

/// A client, and what has come to it.
struct Reader {
    stream: TcpStream,
    head: Vec<u8>,
    in_body: bool,
    body_bytes: usize,
    /// A byte was not what belongs in its place.
    is_wrong: bool,
    ended: bool,
}

impl Reader {
    fn waits(&self) -> bool {
        !self.ended && self.body_bytes < BODY_BYTES
    }

    /// Reads once. Whether anything came.
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
        "All {} clients hung, with {} KiB of their 1024 missing, since the server believed that it had sent everything; with each short write's rest \
         kept and sent first, {} of them got every byte.",
        broken("hung"),
        broken("missing_kib_each"),
        Contrast::text(&contrast.correct, "complete"),
    )
}
