//! `ungraceful-shutdown`: SIGTERM arrives under load, and the server exits at once, with requests in flight and clients in its accept queue.
//!
//! A request that is refused after the signal is not lost: its client knows that no server has it, and can send it to another. A request is
//! lost when the server, or its kernel, had accepted it and no response came.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use crate::contrast::Contrast;
use crate::errors::Phase;
use crate::plan::Class;
use crate::results_by_name::Figure;
use crate::scenario::{Code, MistakeIn, Row, Scenario};
use crate::schedule::Schedule;
use crate::side::{Measured, Process, Side};
use crate::socket_client::{Client, look_at_all};

/// Requests per second, each of which takes 100 ms without a thread: about 100 are in flight at any time.
const RATE: f64 = 1_000.0;
const PATH: &str = "/sleep?ms=100";
const CONNECTIONS: u32 = 150;
/// Clients that have connected and sent a request, and that the server has not accepted yet when the signal arrives.
const QUEUED: u64 = 50;
const QUEUED_REQUEST: &[u8] = b"GET /sleep?ms=100 HTTP/1.1\r\nHost: x\r\n\r\n";
/// A client that has received nothing for this long will receive nothing.
const QUIET: Duration = Duration::from_secs(2);

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "ungraceful-shutdown",
    title: "an exit on SIGTERM with requests in flight",
    cause: "A server that exits at once on SIGTERM closes connections whose requests it has read, and resets those in its accept queue.",
    load: "GET /sleep?ms=100 1,000 times per second over keep-alive connections; 50 more clients connect, and SIGTERM arrives before the server accepts them.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "1", "--workers", "1"],
    drive,
    rows: &[
        Row::new("requests_lost", "requests in flight lost at SIGTERM"),
        Row::new("queued_lost", "clients in the accept queue lost at SIGTERM").of("queued"),
        Row::new("refused_after_signal", "requests refused after SIGTERM, which is correct"),
        Row::new("ok", "requests answered").of("scheduled"),
        Row::new("unfinished", "requests without a response at the end"),
    ],
    expect: &[
        "broken.requests_lost >= 50",
        "correct.requests_lost == 0",
        "broken.queued_lost >= 25",
        "correct.queued_lost == 0",
        "broken.refused_after_signal > 0",
        "correct.refused_after_signal > 0",
    ],
    happened,
    look: &[
        "cargo run --release -p server -- --loops 1 --mistake ungraceful-shutdown",
        "curl 'http://127.0.0.1:8080/sleep?ms=5000' & sleep 1; kill -TERM PID      # curl: (52) Empty reply from server",
        "cargo run --release -p server -- --loops 1                               # the same: slept 5000 ms",
        "strace -f -e trace=accept,accept4,shutdown,close -p PID                  # accept4 until EAGAIN, close of the listener, then the connections",
    ],
    code: Code { file: "server/src/shutdown.rs", source: include_str!("../../../server/src/shutdown.rs") },
    takes: Duration::from_secs(8),
};

fn drive(side: &mut Side<'_>) -> Result<Measured, String> {
    let (warmup, duration) = (Duration::from_millis(500), Duration::from_secs(if side.long() { 10 } else { 2 }));
    // In the middle of the measured time.
    let after = warmup + duration / 2;
    let class = Class::get("clients", &side.authority(), PATH, Schedule::constant(RATE, warmup + duration), CONNECTIONS);
    let plan = side.plan(warmup, duration, vec![class]);
    let server = side.ends_by_itself();
    let (to, from, interrupted) = (side.http, side.from, side.interrupted());
    let (load, queued) = thread::scope(|scope| {
        let queued = scope.spawn(move || {
            thread::sleep(after);
            end_with_clients_in_the_queue(server, to, from, interrupted)
        });
        (side.run(plan), queued.join())
    });
    let (load, queued) = (load?, queued.map_err(|_| "the thread that ends the server panicked".to_owned())??);
    let errors = |wanted: &[Phase]| {
        let of_phase = load.outcome.records[0].errors.iter().filter(|((phase, _), _)| wanted.contains(phase));
        of_phase.map(|(_, error)| error.count).sum::<u64>()
    };
    let lost = errors(&[Phase::Write, Phase::FirstByte, Phase::Body]) + load.outcome.records[0].totals.unfinished;
    let refused = errors(&[Phase::Connect]);
    Ok(Measured::from(load)
        .with("requests_lost", Figure::count(lost))
        .with("queued", Figure::count(QUEUED))
        .with("queued_lost", Figure::count(QUEUED - queued))
        .with("refused_after_signal", Figure::count(refused)))
}

/// Sends SIGTERM while clients wait in the accept queue. Returns how many of them were answered.
fn end_with_clients_in_the_queue(server: Process, to: SocketAddr, from: IpAddr, interrupted: &AtomicBool) -> Result<u64, String> {
    // The server is stopped, as the scheduler of a busy machine stops processes all the time; the kernel completes handshakes meanwhile.
    server.signal(libc::SIGSTOP)?;
    let come = || Client::connect(to, from).and_then(|mut client| client.send(QUEUED_REQUEST).map(|()| client));
    let clients: Result<Vec<Client>, _> = (0..QUEUED).map(|_| come()).collect();
    server.signal(libc::SIGTERM)?;
    // The server continues whatever failed, or it could not exit.
    server.signal(libc::SIGCONT)?;
    let mut clients = clients.map_err(|e| format!("a client failed: {e}"))?;
    look_at_all(&mut clients, QUIET, interrupted, |client| client.answers() > 0 || client.ended);
    Ok(clients.iter().filter(|client| client.served > 0).count() as u64)
}

fn happened(contrast: &Contrast) -> String {
    let text = |name| (Contrast::text(&contrast.broken, name), Contrast::text(&contrast.correct, name));
    let ((broken, correct), (queued, _)) = (text("requests_lost"), text("queued_lost"));
    format!(
        "The server that exited at once lost {broken} requests in flight and those of {queued} of 50 clients in its accept queue; with a graceful \
         shutdown it lost {correct}. Both refused connections after the signal, which their clients can send to another server."
    )
}
