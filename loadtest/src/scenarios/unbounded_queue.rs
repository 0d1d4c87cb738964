//! `unbounded-queue`: twice the work that a worker can do, and a queue that accepts all of it.
//!
//! A job costs 0.4 ms of CPU time, so one worker completes at most 2,500 per second on any machine, and 5,000 per second are at least twice
//! that: no capacity has to be measured first. How many jobs the worker completes depends on the machine; the server counts them on both sides.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use server::process;

use crate::contrast::Contrast;
use crate::impatient_clients::{Ended, ImpatientClients};
use crate::results_by_name::{Figure, Unit};
use crate::scenario::{Code, MistakeIn, Row, Scenario};
use crate::server_metrics;
use crate::side::{Measured, Side};

/// One job.
const JOB: &str = "/spin?us=400";
/// Jobs per second: twice what one worker can do at best.
const RATE: f64 = 5_000.0;
/// How long a client waits for its response.
const PATIENCE: Duration = Duration::from_millis(500);
/// Pause between two reads of all clients, of which there may be 2,500.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// Pause between two rounds of new clients.
const COME_PAUSE: Duration = Duration::from_millis(1);
/// Pause between two samples of the queue.
const SAMPLE_PAUSE: Duration = Duration::from_millis(100);
/// Jobs that the pool completed, whether or not their client still waits.
const DONE: &str = "pool_jobs_ended_total{outcome=\"done\"}";

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "unbounded-queue",
    title: "a queue without a bound",
    cause: "The queue in front of the workers has no bound and keeps the jobs of clients that have disconnected, so under overload each job waits \
            longer than the one before it, and soon longer than its client.",
    load: "GET /spin?us=400, 5,000 times per second, twice what one worker can do; a client that has waited 500 ms disconnects.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "1", "--workers", "1"],
    drive,
    rows: &[
        Row::new("goodput", "jobs answered within 500 ms, per second"),
        Row::new("throughput", "jobs completed by the worker, per second"),
        Row::new("answered_in_time", "completed jobs whose client still waited"),
        Row::new("queue_max", "longest queue, in jobs"),
        Row::new("memory_growth_mib", "memory growth of the server").unit("MiB"),
        Row::new("answered", "requests answered in time, all seconds").of("requests"),
        Row::new("rejected", "requests rejected at once with 503").of("requests"),
        Row::new("abandoned", "requests whose client gave up after 500 ms").of("requests"),
        Row::new("connections_lost", "requests whose connection failed").of("requests"),
    ],
    expect: &[
        "correct.goodput >= 5 * broken.goodput",
        "broken.answered_in_time <= 10%",
        "correct.answered_in_time >= 50%",
        "correct.goodput >= 0.5 * broken.throughput",
        "broken.queue_max >= 5 * correct.queue_max",
    ],
    happened,
    look: &[
        "cargo run --release -p server -- --loops 1 --workers 1 --mistake unbounded-queue",
        "cargo run --release -p loadtest -- run 'http://127.0.0.1:8080/spin?us=400' -R 5000 --timeout 500ms -d 30s     # a second terminal",
        "watch -n1 \"curl -s http://127.0.0.1:9090/metrics | grep -E '^pool_(queue_depth|queue_oldest_age)'\"          # grows without end",
        "grep VmRSS /proc/PID/status                      # grows as well",
        "ps -T -o tid,comm,pcpu -p PID                    # worker-0 computes without a pause: nothing looks wrong from here",
    ],
    code: Code { file: "worker-pool/src/resolved_config.rs", source: include_str!("../../../worker-pool/src/resolved_config.rs") },
    takes: Duration::from_secs(9),
};

/// The counts at one moment.
struct Moment {
    at: Instant,
    done: f64,
    ended: Ended,
}

impl Moment {
    fn now(side: &Side<'_>, clients: &ImpatientClients) -> Result<Moment, String> {
        let page = server_metrics::metrics(side.admin).map_err(|e| format!("/metrics: {e}"))?;
        let done = server_metrics::sample(&page, DONE).map_err(|e| e.to_string())?;
        Ok(Moment { at: Instant::now(), done, ended: clients.ended })
    }
}

fn drive(side: &mut Side<'_>) -> Result<Measured, String> {
    let half = Duration::from_secs(if side.long() { 18 } else { 2 });
    let memory = || process::usage_of(side.pid).map(|usage| usage.resident_bytes).map_err(|e| format!("/proc/{}/status: {e}", side.pid));
    let memory_before = memory()?;
    let mut clients = ImpatientClients::new(side.http, side.from, JOB, PATIENCE);
    let over = AtomicBool::new(false);
    let (middle, end, queue_max) = std::thread::scope(|scope| {
        let (admin, over) = (side.admin, &over);
        let sampler = scope.spawn(move || queue_max(admin, over));
        let driven = (|| {
            let begin = Instant::now();
            let mut come = 0;
            run_until(&mut clients, begin, &mut come, begin + half, side.interrupted())?;
            let middle = Moment::now(side, &clients)?;
            run_until(&mut clients, begin, &mut come, begin + 2 * half, side.interrupted())?;
            Ok::<_, String>((middle, Moment::now(side, &clients)?))
        })();
        over.store(true, Ordering::Relaxed);
        let queue_max = sampler.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let (middle, end) = driven?;
        Ok::<_, String>((middle, end, queue_max.map_err(|e| format!("/metrics: {e}"))?))
    })?;
    let memory_growth = memory()?.saturating_sub(memory_before);
    clients.disconnect_all().map_err(|e| format!("a client failed: {e}"))?;

    let seconds = (end.at - middle.at).as_secs_f64();
    let (served, done) = (end.ended.answered - middle.ended.answered, end.done - middle.done);
    let number = |value: f64| Figure::number(value);
    Ok(Measured::default()
        .with("goodput", number(served as f64 / seconds))
        .with("throughput", number(done / seconds))
        .with("answered_in_time", Figure::exactly((served as f64 / done.max(1.0)).min(1.0), Unit::Share))
        .with("queue_max", number(queue_max))
        .with("memory_growth_mib", number(memory_growth as f64 / f64::from(1 << 20)))
        .with("requests", Figure::count(end.ended.requests))
        .with("answered", Figure::count(end.ended.answered))
        .with("rejected", Figure::count(end.ended.rejected))
        .with("abandoned", Figure::count(end.ended.abandoned))
        .with("connections_lost", Figure::count(end.ended.failed)))
}

/// Starts clients when they are due, and reads what they receive, until that time.
fn run_until(
    clients: &mut ImpatientClients,
    begin: Instant,
    come: &mut u64,
    until: Instant,
    interrupted: &AtomicBool,
) -> Result<(), String> {
    let mut look_at = Instant::now();
    while !interrupted.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now >= until {
            return Ok(());
        }
        while begin + Duration::from_secs_f64(*come as f64 / RATE) <= now {
            clients.start(begin + Duration::from_secs_f64(*come as f64 / RATE));
            *come += 1;
            if Instant::now() >= look_at {
                break; // Responses first, or a machine that is too slow for the rate would never read them.
            }
        }
        if Instant::now() >= look_at {
            clients.read_all().map_err(|e| format!("a client failed: {e}"))?;
            look_at = Instant::now() + LOOK_PAUSE;
        }
        std::thread::sleep(COME_PAUSE);
    }
    Ok(())
}

/// The longest queue that was sampled until `over` is set.
fn queue_max(admin: std::net::SocketAddr, over: &AtomicBool) -> std::io::Result<f64> {
    let mut most = 0.0_f64;
    loop {
        most = most.max(server_metrics::sample(&server_metrics::metrics(admin)?, "pool_queue_depth{class=\"fast\"}")?);
        if over.load(Ordering::Relaxed) {
            return Ok(most);
        }
        std::thread::sleep(SAMPLE_PAUSE);
    }
}

fn happened(contrast: &Contrast) -> String {
    let text = |name| (Contrast::text(&contrast.broken, name), Contrast::text(&contrast.correct, name));
    format!(
        "The queue grew to {} jobs and memory by {} MiB; of {} jobs that the worker completed per second, {} were answered in time. With a bound \
         on the wait the queue held at most {}, and {} per second were answered in time.",
        text("queue_max").0,
        text("memory_growth_mib").0,
        text("throughput").0,
        text("goodput").0,
        text("queue_max").1,
        text("goodput").1,
    )
}
