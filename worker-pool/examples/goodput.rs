//! Goodput of every discipline at 1.5 times the capacity, in virtual time: why the defaults are what they are.
//!
//! `cargo run --release -p worker-pool --example goodput`

use std::time::Duration;

use worker_pool::{Admission, Concurrency, Config, Discipline, Gradient};

mod model;
use model::{Figures, Load, simulate};

const SEEDS: u64 = 5;

fn main() {
    let ms = Duration::from_millis;
    let loads = [
        ("deadline unknown, clients leave", Load::default()),
        ("deadline unknown, leaving unseen", Load { leaves: false, ..Load::default() }),
        ("deadline known", Load { deadline_known: true, ..Load::default() }),
        ("jobs of 1 ms", Load { run: ms(1), patience: ms(100), ..Load::default() }),
        ("jobs of 100 ms, 2 s", Load { run: ms(100), patience: ms(2000), ..Load::default() }),
        ("0.7 of capacity + burst of 30", Load { times_capacity: 0.7, burst: 30, ..Load::default() }),
        ("0.95 of capacity", Load { times_capacity: 0.95, ..Load::default() }),
        ("3 times capacity", Load { times_capacity: 3.0, ..Load::default() }),
    ];
    let disciplines = [
        ("fifo", Discipline::Fifo),
        ("newest-first 100 ms", Discipline::NEWEST_FIRST),
        ("codel 5/100 ms", Discipline::CODEL),
        ("codel 20/100 ms", Discipline::CoDel { target: ms(20), interval: ms(100) }),
    ];
    let admissions = [
        ("number", Admission::Number, Duration::MAX, Duration::MAX),
        ("deadline", Admission::NumberAndWait, Duration::MAX, Duration::MAX),
        ("wait 400 ms", Admission::NumberAndWait, ms(400), ms(400)),
        ("wait 200 ms", Admission::NumberAndWait, ms(200), ms(200)),
        ("wait 100 ms", Admission::NumberAndWait, ms(100), ms(100)),
        ("wait 50 ms", Admission::NumberAndWait, ms(50), ms(50)),
        ("wait 20 ms", Admission::NumberAndWait, ms(20), ms(20)),
        // A burst may wait longer than a standing queue.
        ("200, then 100", Admission::NumberAndWait, ms(200), ms(100)),
        ("200, then 50", Admission::NumberAndWait, ms(200), ms(50)),
        ("200, then 20", Admission::NumberAndWait, ms(200), ms(20)),
        ("400, then 50", Admission::NumberAndWait, ms(400), ms(50)),
    ];
    println!("2 threads, queue_jobs_max 1024, runs spread by ±50 %, Poisson arrivals, mean of {SEEDS} seeds");
    println!("(goodput: of capacity, last half; p50/p99 of the answers in time)");
    for (name, load) in &loads {
        println!("\n{name}");
        println!("  {:<20} {:<13} goodput wasted   p50 ms  p99 ms refused  depth burst", "order", "admission");
        for (order, discipline) in disciplines {
            for (asked, admission, wait_max, standing_wait_max) in admissions {
                let mut config = config(admission, wait_max, standing_wait_max);
                config.policy.discipline = discipline;
                print_row(order, asked, &config, load);
            }
        }
        let mut config = config(Admission::Number, Duration::MAX, Duration::MAX);
        config.policy.concurrency = Concurrency::Gradient(Gradient::default());
        print_row("fifo", "gradient", &config, load);
    }
}

fn config(admission: Admission, wait_max: Duration, standing_wait_max: Duration) -> Config {
    Config::with(|config| {
        config.threads = 2;
        config.limits.wait_max = wait_max;
        config.limits.standing_wait_max = standing_wait_max;
        config.policy.admission = admission;
    })
}

fn print_row(order: &str, asked: &str, config: &Config, load: &Load) {
    let runs: Vec<Figures> = (1..=SEEDS).map(|seed| simulate(config, load, seed * 7919)).collect();
    let mean = |of: &dyn Fn(&Figures) -> f64| runs.iter().map(of).sum::<f64>() / runs.len() as f64;
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    println!(
        "  {order:<20} {asked:<13} {:>7.3} {:>6.3} {:>8.1} {:>7.1} {:>7.3} {:>6.0} {:>5.2}",
        mean(&|f| f.goodput),
        mean(&|f| f.wasted),
        mean(&|f| ms(f.latency_p50)),
        mean(&|f| ms(f.latency_p99)),
        mean(&|f| f.refused as f64 / f.offered as f64),
        mean(&|f| f.depth_max as f64),
        mean(&|f| f.burst_served),
    );
}
