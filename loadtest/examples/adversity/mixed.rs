//! 30 jobs of 20 ms a second next to 1,000 light requests per second, on one core (`cpu-contention`): the pool must not delay the loop that
//! it shares the core with.

use std::io;
use std::time::{Duration, Instant};

use loadtest::units::microseconds;

use crate::jobs::Jobs;
use crate::others::Others;
use crate::target::Target;
use crate::{Args, summary};

const OTHERS_PER_SECOND: u32 = 1_000;
const JOBS_PER_SECOND: f64 = 30.0;
/// Nobody leaves: the jobs are six tenths of the core.
const PATIENCE: Duration = Duration::from_secs(5);
/// Before anything is counted.
const WARM_UP: Duration = Duration::from_millis(300);

pub(crate) fn run(args: &Args) -> io::Result<()> {
    let (mut p50s, mut p99s, mut worsts) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let target = Target::start(&args.server)?;
        let mut others = Others::connect(target.address, OTHERS_PER_SECOND)?;
        let mut jobs = Jobs::new(target.address, PATIENCE, args.reset);
        others.restart();
        jobs.start(JOBS_PER_SECOND);
        let mut until = Instant::now() + WARM_UP;
        let mut warm = false;
        loop {
            let now = Instant::now();
            if now >= until {
                if warm {
                    break;
                }
                warm = true;
                until = now + args.time;
                jobs.take_ended();
                others.take_seen();
            }
            others.step(now);
            jobs.step(now)?;
        }
        jobs.stop();
        let (light, ended) = (others.finish(), jobs.take_ended());
        println!(
            "{} light: p50 {}, p99 {}, max {} ({} errors, late p99 {} max {}); {} of {} jobs served (p50 {}), {} refused, {} broken",
            light.response.len(),
            microseconds(light.response.value_at_quantile(0.5)),
            microseconds(light.response.value_at_quantile(0.99)),
            microseconds(light.response.max()),
            light.errors,
            microseconds(light.late.value_at_quantile(0.99)),
            microseconds(light.late.max()),
            ended.served.len(),
            ended.offered,
            microseconds(ended.served.value_at_quantile(0.5)),
            ended.refused.len(),
            ended.broken,
        );
        p50s.push(light.response.value_at_quantile(0.5));
        p99s.push(light.response.value_at_quantile(0.99));
        worsts.push(light.response.max());
    }
    println!("{}; {}; {}", summary("light p50", &p50s), summary("p99", &p99s), summary("max", &worsts));
    Ok(())
}
