//! `ungraceful-shutdown`: SIGTERM in the middle of the load, and the server ends at once, with answers under way and clients in its queue.
//!
//! What is refused after the signal is not lost: who is refused knows that nobody has the request, and sends it elsewhere. Lost is what was
//! sent to a server that had accepted it, or whose kernel had, and never came back.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use crate::contrast::Contrast;
use crate::errors::Phase;
use crate::figures::Figure;
use crate::plan::Class;
use crate::raw::{Client, look_at_all};
use crate::scenario::{Code, Measured, MistakeIn, Process, Scenario, Side};
use crate::schedule::Schedule;

/// Requests a second, each of which takes a tenth of a second without a thread: about 100 are in flight at any time.
const RATE: f64 = 1_000.0;
const PATH: &str = "/sleep?ms=100";
const CONNECTIONS: u32 = 150;
/// Clients that have connected and asked, and that nobody has accepted yet when the signal comes.
const QUEUED: u64 = 50;
const QUEUED_REQUEST: &[u8] = b"GET /sleep?ms=100 HTTP/1.1\r\nHost: x\r\n\r\n";
/// One to whom nothing has come for this long gets nothing any more.
const QUIET: Duration = Duration::from_secs(2);

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "ungraceful-shutdown",
    title: "SIGTERM ends the server with requests in flight",
    cause: "A server that stops when it is told to closes connections whose requests it has taken, and resets those in its queue that nobody has \
            accepted yet.",
    load: "GET /sleep?ms=100 1000 times a second over kept connections; 50 more clients connect, and SIGTERM comes before they are accepted.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "1", "--workers", "1"],
    drive,
    rows: &["lost", "lost_of_queued", "refused_after", "ok", "unfinished"],
    expect: &[
        "broken.lost >= 50",
        "correct.lost == 0",
        "broken.lost_of_queued >= 25",
        "correct.lost_of_queued == 0",
        "broken.refused_after > 0",
        "correct.refused_after > 0",
    ],
    happened,
    look: &[
        "cargo run --release -p server -- --loops 1 --mistake ungraceful-shutdown",
        "curl 'http://127.0.0.1:8080/sleep?ms=5000' & sleep 1; kill -TERM PID      # curl: (52) Empty reply from server",
        "cargo run --release -p server -- --loops 1                               # the same: slept 5000 ms",
        "strace -f -e trace=accept4,shutdown,close -p PID                         # accept4 to EAGAIN, then the listener's close; answers; the rest",
    ],
    code: Code { file: "server/src/shutdown.rs", source: include_str!("../../../server/src/shutdown.rs") },
};

fn drive(side: &mut Side<'_>) -> Result<Measured, String> {
    let (warmup, duration) = (Duration::from_millis(500), Duration::from_secs(if side.long() { 10 } else { 2 }));
    // In the middle of what is measured.
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
    let refused = errors(&[Phase::Connect, Phase::Wait]);
    Ok(Measured::from(load)
        .with("lost", Figure::count(lost))
        .with("lost_of_queued", Figure::count(QUEUED - queued))
        .with("refused_after", Figure::count(refused)))
}

/// Sends SIGTERM while clients wait in the queue of the listener. Returns how many of them were served.
fn end_with_clients_in_the_queue(server: Process, to: SocketAddr, from: IpAddr, interrupted: &AtomicBool) -> Result<u64, String> {
    // Stopped, as a busy machine stops a process all the time: the kernel completes handshakes without it.
    server.signal(libc::SIGSTOP)?;
    let come = || Client::connect(to, from).and_then(|mut client| client.send(QUEUED_REQUEST).map(|()| client));
    let clients: Result<Vec<Client>, _> = (0..QUEUED).map(|_| come()).collect();
    server.signal(libc::SIGTERM)?;
    // Whatever has failed, it goes on, or nobody could end it.
    server.signal(libc::SIGCONT)?;
    let mut clients = clients.map_err(|e| format!("a client failed: {e}"))?;
    look_at_all(&mut clients, QUIET, interrupted, |client| client.answers() > 0 || client.ended);
    Ok(clients.iter().filter(|client| client.served > 0).count() as u64)
}

fn happened(contrast: &Contrast) -> String {
    let text = |name| (Contrast::text(&contrast.broken, name), Contrast::text(&contrast.correct, name));
    let ((broken, correct), (queued, _)) = (text("lost"), text("lost_of_queued"));
    format!(
        "The server that stopped at once lost {broken} requests in flight and {queued} of 50 clients in its queue; the one that drained lost \
         {correct}. Who came later was refused by both, and can go elsewhere."
    )
}
