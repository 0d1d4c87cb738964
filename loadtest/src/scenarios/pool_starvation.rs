//! `pool-starvation`: calls that block hold every thread of the pool, and jobs of a millisecond wait for them.
//!
//! `GET /block?ms=1000` stands for a name server that is down. Six arrive each second, more than four threads can run, so that a slow job
//! is always waiting when a thread becomes free. The fast jobs alone would need a twentieth of one core.

use std::time::Duration;

use crate::contrast::Contrast;
use crate::plan::Class;
use crate::scenario::{Code, MistakeIn, Row, Scenario};
use crate::schedule::Schedule;
use crate::side::{Measured, Side};

/// Fast jobs per second, and their connections: so many that jobs which wait do not keep later ones from being sent.
const FAST_RATE: f64 = 50.0;
const FAST_PATH: &str = "/spin?ms=1";
const FAST_CONNECTIONS: u32 = 50;
/// How long the client of a fast job waits: a hundred times as long as one takes next to other work on a machine of two cores.
const FAST_PATIENCE: Duration = Duration::from_secs(1);
/// Slow jobs per second. Each holds a thread for a second; `server_args` has four threads.
const SLOW_RATE: f64 = 6.0;
const SLOW_PATH: &str = "/block?ms=1000";
const SLOW_CONNECTIONS: u32 = 16;

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "pool-starvation",
    title: "slow jobs hold every thread of the pool",
    cause: "Jobs that only wait (DNS, a disk) may occupy all four threads; jobs that need a millisecond of CPU then wait until one of them ends.",
    load: "Fast jobs, GET /spin?ms=1, 50 times per second; slow jobs, GET /block?ms=1000, a call that blocks for a second, 6 times per second; four worker threads.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "1", "--workers", "4"],
    drive,
    rows: &[
        Row::new("ok", "fast jobs answered within 1 s").of("scheduled"),
        Row::new("timeouts", "fast jobs whose client gave up after 1 s"),
        Row::new("errors", "fast jobs that failed, these included"),
        Row::new("response.p90", "fast jobs, p90 latency"),
        Row::new("response.p50", "fast jobs, median latency"),
        Row::new("slow.ok", "slow jobs answered").of("slow.scheduled"),
        Row::new("slow.errors", "slow jobs refused or failed"),
    ],
    expect: &["correct.ok > 0", "correct.ok >= 5 * broken.ok", "broken.timeouts >= 5 * correct.timeouts", "broken.response.p90 >= 500ms"],
    happened,
    look: &[
        "cargo run --release -p server -- --loops 1 --workers 4 --mistake pool-starvation",
        "for i in 1 2 3 4; do curl -s 'http://127.0.0.1:8080/block?ms=5000' & done; time curl 'http://127.0.0.1:8080/spin?ms=1'",
        "ps -T -o tid,comm,stat,wchan:20 -p PID         # four workers sleep in hrtimer_nanosleep; none waits for a job",
        "curl -s http://127.0.0.1:9090/metrics | grep -e pool_jobs_running -e pool_queue_depth    # by class",
    ],
    code: Code { file: "worker-pool/src/resolved_config.rs", source: include_str!("../../../worker-pool/src/resolved_config.rs") },
    takes: Duration::from_secs(9),
};

fn drive(side: &mut Side<'_>) -> Result<Measured, String> {
    let (warmup, duration) = (Duration::from_secs(1), Duration::from_secs(if side.long() { 30 } else { 3 }));
    let host = side.authority();
    let fast = Class::get("fast", &host, FAST_PATH, Schedule::constant(FAST_RATE, warmup + duration), FAST_CONNECTIONS);
    let slow = Class::get("slow", &host, SLOW_PATH, Schedule::constant(SLOW_RATE, warmup + duration), SLOW_CONNECTIONS);
    let plan = side.plan(warmup, duration, vec![Class { timeout: FAST_PATIENCE, ..fast }, slow]);
    Ok(side.run(plan)?.into())
}

fn happened(contrast: &Contrast) -> String {
    let text = |name| (Contrast::text(&contrast.broken, name), Contrast::text(&contrast.correct, name));
    let (broken_ok, correct_ok) = text("ok");
    let (broken, correct) = text("response.p90");
    format!(
        "With every thread occupied by calls that block, {broken_ok} fast jobs were answered in time, and p90 of all was {broken}; with half \
         of the threads reserved for fast jobs {correct_ok} were, p90 {correct}."
    )
}
