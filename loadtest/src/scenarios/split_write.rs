//! `split-write`: head and body of a response are two writes, and with Nagle's algorithm the second waits for the delayed
//! acknowledgement of the first.
//!
//! Each client sends its next request as soon as it has its response. A kernel delays acknowledgements only on interactive connections: when
//! the program has recently sent something within 40 ms of having received (`inet_csk_in_pingpong_mode`,
//! include/net/inet_connection_sock.h). A client that pauses between its requests does not see the delay. The kernel may acknowledge the first
//! packets of a connection at once in any case (`TCP_MAX_QUICKACKS`), so the first responses are not counted.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::contrast::Contrast;
use crate::results_by_name::Figure;
use crate::scenario::{Code, MistakeIn, Row, Scenario};
use crate::side::{Measured, Side};
use crate::socket_client::{GET, connect, read_answer};

/// Connections, each with a thread here.
const CLIENTS: usize = 8;
/// Responses to each client that are not counted: twice the sixteen packets of `TCP_MAX_QUICKACKS`, include/net/tcp.h.
const WARMUP: usize = 32;
/// Responses to each client that are counted.
const COUNTED: usize = 50;
/// On loopback only a timer takes this long: the shortest delay of an acknowledgement is 40 ms (`TCP_DELACK_MIN`, include/net/tcp.h).
const DELAYED: Duration = Duration::from_millis(30);
/// When a client gives up.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "split-write",
    title: "a response in two writes, delayed by Nagle's algorithm",
    cause: "The kernel holds the second small write back until the first is acknowledged (Nagle's algorithm), and the client's kernel delays that \
            acknowledgement by 40 ms, to send it along with the next request.",
    load: "8 clients on keep-alive connections; each sends its next GET / when it has the response to the last.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "1", "--workers", "1"],
    drive,
    rows: &[
        Row::new("response_p50", "median time from request to response"),
        Row::new("delayed_ack", "responses that took more than 30 ms").of("responses"),
        Row::new("responses", "responses counted"),
        Row::new("responses_per_second_each", "responses per second and connection"),
    ],
    expect: &[
        "broken.delayed_ack >= 0.8 * broken.responses",
        "correct.delayed_ack <= 0.1 * correct.responses",
        "broken.response_p50 >= 5 * correct.response_p50",
        "broken.response_p50 >= 30ms",
    ],
    happened,
    look: &[
        "cargo run --release -p server -- --loops 1 --mistake split-write",
        "curl -s -w ' %{time_total}\\n' $(yes http://127.0.0.1:8080/ | head -40)    # a second terminal: soon 0.044 for every response",
        "strace -r -e trace=read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg -p TID    # TID of loop-0 (ps -T -p PID): two sendto for a response, 0.04 s until the next recvfrom",
        "ss -tni 'sport = :8080'                      # notsent:13, the body that Nagle's algorithm holds back",
    ],
    code: Code { file: "reactor/src/visit.rs", source: include_str!("../../../reactor/src/visit.rs") },
    takes: Duration::from_secs(5),
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
    let delayed_ack = times.iter().filter(|time| **time >= DELAYED).count() as u64;
    let all: Duration = times.iter().sum();
    let mut measured = Measured::default();
    if let Some(p50) = times.get(times.len() / 2) {
        measured = measured.with("response_p50", Figure::time(*p50));
    }
    Ok(measured
        .with("delayed_ack", Figure::count(delayed_ack))
        .with("responses_per_second_each", Figure::number(times.len() as f64 / all.as_secs_f64().max(1e-9)))
        .with("responses", Figure::count(times.len() as u64)))
}

/// How long each response took, from write(2) of the request to the last byte.
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
    let ((p50, correct), (rate, _)) = (text("response_p50"), text("responses_per_second_each"));
    format!(
        "{} of {} responses took longer than 30 ms, the median {p50}; a connection got {rate} responses per second. In a single write, the same \
         responses took {correct}.",
        text("delayed_ack").0,
        text("responses").0,
    )
}
