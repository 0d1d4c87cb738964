//! `split-write`: head and body of an answer are two writes, and with Nagle's algorithm the second one waits for the peer's delayed
//! acknowledgement of the first.
//!
//! Each client sends its next request as soon as it has its answer. That matters: a kernel delays acknowledgements only in a conversation,
//! that is, when its program has lately sent something within 40 ms of having received (`inet_csk_in_pingpong_mode`,
//! include/net/inet_connection_sock.h). A client that pauses between its requests sees nothing of the fault. The first packets of a
//! connection may be acknowledged at once in any case (`TCP_MAX_QUICKACKS`), so the first answers are not counted.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::contrast::Contrast;
use crate::figures::{Figure, Unit};
use crate::raw::{GET, connect, read_answer};
use crate::scenario::{Code, Measured, MistakeIn, Scenario, Side};

/// Connections, each with a thread here.
const CLIENTS: usize = 8;
/// Answers of each that are not counted: twice the sixteen packets of `TCP_MAX_QUICKACKS`, include/net/tcp.h.
const WARMUP: usize = 32;
/// Answers of each that are.
const COUNTED: usize = 50;
/// Nothing on loopback takes so long but a timer: the shortest delay of an acknowledgement is 40 ms (`TCP_DELACK_MIN`, include/net/tcp.h).
const LATE: Duration = Duration::from_millis(30);
/// When a client gives up.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "split-write",
    title: "an answer in two writes, and Nagle's algorithm between them",
    cause: "The kernel keeps the second small write back until the first is acknowledged, and the client's kernel delays the acknowledgement by \
            40 ms, since a whole answer would have carried it.",
    load: "8 clients on keep-alive connections, each with GET / after GET /, the next one when the last is answered.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "1", "--workers", "1"],
    drive,
    rows: &["p50", "late", "answers_per_second_each", "answers"],
    expect: &["broken.late >= 80%", "correct.late <= 10%", "broken.p50 >= 5 * correct.p50", "broken.p50 >= 30ms"],
    happened,
    look: &[
        "cargo run --release -p server -- --loops 1 --mistake split-write",
        "curl -s -w ' %{time_total}\\n' $(yes http://127.0.0.1:8080/ | head -40)    # a second terminal: soon 0.044 for every answer",
        "strace -r -e trace=recvfrom,sendto -p TID    # TID of loop-0 (ps -T -p PID): two sendto for an answer, 0.04 s until the next recvfrom",
        "ss -tni 'sport = :8080'                      # notsent:13, the body that Nagle keeps back",
    ],
    code: Code { file: "reactor/src/visit.rs", source: include_str!("../../../reactor/src/visit.rs") },
};

fn drive(side: &mut Side<'_>) -> Result<Measured, String> {
    let (to, from, interrupted) = (side.http, side.from, side.interrupted());
    let counted = if side.long() { 4 * COUNTED } else { COUNTED };
    let taken: Vec<io::Result<Vec<Duration>>> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(move || converse(to, from, counted, interrupted))).collect();
        clients.into_iter().map(|client| client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let taken = taken.into_iter().collect::<io::Result<Vec<_>>>().map_err(|e| format!("a client failed: {e}"))?;
    let mut times: Vec<Duration> = taken.into_iter().flatten().collect();
    times.sort_unstable();
    let late = times.iter().filter(|time| **time >= LATE).count() as u64;
    let all: Duration = times.iter().sum();
    let mut measured = Measured::default();
    if let Some(p50) = times.get(times.len() / 2) {
        measured = measured.with("p50", Figure::time(*p50));
    }
    Ok(measured
        .with("late", Figure::share(late, times.len() as u64))
        .with("answers_per_second_each", Figure { value: times.len() as f64 / all.as_secs_f64().max(1e-9), unit: Unit::Number })
        .with("answers", Figure::count(times.len() as u64)))
}

/// How long each answer took, from the request's write to the last byte.
fn converse(to: SocketAddr, from: IpAddr, counted: usize, interrupted: &AtomicBool) -> io::Result<Vec<Duration>> {
    let mut stream = connect(to, from)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut times = Vec::new();
    for n in 0..WARMUP + counted {
        if interrupted.load(Ordering::Relaxed) {
            break;
        }
        let asked = Instant::now();
        stream.write_all(GET)?;
        read_answer(&mut stream)?;
        if n >= WARMUP {
            times.push(asked.elapsed());
        }
    }
    Ok(times)
}

fn happened(contrast: &Contrast) -> String {
    let text = |name| (Contrast::text(&contrast.broken, name), Contrast::text(&contrast.correct, name));
    let ((p50, correct), (rate, _)) = (text("p50"), text("answers_per_second_each"));
    format!(
        "{} of the answers took longer than 30 ms, the median {p50}, and a connection got {rate} of them a second; written at once, the same answers \
         took {correct}.",
        text("late").0,
    )
}
