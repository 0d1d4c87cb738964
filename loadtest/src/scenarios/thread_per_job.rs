//! `thread-per-job`: every job gets a thread of its own, and the number of threads is whatever the clients make it.
//!
//! The jobs wait (`GET /block`), so that the machine is not hurt by them and no processor decides how many there are at once. Two bursts,
//! the second four times as large: one number that follows the load, and one that does not.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use server::process;

use crate::contrast::Contrast;
use crate::figures::{Figure, Unit};
use crate::raw::{Client, ask_together};
use crate::scenario::{Code, Measured, MistakeIn, Scenario, Side};

/// Jobs of the first burst, and of the second.
const FEW: usize = 100;
const MANY: usize = 400;
/// Each holds a thread for a second: long enough that all are there together, also on a machine that is slow to start them.
const JOB: &[u8] = b"GET /block?ms=1000 HTTP/1.1\r\nHost: x\r\n\r\n";
/// Nothing has come for this long: nothing will.
const QUIET: Duration = Duration::from_secs(5);
/// Between two countings, each of which reads a file for every thread.
const COUNT_PAUSE: Duration = Duration::from_millis(5);

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "thread-per-job",
    title: "a thread for every job",
    cause: "Each job is given a new thread, so that none has to wait and none is refused: how many threads there are is decided by the clients.",
    load: "GET /block?ms=1000, a call that blocks for a second, from 100 clients at once, then from 400; the pool has eight threads and a queue of eight.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "1", "--workers", "8", "--queue-jobs-max", "8"],
    drive,
    rows: &[
        "workers_of_400",
        "workers_of_100",
        "workers_at_rest",
        "sleeping_of_400",
        "running_of_400",
        "resident_added_mib",
        "served_of_400",
        "refused_of_400",
    ],
    expect: &[
        "broken.workers_of_400 >= 5 * correct.workers_of_400",
        "broken.workers_of_400 >= 2 * broken.workers_of_100",
        "correct.workers_of_400 == 8",
        "correct.workers_of_100 == 8",
        "broken.refused_of_400 == 0",
        "correct.refused_of_400 >= 300",
    ],
    happened,
    look: &[
        "cargo run --release -p server -- --loops 1 --workers 8 --queue-jobs-max 8 --mistake thread-per-job",
        "for i in $(seq 100); do curl -s 'http://127.0.0.1:8080/block?ms=5000' >/dev/null & done    # a second terminal",
        "ps -T -o comm,stat -p PID | sort | uniq -c      # how many threads of each name, and their states: R, S, D, Z",
        "grep Threads /proc/PID/status",
        "strace -f -c -e trace=clone3 -p PID             # one clone3 for each job; without the mistake none",
    ],
    code: Code { file: "worker-pool/src/worker.rs", source: include_str!("../../../worker-pool/src/worker.rs") },
};

/// What was seen of one burst.
#[derive(Default)]
struct Burst {
    /// Threads of the pool, at most, and in which states they were then.
    workers_max: u64,
    sleeping: u64,
    running: u64,
    resident_bytes_max: u64,
    served: u64,
    refused: u64,
    /// Until the last refusal that came at once, and not from a job's deadline.
    refused_within: Option<Duration>,
}

fn drive(side: &mut Side<'_>) -> Result<Measured, String> {
    let mut at_rest = Burst::default();
    count(side.pid, &mut at_rest)?;
    let few = burst(side, FEW)?;
    let many = burst(side, MANY)?;
    let added_mib = many.resident_bytes_max.saturating_sub(at_rest.resident_bytes_max) as f64 / f64::from(1 << 20);
    let measured = Measured::default()
        .with("workers_of_400", Figure::count(many.workers_max))
        .with("workers_of_100", Figure::count(few.workers_max))
        .with("workers_at_rest", Figure::count(at_rest.workers_max))
        .with("sleeping_of_400", Figure::count(many.sleeping))
        .with("running_of_400", Figure::count(many.running))
        .with("resident_added_mib", Figure { value: added_mib, unit: Unit::Number })
        .with("served_of_400", Figure::count(many.served))
        .with("refused_of_400", Figure::count(many.refused));
    Ok(match many.refused_within {
        Some(within) => measured.with("refused_within", Figure::time(within)),
        None => measured,
    })
}

/// So many jobs at once; counts threads until all clients have their answers.
fn burst(side: &Side<'_>, jobs: usize) -> Result<Burst, String> {
    let mut burst = Burst::default();
    let mut clients = ask_together(side.http, side.from, jobs, JOB)?;
    let asked = Instant::now();
    let mut moved_at = asked;
    while !side.interrupted().load(Ordering::Relaxed) && moved_at.elapsed() < QUIET {
        // All of them are looked at, so no `any`, which stops at the first.
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
        "100 jobs that wait had {few} threads and 400 had {broken}: as many as there are clients; the pool had {correct} for either, and told {} \
         of the 400 clients to come back later, within {}.",
        text("refused_of_400").1,
        text("refused_within").1,
    )
}
