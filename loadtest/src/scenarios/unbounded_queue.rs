//! `unbounded-queue`: twice the work that a worker can do, in front of a queue that takes all of it.
//!
//! A job costs 0.4 ms of CPU time, so one worker does at most 2,500 a second on any machine, and 5,000 a second are at least twice that: nothing has to
//! be measured first. How much of it the worker gets done depends on the machine; both sides count it themselves.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use server::process;

use crate::admin;
use crate::contrast::Contrast;
use crate::deserters::{Deserters, Ended};
use crate::figures::{Figure, Unit};
use crate::scenario::{Code, Measured, MistakeIn, Scenario, Side};

/// One job.
const JOB: &str = "/spin?us=400";
/// Jobs a second: twice what one worker can do at best.
const RATE: f64 = 5_000.0;
/// How long a client waits for its job.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between two looks at the clients, of whom there may be 2,500.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// Between two rounds of those who come.
const COME_PAUSE: Duration = Duration::from_millis(1);
/// Between two looks at the queue.
const SAMPLE_PAUSE: Duration = Duration::from_millis(100);
/// What the pool has run to its end, for whomever.
const DONE: &str = "pool_jobs_ended_total{outcome=\"done\"}";

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "unbounded-queue",
    title: "a queue that takes everything",
    cause: "The queue in front of the workers has no bound and forgets nobody, so at an overload each job waits longer than the one before it, and \
            soon longer than its client.",
    load: "GET /spin?us=400, 5000 a second, twice what one worker can do; who has waited 500 ms leaves, and the next one comes.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "1", "--workers", "1"],
    drive,
    rows: &["goodput", "throughput", "useful", "queue_max", "memory_growth_mib", "asked", "served", "refused", "left", "broken"],
    expect: &[
        "correct.goodput >= 5 * broken.goodput",
        "broken.useful <= 10%",
        "correct.useful >= 50%",
        "correct.goodput >= 0.5 * broken.throughput",
        "broken.queue_max >= 5 * correct.queue_max",
    ],
    happened,
    look: &[
        "cargo run --release -p server -- --loops 1 --workers 1 --mistake unbounded-queue",
        "cargo run --release -p loadtest -- run 'http://127.0.0.1:8080/spin?us=400' -R 5000 --timeout 500ms -d 30s     # a second terminal",
        "watch -n1 \"curl -s http://127.0.0.1:9090/metrics | grep -E '^pool_(queue_depth|queue_oldest_age)'\"          # only ever up",
        "grep VmRSS /proc/PID/status                      # the same",
        "ps -T -o tid,comm,pcpu -p PID                    # worker-0 works without a pause: nothing looks wrong from here",
    ],
    code: Code { file: "worker-pool/src/rules.rs", source: include_str!("../../../worker-pool/src/rules.rs") },
};

/// What was found at one moment.
struct Moment {
    at: Instant,
    done: f64,
    ended: Ended,
}

impl Moment {
    fn now(side: &Side<'_>, clients: &Deserters) -> Result<Moment, String> {
        let page = admin::metrics(side.admin).map_err(|e| format!("/metrics: {e}"))?;
        let done = admin::sample(&page, DONE).map_err(|e| e.to_string())?;
        Ok(Moment { at: Instant::now(), done, ended: clients.ended })
    }
}

fn drive(side: &mut Side<'_>) -> Result<Measured, String> {
    let half = Duration::from_secs(if side.long() { 18 } else { 2 });
    let memory = || process::usage_of(side.pid).map(|usage| usage.resident_bytes).map_err(|e| format!("/proc/{}/status: {e}", side.pid));
    let memory_before = memory()?;
    let mut clients = Deserters::new(side.http, side.from, JOB, PATIENCE);
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
    clients.leave().map_err(|e| format!("a client failed: {e}"))?;

    let seconds = (end.at - middle.at).as_secs_f64();
    let (served, done) = (end.ended.served - middle.ended.served, end.done - middle.done);
    let number = |value: f64| Figure { value, unit: Unit::Number };
    Ok(Measured::default()
        .with("goodput", number(served as f64 / seconds))
        .with("throughput", number(done / seconds))
        .with("useful", Figure { value: (served as f64 / done.max(1.0)).min(1.0), unit: Unit::Share })
        .with("queue_max", number(queue_max))
        .with("memory_growth_mib", number(memory_growth as f64 / f64::from(1 << 20)))
        .with("asked", Figure::count(end.ended.asked))
        .with("served", Figure::count(end.ended.served))
        .with("refused", Figure::count(end.ended.refused))
        .with("left", Figure::count(end.ended.left))
        .with("broken", Figure::count(end.ended.broken)))
}

/// Lets clients come as they are due, and looks at them, until that time.
fn run_until(clients: &mut Deserters, begin: Instant, come: &mut u64, until: Instant, interrupted: &AtomicBool) -> Result<(), String> {
    let mut look_at = Instant::now();
    while !interrupted.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now >= until {
            return Ok(());
        }
        while begin + Duration::from_secs_f64(*come as f64 / RATE) <= now {
            clients.come(begin + Duration::from_secs_f64(*come as f64 / RATE));
            *come += 1;
            if Instant::now() >= look_at {
                break; // The answers first, or a machine that is too slow for the rate would never look at them.
            }
        }
        if Instant::now() >= look_at {
            clients.look().map_err(|e| format!("a client failed: {e}"))?;
            look_at = Instant::now() + LOOK_PAUSE;
        }
        std::thread::sleep(COME_PAUSE);
    }
    Ok(())
}

/// The longest queue that is seen until it is over.
fn queue_max(admin: std::net::SocketAddr, over: &AtomicBool) -> std::io::Result<f64> {
    let mut most = 0.0_f64;
    loop {
        most = most.max(admin::sample(&admin::metrics(admin)?, "pool_queue_depth{class=\"fast\"}")?);
        if over.load(Ordering::Relaxed) {
            return Ok(most);
        }
        std::thread::sleep(SAMPLE_PAUSE);
    }
}

fn happened(contrast: &Contrast) -> String {
    let text = |name| (Contrast::text(&contrast.broken, name), Contrast::text(&contrast.correct, name));
    format!(
        "The queue grew to {} jobs and the memory by {} MiB, and of {} jobs that the worker did each second {} were of use to anybody; with a bound on \
         the wait the queue stayed under {}, and {} a second were answered in time.",
        text("queue_max").0,
        text("memory_growth_mib").0,
        text("throughput").0,
        text("goodput").0,
        text("queue_max").1,
        text("goodput").1,
    )
}
