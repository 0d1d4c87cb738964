//! `worker-panic`: a job that panics ends its worker thread; after one such job for each worker no thread is left to run jobs.
//!
//! The loop still runs: it answers `/healthz`, so a health check that requests only that reports a healthy server.

use std::time::{Duration, Instant};

use server::process;

use crate::contrast::Contrast;
use crate::results_by_name::Figure;
use crate::scenario::{Code, MistakeIn, Row, Scenario};
use crate::side::{Measured, Side};
use crate::socket_client::{Client, ask_together, look_at_all};

/// Worker threads; `server_args` says the same.
const WORKERS: usize = 4;
/// A request whose handler panics; one is sent for each worker.
const POISON: &[u8] = b"GET /panic HTTP/1.1\r\nHost: x\r\n\r\n";
/// The jobs that follow, of a millisecond each.
const JOB: &[u8] = b"GET /spin?ms=1 HTTP/1.1\r\nHost: x\r\n\r\n";
const JOBS: usize = 20;
/// What a load balancer's health check requests.
const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
/// A client that has received nothing for this long will receive nothing. Longer than `--job-deadline`, after which the loop answers 504.
const QUIET: Duration = Duration::from_secs(4);
/// Threads that have just started set their names within this time; usually in far less than a millisecond.
const NAMED_MAX: Duration = Duration::from_secs(2);
/// The number of threads is final when it has not changed for this long: a thread takes a moment to unwind.
const SETTLED: Duration = Duration::from_millis(200);

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "worker-panic",
    title: "a panic that ends its worker thread",
    cause: "A job that panics ends its thread, and its request is never answered; after one such request for each worker no thread is left to \
            run jobs.",
    load: "GET /panic four times, once for each worker; then GET /healthz, and GET /spin?ms=1 20 times.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "1", "--workers", "4", "--job-deadline", "1s"],
    drive,
    rows: &[
        Row::new("jobs_answered", "jobs answered after four panics").of("jobs"),
        Row::new("workers_before", "worker threads before the panics").of("workers"),
        Row::new("workers_after", "worker threads after the panics").of("workers"),
        Row::new("panics_saw_500", "requests that panicked and got a 500").of("workers"),
        Row::new("healthz_answered", "GET /healthz answered 200 after the panics"),
        Row::new("jobs_took", "time until the last job was answered"),
    ],
    expect: &[
        "broken.workers_before == 4",
        "broken.workers_after == 0",
        "broken.jobs_answered == 0",
        "broken.healthz_answered == 1",
        "correct.workers_after == 4",
        "correct.panics_saw_500 == 4",
        "correct.jobs_answered == 20",
    ],
    happened,
    look: &[
        "cargo run --release -p server -- --loops 1 --workers 4 --mistake worker-panic",
        "for i in 1 2 3 4; do curl -m 1 http://127.0.0.1:8080/panic; done",
        "ps -T -o tid,comm,stat -p PID                  # worker-0 to worker-3 are missing; loop-0 and the process are still there",
        "curl -i http://127.0.0.1:8080/healthz 'http://127.0.0.1:8080/spin?ms=1'    # 200, and 504 after the job's deadline",
        "curl -s http://127.0.0.1:9090/metrics | grep -e ^pool_threads -e ^pool_queue",
    ],
    code: Code { file: "worker-pool/src/worker.rs", source: include_str!("../../../worker-pool/src/worker.rs") },
    takes: Duration::from_secs(10),
};

fn drive(side: &mut Side<'_>) -> Result<Measured, String> {
    let workers_before = workers_started(side.pid)?;
    let poisoned = ask(side, POISON, WORKERS)?;
    let workers_after = workers_settled(side.pid)?;
    let healthy = ask(side, HEALTH, 1)?;
    let asked = Instant::now();
    let jobs = ask(side, JOB, JOBS)?;
    let took = jobs.iter().filter_map(|client| client.last_answer).max().map(|at| at.saturating_duration_since(asked));
    let served = |clients: &[Client]| clients.iter().map(|client| client.served).sum::<u64>();
    let saw_500 = poisoned.iter().filter(|client| client.last_status == Some(500)).count();
    let measured = Measured::default()
        .with("jobs", Figure::count(JOBS as u64))
        .with("workers", Figure::count(WORKERS as u64))
        .with("jobs_answered", Figure::count(served(&jobs)))
        .with("workers_before", Figure::count(workers_before as u64))
        .with("workers_after", Figure::count(workers_after as u64))
        .with("panics_saw_500", Figure::count(saw_500 as u64))
        .with("healthz_answered", Figure::count(served(&healthy)));
    Ok(match took {
        Some(took) => measured.with("jobs_took", Figure::time(took)),
        None => measured,
    })
}

/// Sends `n` requests together; returns when all are answered, or nothing arrives any more.
fn ask(side: &Side<'_>, request: &[u8], n: usize) -> Result<Vec<Client>, String> {
    let mut clients = ask_together(side.http, side.from, n, request)?;
    look_at_all(&mut clients, QUIET, side.interrupted(), |client| client.answers() > 0 || client.ended);
    Ok(clients)
}

fn workers(pid: u32) -> Result<usize, String> {
    let threads = process::threads_of(pid).map_err(|e| format!("/proc/{pid}: {e}"))?;
    Ok(threads.iter().filter(|thread| thread.name.starts_with("worker-")).count())
}

/// The number of worker threads once all have their names.
fn workers_started(pid: u32) -> Result<usize, String> {
    let until = Instant::now() + NAMED_MAX;
    loop {
        let n = workers(pid)?;
        if n >= WORKERS || Instant::now() > until {
            return Ok(n);
        }
        std::thread::yield_now();
    }
}

/// The number of worker threads once it no longer changes.
fn workers_settled(pid: u32) -> Result<usize, String> {
    let (mut n, mut since) = (workers(pid)?, Instant::now());
    while since.elapsed() < SETTLED {
        std::thread::sleep(SETTLED / 20);
        let now = workers(pid)?;
        if now != n {
            (n, since) = (now, Instant::now());
        }
    }
    Ok(n)
}

fn happened(contrast: &Contrast) -> String {
    let text = |name| (Contrast::text(&contrast.broken, name), Contrast::text(&contrast.correct, name));
    let (left, _) = text("workers_after");
    format!(
        "Four requests whose handler panics left {left} of 4 workers; {} of 20 jobs after that were answered, while /healthz answered 200. With \
         panics contained, each of the four got a 500, and {} of 20 jobs were answered, within {}.",
        text("jobs_answered").0,
        text("jobs_answered").1,
        text("jobs_took").1,
    )
}
