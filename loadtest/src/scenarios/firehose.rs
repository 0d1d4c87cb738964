//! `firehose`: a client sends faster than the handler consumes, its socket is never empty, and a loop that reads until it is stays with it.
//!
//! The handler must be slower than the sender. Each firehose is a body in chunks of one byte; a chunk costs the server as much as a
//! hundred cost the sender. The kernel must also deliver the next bytes before the last ones are consumed, which takes some care: see
//! [`connect`]. One firehose is enough while its sender is never late. There are 32, because the bytes in 32 receive buffers last
//! while a busy machine delays the sender.

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::contrast::Contrast;
use crate::plan::Class;
use crate::results_by_name::Figure;
use crate::scenario::{Code, MistakeIn, Row, Scenario};
use crate::schedule::Schedule;
use crate::side::{Measured, Side};

/// Requests per second of the clients that suffer, and their connections.
const VICTIMS_RATE: f64 = 300.0;
const VICTIMS_CONNECTIONS: u32 = 20;
/// The firehose runs for this long, in the middle of the measured time.
const HOSE_TIME: Duration = Duration::from_secs(3);
/// Before and after it.
const CALM: Duration = Duration::from_secs(1);
/// Firehoses. One is enough while its sender is never late; 32 have enough buffered to bridge the time when it is.
const HOSES: usize = 32;
/// What each sends: a body that never ends, in chunks of one byte.
const HEAD: &[u8] = b"POST /digest?rounds=1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
const CHUNK: &[u8] = b"1\r\nx\r\n";
/// Chunks in one write: 120 KB.
const BLOCK_CHUNKS: usize = 20_000;
/// Writes to one socket in a round: more than it accepts at once, so that a round ends however fast the server is.
const BLOCKS_PER_ROUND: usize = 64;
/// Pause between two rounds of filling the sockets. One full socket keeps the server busy for several times as long.
const ROUND_PAUSE: Duration = Duration::from_millis(1);
/// Bytes in a segment, as over Ethernet.
const SEGMENT_BYTES: u32 = 1448;
/// A server that neither reads nor answers for this long has another failure than this one.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "firehose",
    title: "a connection read until it is empty, which it never is",
    cause: "The loop reads a connection until its socket is empty, without a budget; a client that sends faster than the handler consumes keeps the loop for itself.",
    load: "GET / 300 times per second over 20 connections; for 3 s, 32 firehoses send bodies in chunks of one byte as fast as the server reads them.",
    mistake_in: MistakeIn::Server,
    server_args: &[
        "--loops",
        "1",
        "--workers",
        "1",
        "--body-bytes-max",
        "1GiB",
        "--body-memory-max",
        "512MiB",
        "--buffer-bytes-max",
        "4KiB",
        "--header-bytes-max",
        "2KiB",
    ],
    drive,
    rows: &[
        Row::new("response.p99", "GET / of other clients, p99 latency"),
        Row::new("response.p50", "GET / of other clients, median latency"),
        Row::new("response.max", "GET / of other clients, longest latency"),
        Row::new("ok", "GET / answered").of("scheduled"),
        Row::new("errors", "GET / that failed"),
        Row::new("unfinished", "GET / without a response at the end"),
        Row::new("hose_mb_per_s", "read from the firehoses").unit("MB/s"),
    ],
    // Of latencies that were cut off on both sides none can be said to be shorter, and a ratio of two short ones is open on a busy machine. Each
    // side has a bound of its own.
    expect: &[
        "broken.response.p99 >= 500ms",
        "broken.response.p99 >= 5 * correct.response.p99",
        "correct.response.p99 <= 1s",
        "correct.hose_mb_per_s >= 0.1 * broken.hose_mb_per_s",
    ],
    happened,
    look: &[
        "cargo run --release -p server -- --loops 1 --buffer-bytes-max 4KiB --header-bytes-max 2KiB --body-bytes-max 1GiB --body-memory-max 512MiB --mistake firehose",
        "for i in $(seq 8); do (printf 'POST /digest?rounds=1 HTTP/1.1\\r\\nHost: x\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n'; \
         timeout 10 yes $'1\\r\\nx\\r') > /dev/tcp/127.0.0.1/8080 & done    # a second terminal, bash",
        "curl -s -w '%{time_total}\\n' http://127.0.0.1:8080/    # a third: seconds instead of a millisecond",
        "strace -p TID 2>&1 | head -1000 | grep -o '^[a-z0-9_]*([0-9]*' | uniq -c    # TID of loop-0: one descriptor again and again",
    ],
    code: Code { file: "reactor/src/visit.rs", source: include_str!("../../../reactor/src/visit.rs") },
    takes: Duration::from_secs(14),
};

fn drive(side: &mut Side<'_>) -> Result<Measured, String> {
    let hose_time = if side.long() { 5 * HOSE_TIME } else { HOSE_TIME };
    let (warmup, duration) = (CALM, CALM + hose_time + CALM);
    let schedule = Schedule::constant(VICTIMS_RATE, warmup + duration);
    let victims = Class::get("victims", &side.authority(), "/", schedule, VICTIMS_CONNECTIONS);
    // None may time out: how late a response is is what is measured.
    let victims = Class { timeout: PATIENCE + hose_time, ..victims.expecting(b"Hello, World!") };
    let plan = side.plan(warmup, duration, vec![victims]);
    let (to, from, interrupted) = (side.http, side.from, side.interrupted());
    let begin = Instant::now() + warmup + CALM;
    let (load, sent) = std::thread::scope(|scope| {
        let hoses = scope.spawn(move || {
            wait_until(begin, interrupted);
            send_for(to, from, begin + hose_time, interrupted)
        });
        let load = side.run(plan);
        (load, hoses.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let sent_bytes = sent.map_err(|e| format!("a firehose failed: {e}"))?;
    let per_second = Figure::number(sent_bytes as f64 / 1e6 / hose_time.as_secs_f64());
    Ok(Measured::from(load?).with("hose_mb_per_s", per_second))
}

fn wait_until(at: Instant, interrupted: &AtomicBool) {
    while Instant::now() < at && !interrupted.load(Ordering::Relaxed) {
        std::thread::sleep(ROUND_PAUSE.min(at.saturating_duration_since(Instant::now())));
    }
}

/// Keeps the send buffers of all firehoses full until the time is up, then resets the connections, so that the kernel discards the rest.
/// Returns how many bytes their sockets took.
fn send_for(to: SocketAddr, from: IpAddr, until: Instant, interrupted: &AtomicBool) -> std::io::Result<u64> {
    let mut hoses = (0..HOSES).map(|_| Hose::connect(to, from)).collect::<std::io::Result<Vec<_>>>()?;
    let block = CHUNK.repeat(BLOCK_CHUNKS);
    while Instant::now() < until && !interrupted.load(Ordering::Relaxed) {
        for hose in &mut hoses {
            hose.fill(&block)?;
        }
        std::thread::sleep(ROUND_PAUSE);
    }
    hoses.into_iter().map(Hose::break_off).sum()
}

/// Opens a connection on which the next bytes arrive before the server has consumed the last ones. Two properties of the kernel can empty
/// the receive buffer although the sender is far ahead, and then reading without a budget ends all the same, by luck:
///
/// - The receiver opens its window again when a segment fits. Over loopback a segment has 64 KiB, and so has the first window: it opens
///   when the last byte has been read. So: segments as over Ethernet.
/// - BBR, the congestion control of many machines, paces at the rate that it has measured, which may be slower than the handler. So: Reno,
///   which is in every kernel, needs no privilege, and does not pace.
///
/// # Errors
/// socket(2), setsockopt(2), bind(2), connect(2).
fn connect(to: SocketAddr, from: IpAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM.cloexec(), None)?;
    socket.set_tcp_mss(SEGMENT_BYTES)?;
    socket.set_tcp_congestion(b"reno")?;
    socket.bind(&SockAddr::from(SocketAddr::from((from, 0))))?;
    socket.connect_timeout(&SockAddr::from(to), PATIENCE)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

/// A connection whose request never ends.
struct Hose {
    stream: TcpStream,
    sent_bytes: u64,
}

impl Hose {
    fn connect(to: SocketAddr, from: IpAddr) -> std::io::Result<Hose> {
        let mut stream = connect(to, from)?;
        stream.write_all(HEAD)?;
        stream.set_nonblocking(true)?;
        Ok(Hose { stream, sent_bytes: 0 })
    }

    /// Writes until the socket accepts no more.
    fn fill(&mut self, block: &[u8]) -> std::io::Result<()> {
        for _ in 0..BLOCKS_PER_ROUND {
            // A chunk that was cut is continued where it was cut.
            let from = (self.sent_bytes % CHUNK.len() as u64) as usize;
            match self.stream.write(&block[from..]) {
                Ok(n) => self.sent_bytes += n as u64,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Closes with a reset (SO_LINGER of zero, socket(7)).
    fn break_off(self) -> std::io::Result<u64> {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))?;
        Ok(self.sent_bytes)
    }
}

fn happened(contrast: &Contrast) -> String {
    let text = |name| (Contrast::text(&contrast.broken, name), Contrast::text(&contrast.correct, name));
    let (broken, correct) = text("response.p99");
    format!(
        "While the loop read from a socket that was never empty, the other connections waited: p99 {broken}, the longest {}. With a read budget p99 was \
         {correct}, and the server still read {} MB/s from the firehoses, against {} MB/s.",
        text("response.max").0,
        text("hose_mb_per_s").1,
        text("hose_mb_per_s").0,
    )
}
