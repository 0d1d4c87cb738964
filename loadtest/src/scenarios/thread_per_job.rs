//! `thread-per-job`: every job gets a thread of its own, so the clients decide how many threads there are.
//!
//! The jobs wait (`GET /block`), so that they cost no CPU and the number of processors does not limit how many run at once. The second burst
//! is four times as large as the first: one number of threads follows the load, the other does not.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use server::process;

use crate::contrast::Contrast;
use crate::results_by_name::Figure;
use crate::scenario::{Code, MistakeIn, Row, Scenario};
use crate::side::{Measured, Side};
use crate::socket_client::{Client, ask_together};

/// Jobs of the first burst, and of the second.
const FEW: usize = 100;
const MANY: usize = 400;
/// Each holds a thread for a second: long enough that all run together, also on a machine that starts threads slowly.
const JOB: &[u8] = b"GET /block?ms=1000 HTTP/1.1\r\nHost: x\r\n\r\n";
/// After this long without a response, no further one is expected.
const QUIET: Duration = Duration::from_secs(5);
/// Pause between two counts, each of which reads a file for every thread.
const COUNT_PAUSE: Duration = Duration::from_millis(5);

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "thread-per-job",
    title: "a thread for every job",
    cause: "Each job gets a new thread, so that none waits and none is rejected: the clients decide how many threads the server has.",
    load: "GET /block?ms=1000, a call that blocks for a second, from 100 clients at once, then from 400; the pool has eight threads and a queue of eight jobs.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "1", "--workers", "8", "--queue-jobs-max", "8"],
    drive,
    rows: &[
        Row::new("workers_of_400", "threads of the pool for 400 jobs at once"),
        Row::new("workers_of_100", "threads of the pool for 100 jobs at once"),
        Row::new("workers_at_rest", "threads of the pool before the load"),
        Row::new("sleeping_of_400", "of the threads for 400 jobs: asleep (state S)"),
        Row::new("running_of_400", "of the threads for 400 jobs: running (state R)"),
        Row::new("resident_added_mib", "memory added by 400 jobs").unit("MiB"),
        Row::new("answered_of_400", "jobs answered").of("jobs"),
        Row::new("rejected_of_400", "jobs rejected at once with 503").of("jobs"),
    ],
    expect: &[
        "broken.workers_of_400 >= 5 * correct.workers_of_400",
        "broken.workers_of_400 >= 2 * broken.workers_of_100",
        "correct.workers_of_400 == 8",
        "correct.workers_of_100 == 8",
        "broken.rejected_of_400 == 0",
        "correct.rejected_of_400 >= 300",
    ],
    happened,
    look: &[
        "cargo run --release -p server -- --loops 1 --workers 8 --queue-jobs-max 8 --mistake thread-per-job",
        "for i in $(seq 100); do curl -s 'http://127.0.0.1:8080/block?ms=5000' >/dev/null & done    # a second terminal",
        "ps -T -o comm,stat -p PID | sort | uniq -c      # how many threads of each name, and their states: R, S, D, Z",
        "grep Threads /proc/PID/status",
        "strace -f -c -e trace=clone,clone3 -p PID             # one clone for each job; without the mistake none",
    ],
    code: Code { file: "worker-pool/src/worker.rs", source: include_str!("../../../worker-pool/src/worker.rs") },
    takes: Duration::from_secs(5),
};

/// Counts of one burst.
#[derive(Default)]
struct Burst {
    /// The most threads that the pool had, and their states at that moment.
    workers_max: u64,
    sleeping: u64,
    running: u64,
    resident_bytes_max: u64,
    served: u64,
    refused: u64,
    /// Time until the last 503; later ones are 504, from the deadline of a job.
    refused_within: Option<Duration>,
}

fn drive(side: &mut Side<'_>) -> Result<Measured, String> {
    let mut at_rest = Burst::default();
    count(side.pid, &mut at_rest)?;
    let few = burst(side, FEW)?;
    let many = burst(side, MANY)?;
    let added_mib = many.resident_bytes_max.saturating_sub(at_rest.resident_bytes_max) as f64 / f64::from(1 << 20);
    let measured = Measured::default()
        .with("jobs", Figure::count(MANY as u64))
        .with("workers_of_400", Figure::count(many.workers_max))
        .with("workers_of_100", Figure::count(few.workers_max))
        .with("workers_at_rest", Figure::count(at_rest.workers_max))
        .with("sleeping_of_400", Figure::count(many.sleeping))
        .with("running_of_400", Figure::count(many.running))
        .with("resident_added_mib", Figure::number(added_mib))
        .with("answered_of_400", Figure::count(many.served))
        .with("rejected_of_400", Figure::count(many.refused));
    Ok(match many.refused_within {
        Some(within) => measured.with("rejected_within", Figure::time(within)),
        None => measured,
    })
}

/// Starts `jobs` jobs at once; counts threads until all clients have their responses.
fn burst(side: &Side<'_>, jobs: usize) -> Result<Burst, String> {
    let mut burst = Burst::default();
    let mut clients = ask_together(side.http, side.from, jobs, JOB)?;
    let asked = Instant::now();
    let mut moved_at = asked;
    while !side.interrupted().load(Ordering::Relaxed) && moved_at.elapsed() < QUIET {
        // Every client is read, so no `any`, which stops at the first.
        if clients.iter_mut().map(Client::look).fold(false, |any, moved| any | moved) {
            moved_at = Instant::now();
        }
        if clients.iter().all(|client| client.answers() > 0 || client.ended) {
            break;
        }
        count(side.pid, &mut burst)?;
        std::thread::sleep(COUNT_PAUSE);
    }
    burst.served = clients.iter().map(|client| client.served).sum();
    burst.refused = clients.iter().map(|client| client.refused).sum();
    let refused = clients.iter().filter(|client| client.last_status == Some(503));
    burst.refused_within = refused.filter_map(|client| client.last_answer).max().map(|at| at.saturating_duration_since(asked));
    Ok(burst)
}

/// Counts the pool's threads by state, and keeps the largest count.
fn count(pid: u32, burst: &mut Burst) -> Result<(), String> {
    let fail = |e: std::io::Error| format!("/proc/{pid}: {e}");
    let states: Vec<char> = process::threads_of(pid)
        .map_err(fail)?
        .iter()
        .filter(|thread| thread.name.starts_with("worker-"))
        .map(|thread| thread.state)
        .collect();
    if states.len() as u64 > burst.workers_max {
        let in_state = |wanted| states.iter().filter(|state| **state == wanted).count() as u64;
        (burst.workers_max, burst.sleeping, burst.running) = (states.len() as u64, in_state('S'), in_state('R'));
    }
    burst.resident_bytes_max = burst.resident_bytes_max.max(process::usage_of(pid).map_err(fail)?.resident_bytes);
    Ok(())
}

fn happened(contrast: &Contrast) -> String {
    let text = |name| (Contrast::text(&contrast.broken, name), Contrast::text(&contrast.correct, name));
    let ((broken, correct), (few, _)) = (text("workers_of_400"), text("workers_of_100"));
    format!(
        "100 blocking jobs had {few} threads and 400 had {broken}: as many as clients. The pool had {correct} for either, and rejected {} of the \
         400 with 503 and Retry-After, within {}.",
        text("rejected_of_400").1,
        text("rejected_within").1,
    )
}
