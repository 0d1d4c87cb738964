//! 8,000 idle connections, each served once, close as fast as one CPU can close them, next to 500 requests per second of other clients (`close-stall`).

use std::io;
use std::time::{Duration, Instant};

use loadtest::units::microseconds;

use crate::client::open_served;
use crate::others::Others;
use crate::target::Target;
use crate::{Args, summary};

const OTHERS_PER_SECOND: u32 = 500;
/// Closes between two looks at the others: about 50 µs.
const CLOSES_PER_STEP: usize = 8;

pub(crate) fn run(args: &Args) -> io::Result<()> {
    let (mut quiet_worsts, mut worsts, mut turn_worsts) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let target = Target::start(&args.server)?;
        let mut others = Others::connect(target.address, OTHERS_PER_SECOND)?;
        let mut idle = open_served(target.address, args.connections.unwrap_or(8000))?;
        if args.reset {
            idle.iter().try_for_each(|client| client.reset_at_close())?;
        }
        std::thread::sleep(Duration::from_millis(200));
        others.restart();
        others.run_for(args.time);
        let quiet = others.take_seen();
        let (turns_before, cpu_before) = (target.turns()?, target.cpu());
        others.restart();
        let (connections, begun) = (idle.len(), Instant::now());
        while !idle.is_empty() {
            idle.truncate(idle.len().saturating_sub(CLOSES_PER_STEP));
            others.step(Instant::now());
        }
        let closed_in = begun.elapsed();
        others.run_for(args.time);
        let seen = others.finish();
        let (turns, cpu) = (target.turns()?, target.cpu() - cpu_before);
        println!(
            "{connections} closed in {closed_in:.0?}; others' worst {} (before: {}), p99 {} ({} answers, {} errors, late at most {}); {}; {:.1} µs of CPU a close, the others' requests among them",
            microseconds(seen.response.max()),
            microseconds(quiet.response.max()),
            microseconds(seen.response.value_at_quantile(0.99)),
            seen.response.len(),
            seen.errors,
            microseconds(seen.late.max()),
            turns.text_since(&turns_before),
            cpu.as_secs_f64() * 1e6 / connections.max(1) as f64,
        );
        turn_worsts.push(turns.longest_since(&turns_before));
        quiet_worsts.push(quiet.response.max());
        worsts.push(seen.response.max());
    }
    let turn_worst = summary("the server's longest turn at most", &turn_worsts);
    println!("{}; {}; {turn_worst}", summary("others' worst", &worsts), summary("with nobody closing", &quiet_worsts));
    Ok(())
}
