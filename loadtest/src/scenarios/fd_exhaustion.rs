//! `fd-exhaustion`: accept(2) fails with EMFILE, the loop waits for the next event of the listener, and none comes when descriptors are free.
//!
//! The limit is lowered while the server runs: at its start it would have fitted its connection limit under it, and accept would not fail.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use server::process;

use crate::contrast::Contrast;
use crate::figures::{Figure, Unit};
use crate::raw::{Client, GET, look_at_all};
use crate::scenario::{Code, Measured, MistakeIn, Scenario, Side};
use crate::sys;

/// The server's soft limit of open descriptors.
const DESCRIPTORS_MAX: u64 = 256;
/// Clients that come first and stay: more than fit.
const HOLDERS: usize = 256;
/// Clients that come after that.
const WAITERS: u64 = 100;
/// A waiter to whom nothing has come for this long hangs.
const QUIET: Duration = Duration::from_secs(2);

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "fd-exhaustion",
    title: "accept fails for want of descriptors, and nobody tries again",
    cause: "accept(2) fails with EMFILE and leaves the client in the queue; an edge-triggered listener that waits for its next event then waits \
            for the next new client, not for a free descriptor.",
    load: "prlimit --nofile=256 on the running server; 256 clients come and stay, 100 more come, then the first 256 leave.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "1", "--workers", "1"],
    drive,
    rows: &["answered", "served", "told_503", "hung", "descriptors_open", "answered_after_another_came"],
    expect: &[
        "broken.answered == 0%",
        "correct.answered == 100%",
        "broken.hung >= 100",
        "correct.hung == 0",
        "broken.answered_after_another_came > 0",
    ],
    happened,
    look: &[
        "cargo run --release -p server -- --loops 1 --mistake fd-exhaustion",
        "prlimit --nofile=256: --pid PID                # then open 300 connections, and close the first 256",
        "ss -ltn 'sport = :8080'                        # Recv-Q: those who wait for accept",
        "ls /proc/PID/fd | wc -l                        # and yet far below 256",
        "strace -f -e trace=accept4 -p PID              # silence; one more client, and all the others are accepted with it",
    ],
    code: Code { file: "reactor/src/listen/accept.rs", source: include_str!("../../../reactor/src/listen/accept.rs") },
};

fn drive(side: &mut Side<'_>) -> Result<Measured, String> {
    let fail = |e: std::io::Error| format!("a client failed: {e}");
    let interrupted = side.interrupted();
    // Open before the limit is met, or nobody could look at the server any more. It also tells when the loop has dealt with what came.
    let mut inside = [come(side)?];
    answers(&mut inside, interrupted, 1)?;
    sys::limit_descriptors(side.pid, DESCRIPTORS_MAX).map_err(|e| format!("prlimit: {e}"))?;

    let mut holders = (0..HOLDERS).map(|_| come(side)).collect::<Result<Vec<_>, _>>()?;
    // Most are served; the last ones find no descriptor. Nobody leaves, so whoever is not told waits.
    look_at_all(&mut holders, QUIET / 8, interrupted, |client| client.answers() > 0);
    let mut waiters = (0..WAITERS).map(|_| come(side)).collect::<Result<Vec<_>, _>>()?;
    // The first answer comes from a turn that has seen the last of them in the queue, the second from a later turn: the loop has tried to
    // accept them, and failed, before the first descriptor is free.
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

    // Somebody else comes: the edge that the others waited for.
    let mut another = [come(side)?];
    answers(&mut another, interrupted, 1)?;
    look_at_all(&mut waiters, QUIET / 4, interrupted, |client| client.answers() > 0);
    let late = waiters.iter().filter(|client| client.answers() > 0).count() as u64 - answered;

    let mut measured = Measured::default();
    if let Some(waited) = waited {
        measured = measured.with("waited_max", Figure::time(waited));
    }
    Ok(measured
        .with("answered", Figure::share(answered, WAITERS))
        .with("served", Figure::count(served))
        .with("told_503", Figure::count(told))
        .with("hung", Figure::count(WAITERS - answered))
        .with("descriptors_open", Figure { value: descriptors as f64, unit: Unit::Number })
        .with("answered_after_another_came", Figure::count(late)))
}

/// A client that has asked, and whom perhaps nobody has accepted.
fn come(side: &Side<'_>) -> Result<Client, String> {
    let client = Client::connect(side.http, side.from).and_then(|mut client| client.send(GET).map(|()| client));
    client.map_err(|e| format!("a client failed: {e}"))
}

/// Waits for the `n`-th answer of one that is connected.
fn answers(client: &mut [Client; 1], interrupted: &AtomicBool, n: u64) -> Result<(), String> {
    look_at_all(client, QUIET, interrupted, |client| client.answers() >= n || client.ended);
    if client[0].answers() >= n || interrupted.load(Ordering::Relaxed) {
        return Ok(());
    }
    Err("a client that is connected was not answered".to_owned())
}

fn happened(contrast: &Contrast) -> String {
    let text = |name| (Contrast::text(&contrast.broken, name), Contrast::text(&contrast.correct, name));
    let (hung, _) = text("hung");
    format!(
        "{hung} of 100 clients hung, with {} of 256 descriptors open, until somebody else connected; with a pause that every close ends, all were \
         served ({}) or told 503 ({}) within {}.",
        text("descriptors_open").0,
        text("served").1,
        text("told_503").1,
        Contrast::text(&contrast.correct, "waited_max"),
    )
}
