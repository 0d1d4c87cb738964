//! `fd-exhaustion`: accept(2) fails with EMFILE, and the loop waits for the next event of the listener, which does not come when a descriptor
//! becomes free.
//!
//! The scenario lowers the limit while the server runs. At its start the server would have chosen a connection limit below it, and accept
//! would not fail.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use server::process;

use crate::contrast::Contrast;
use crate::results_by_name::Figure;
use crate::scenario::{Code, MistakeIn, Row, Scenario};
use crate::side::{Measured, Side};
use crate::socket_client::{Client, GET, look_at_all};
use crate::sys;

/// The server's soft limit of open descriptors.
const DESCRIPTORS_MAX: u64 = 256;
/// Clients that connect first and stay connected: more than there are descriptors.
const HOLDERS: usize = 256;
/// Clients that connect after that.
const WAITERS: u64 = 100;
/// A waiting client that has received nothing for this long hangs.
const QUIET: Duration = Duration::from_secs(2);

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "fd-exhaustion",
    title: "accept fails with EMFILE and is never retried",
    cause: "accept(2) fails with EMFILE and leaves the client in the accept queue; a loop that then waits for the next event of the edge-triggered \
            listener waits for the next new client, not for a free descriptor.",
    load: "prlimit --nofile=256 on the running server; 256 clients connect and stay, 100 more connect, then the first 256 disconnect.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "1", "--workers", "1"],
    drive,
    rows: &[
        Row::new("answered", "waiting clients answered once descriptors were free").of("waiters"),
        Row::new("saw_200", "of these, answered with 200"),
        Row::new("saw_503", "of these, rejected with 503"),
        Row::new("hung_clients", "waiting clients that hang").of("waiters"),
        Row::new("descriptors_open", "descriptors open in the server, of 256"),
        Row::new("answered_after_another_came", "hanging clients answered after one more client connected"),
    ],
    expect: &[
        "broken.answered == 0",
        "correct.answered == 100",
        "broken.hung_clients >= 100",
        "correct.hung_clients == 0",
        "broken.answered_after_another_came > 0",
    ],
    happened,
    look: &[
        "cargo run --release -p server -- --loops 1 --mistake fd-exhaustion",
        "prlimit --nofile=256: --pid PID                # then open 300 connections, and close the first 256",
        "ss -ltn 'sport = :8080'                        # Recv-Q: clients in the accept queue",
        "ls /proc/PID/fd | wc -l                        # far below 256 all the same",
        "strace -f -e trace=accept,accept4 -p PID       # no call; one more client connects, and all others are accepted with it",
    ],
    code: Code { file: "reactor/src/listen/accept.rs", source: include_str!("../../../reactor/src/listen/accept.rs") },
    takes: Duration::from_secs(6),
};

fn drive(side: &mut Side<'_>) -> Result<Measured, String> {
    let fail = |e: std::io::Error| format!("a client failed: {e}");
    let interrupted = side.interrupted();
    // Connected before the limit is reached, to observe the server. Its responses also show when the loop has handled the events before them.
    let mut inside = [come(side)?];
    answers(&mut inside, interrupted, 1)?;
    sys::limit_descriptors(side.pid, DESCRIPTORS_MAX).map_err(|e| format!("prlimit: {e}"))?;

    let mut holders = (0..HOLDERS).map(|_| come(side)).collect::<Result<Vec<_>, _>>()?;
    // Most are answered; for the last ones there is no descriptor. No client disconnects, so these wait.
    look_at_all(&mut holders, QUIET / 8, interrupted, |client| client.answers() > 0);
    let mut waiters = (0..WAITERS).map(|_| come(side)).collect::<Result<Vec<_>, _>>()?;
    // The first response comes from a turn of the loop that has seen the last of them in the accept queue, the second from a later turn: the
    // loop has tried to accept them, and failed, before the first descriptor is free.
    for n in 2..=3 {
        inside[0].send(GET).map_err(fail)?;
        answers(&mut inside, interrupted, n)?;
    }

    drop(holders);
    let freed = Instant::now();
    look_at_all(&mut waiters, QUIET, interrupted, |client| client.answers() > 0);
    let answered = waiters.iter().filter(|client| client.answers() > 0).count() as u64;
    let served: u64 = waiters.iter().map(|client| client.served).sum();
    let told: u64 = waiters.iter().map(|client| client.refused).sum();
    let waited = waiters.iter().filter_map(|client| client.last_answer).max().map(|at| at.saturating_duration_since(freed));
    let descriptors = process::open_descriptors_of(side.pid).map_err(|e| format!("/proc/{}/fd: {e}", side.pid))?;

    // One more client connects: the edge that makes the loop accept the waiting clients.
    let mut another = [come(side)?];
    answers(&mut another, interrupted, 1)?;
    look_at_all(&mut waiters, QUIET / 4, interrupted, |client| client.answers() > 0);
    let late = waiters.iter().filter(|client| client.answers() > 0).count() as u64 - answered;

    let mut measured = Measured::default();
    if let Some(waited) = waited {
        measured = measured.with("waited_max", Figure::time(waited));
    }
    Ok(measured
        .with("waiters", Figure::count(WAITERS))
        .with("answered", Figure::count(answered))
        .with("saw_200", Figure::count(served))
        .with("saw_503", Figure::count(told))
        .with("hung_clients", Figure::count(WAITERS - answered))
        .with("descriptors_open", Figure::number(descriptors as f64))
        .with("answered_after_another_came", Figure::count(late)))
}

/// A client that has connected and sent a request, whether or not the server has accepted it.
fn come(side: &Side<'_>) -> Result<Client, String> {
    let client = Client::connect(side.http, side.from).and_then(|mut client| client.send(GET).map(|()| client));
    client.map_err(|e| format!("a client failed: {e}"))
}

/// Waits for the `n`-th response on an accepted connection.
fn answers(client: &mut [Client; 1], interrupted: &AtomicBool, n: u64) -> Result<(), String> {
    look_at_all(client, QUIET, interrupted, |client| client.answers() >= n || client.ended);
    if client[0].answers() >= n || interrupted.load(Ordering::Relaxed) {
        return Ok(());
    }
    Err("a client on an accepted connection was not answered".to_owned())
}

fn happened(contrast: &Contrast) -> String {
    let text = |name| (Contrast::text(&contrast.broken, name), Contrast::text(&contrast.correct, name));
    let (hung, _) = text("hung_clients");
    format!(
        "{hung} of 100 clients hung, with {} of 256 descriptors open, until one more client connected. With a retry after every close, all were answered \
         ({} with 200, {} with 503) within {}.",
        text("descriptors_open").0,
        text("saw_200").1,
        text("saw_503").1,
        Contrast::text(&contrast.correct, "waited_max"),
    )
}
