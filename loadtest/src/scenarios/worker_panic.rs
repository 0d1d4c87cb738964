//! `worker-panic`: a job that panics takes its worker with it, and after as many as there are workers nobody is left to run a job.
//!
//! The loop is fine all the while: it answers `/healthz`, and with it every check that asks no more than that.

use std::time::{Duration, Instant};

use server::process;

use crate::contrast::Contrast;
use crate::figures::Figure;
use crate::raw::{Client, ask_together, look_at_all};
use crate::scenario::{Code, Measured, MistakeIn, Scenario, Side};

/// Worker threads; `server_args` says the same.
const WORKERS: usize = 4;
/// A request with a bug behind it; one is sent for each worker.
const POISON: &[u8] = b"GET /panic HTTP/1.1\r\nHost: x\r\n\r\n";
/// Requests after that, and how many. A worker needs a millisecond for one.
const JOB: &[u8] = b"GET /spin?ms=1 HTTP/1.1\r\nHost: x\r\n\r\n";
const JOBS: usize = 20;
/// What load balancers ask.
const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
/// A client that has got nothing for this long gets nothing: longer than `--job-deadline`, when the loop answers 504 by itself.
const QUIET: Duration = Duration::from_secs(4);
/// Threads that have just been started get their names within this, far below a millisecond as a rule.
const NAMED_MAX: Duration = Duration::from_secs(2);
/// Their number is the final one when it has not changed for this long: a thread that unwinds needs a moment.
const SETTLED: Duration = Duration::from_millis(200);

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "worker-panic",
    title: "a panic takes its worker along",
    cause: "A job that panics ends its thread, and its request is never answered; after one such request for each worker nobody is left to run \
            a job.",
    load: "GET /panic four times, once for each worker; then GET /healthz, and GET /spin?ms=1 20 times.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "1", "--workers", "4", "--job-deadline", "1s"],
    drive,
    rows: &["jobs_served", "workers_before", "workers_after", "poison_told_500", "healthz_ok", "jobs_took"],
    expect: &[
        "broken.workers_before == 4",
        "broken.workers_after == 0",
        "broken.jobs_served == 0%",
        "broken.healthz_ok == 1",
        "correct.workers_after == 4",
        "correct.poison_told_500 == 4",
        "correct.jobs_served == 100%",
    ],
    happened,
    look: &[
        "cargo run --release -p server -- --loops 1 --workers 4 --mistake worker-panic",
        "for i in 1 2 3 4; do curl -m 1 http://127.0.0.1:8080/panic; done",
        "ps -T -o tid,comm,stat -p PID                  # worker-0 to worker-3 are missing; loop-0 is there, and so is the process",
        "curl -i http://127.0.0.1:8080/healthz 'http://127.0.0.1:8080/spin?ms=1'    # 200, and 504 after the job's deadline",
        "curl -s http://127.0.0.1:9090/metrics | grep -e ^pool_threads -e ^pool_queue",
    ],
    code: Code { file: "worker-pool/src/worker.rs", source: include_str!("../../../worker-pool/src/worker.rs") },
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
    let told_500 = poisoned.iter().filter(|client| client.last_status == Some(500)).count();
    let measured = Measured::default()
        .with("jobs_served", Figure::share(served(&jobs), JOBS as u64))
        .with("workers_before", Figure::count(workers_before as u64))
        .with("workers_after", Figure::count(workers_after as u64))
        .with("poison_told_500", Figure::count(told_500 as u64))
        .with("healthz_ok", Figure::count(served(&healthy)));
    Ok(match took {
        Some(took) => measured.with("jobs_took", Figure::time(took)),
        None => measured,
    })
}

/// So many requests together, and what has come of them when nothing more comes.
fn ask(side: &Side<'_>, request: &[u8], n: usize) -> Result<Vec<Client>, String> {
    let mut clients = ask_together(side.http, side.from, n, request)?;
    look_at_all(&mut clients, QUIET, side.interrupted(), |client| client.answers() > 0 || client.ended);
    Ok(clients)
}

fn workers(pid: u32) -> Result<usize, String> {
    let threads = process::threads_of(pid).map_err(|e| format!("/proc/{pid}: {e}"))?;
    Ok(threads.iter().filter(|thread| thread.name.starts_with("worker-")).count())
}

/// How many there are once all of them have their names.
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

/// How many there are when none ends any more.
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
        "Four requests with a bug behind them left {left} of 4 workers, and {} of the jobs after that were served, while /healthz said that all was \
         well; with panics contained, each of the four was told 500 and {} were served, within {}.",
        text("jobs_served").0,
        text("jobs_served").1,
        text("jobs_took").1,
    )
}
