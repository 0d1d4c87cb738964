//! Jobs of 20 ms at more than the server can do, from clients that leave when their patience ends, next to 200 light requests per second
//! (`unbounded-queue`, `queue-order`, `departed-clients`, `no-admission`, `blocked-health-check`, `cpu-contention`).
//!
//! First the capacity: what a closed loop gets. Then the open loop, which does not wait for answers: `--overload` times the capacity. A
//! client that has waited 500 ms closes its connection, and the next job comes on a new one. What counts is what was answered in time in the
//! last half, when every queue that can grow has grown. Then silence, and after 0.1 s a single job.

use std::io;
use std::time::{Duration, Instant};

use loadtest::units::{as_us, microseconds};

use crate::jobs::{Jobs, one_job};
use crate::others::Others;
use crate::target::Target;
use crate::{Args, summary};

const OTHERS_PER_SECOND: u32 = 200;
/// How long a client waits for its job.
const PATIENCE: Duration = Duration::from_millis(500);
/// The load lasts this many times `--time`: 12 s by default.
const LOAD_TIMES: u32 = 6;
/// Between the end of the load and the single job.
const PAUSE: Duration = Duration::from_millis(100);
/// A single job that takes longer than this is not served.
const SINGLE_JOB_MAX: Duration = Duration::from_secs(30);

pub(crate) fn run(args: &Args) -> io::Result<()> {
    let (mut shares, mut refusals, mut lights, mut singles) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let target = Target::start(&args.server)?;
        let capacity = Jobs::capacity(target.address, args.time)?;
        let mut memory = vec![target.resident_kib()];

        let mut others = Others::connect(target.address, OTHERS_PER_SECOND)?;
        let mut jobs = Jobs::new(target.address, PATIENCE, args.reset);
        others.restart();
        jobs.start(capacity * args.overload);
        let (begun, half) = (Instant::now(), args.time * LOAD_TIMES / 2);
        run_until(&mut jobs, &mut others, begun + half)?;
        memory.push(target.resident_kib());
        let first = jobs.take_ended();
        run_until(&mut jobs, &mut others, begun + 2 * half)?;
        memory.push(target.resident_kib());
        let last = jobs.take_ended();
        let light = others.take_seen();

        jobs.stop();
        run_until(&mut jobs, &mut others, Instant::now() + PAUSE)?;
        let (single, status) = one_job(target.address, SINGLE_JOB_MAX)?;
        memory.push(target.resident_kib());

        let share = last.served.len() as f64 / half.as_secs_f64() / capacity;
        let memory: Vec<String> = memory.iter().map(u64::to_string).collect();
        println!(
            "capacity {capacity:.1}/s; {:.1}/s for {:?}; last half: goodput {share:.2} (p50 {}, p99 {}), {} of {} refused (p99 {}), {} left, {} \
             broken (first half: {} served, {} refused, {} left); GET / p50 {} p99 {} max {} ({} errors, late p99 {} max {}); a single job {} \
             ({status}); resident KiB {}",
            capacity * args.overload,
            2 * half,
            microseconds(last.served.value_at_quantile(0.5)),
            microseconds(last.served.value_at_quantile(0.99)),
            last.refused.len(),
            last.offered,
            microseconds(last.refused.value_at_quantile(0.99)),
            last.left,
            last.broken,
            first.served.len(),
            first.refused.len(),
            first.left,
            microseconds(light.response.value_at_quantile(0.5)),
            microseconds(light.response.value_at_quantile(0.99)),
            microseconds(light.response.max()),
            light.errors,
            microseconds(light.late.value_at_quantile(0.99)),
            microseconds(light.late.max()),
            microseconds(as_us(single)),
            memory.join(", "),
        );
        shares.push((share * 100.0) as u64);
        refusals.push(last.refused.value_at_quantile(0.99));
        lights.push(light.response.value_at_quantile(0.99));
        singles.push(as_us(single));
    }
    shares.sort_unstable();
    println!(
        "goodput: median {}%, worst round {}%; {}; {}; {}",
        crate::median(shares.clone()),
        shares.first().copied().unwrap_or(0),
        summary("refusals p99", &refusals),
        summary("GET / p99", &lights),
        summary("a single job after", &singles),
    );
    Ok(())
}

fn run_until(jobs: &mut Jobs, others: &mut Others, until: Instant) -> io::Result<()> {
    loop {
        let now = Instant::now();
        if now >= until {
            return Ok(());
        }
        others.step(now);
        jobs.step(now)?;
    }
}
