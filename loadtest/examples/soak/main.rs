//! A soak: mixed load for a given time, while the server's memory, descriptors and threads are sampled once a second. Fails when they grow.
//!
//! `cargo run --release -p loadtest --example soak -- --time 1h --plot soak.svg`. The server under test is this program again. The load is paced and
//! far below the server's capacity: about 400 requests a second on kept connections, 100 short connections a second (of which most leave without
//! their response), 150 slow clients, malformed requests and jobs that panic. It fails (exit code 1) when
//!
//! - memory, descriptors or threads are higher in the last third of the run than in the second third, by more than `growth.rs` allows,
//! - or, after the last client has disconnected, the server has more descriptors or threads than before the first one came,
//! - or the server has ended, or has closed a connection of a client that did nothing wrong.
//!
//! `--leak` proves that it can fail: the server then leaks 1 KiB for each `GET /`.

mod growth;
mod load;
mod plot;

use std::cell::RefCell;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use growth::Sample;
use load::Load;
use loadtest::child::{READY_TIMEOUT, STOP_GRACE, Server, this_program_as_server};
use server::answer::Answer;
use server::http::Request;
use server::process;
use server::routes::Routes;
use server::service::Service;
use server::units::duration_above_zero;

/// How long the server may take to close what its last clients left. Its own limits are far below: a lingering close of 2 s at most, and jobs of
/// clients that have disconnected.
const CLOSING_MAX: Duration = Duration::from_secs(30);

/// Three times the ramp of the load and some: the first third of a run is the warm-up.
const TIME_MIN: Duration = Duration::from_secs(30);

/// The server's own timeouts, so that slow clients are timed out and come again within a short run.
const SERVER_ARGS: &[&str] = &["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--header-timeout", "10s", "--idle-timeout", "60s"];

/// Load for a given time, and whether the server grows.
#[derive(Debug, Parser)]
#[command(name = "soak", max_term_width = 110)]
struct Args {
    /// How long the load lasts. At least 30 s: the first third is the warm-up
    #[arg(long, default_value = "60s", value_parser = duration_above_zero)]
    time: Duration,
    /// Writes the samples as an SVG plot to this file
    #[arg(long)]
    plot: Option<PathBuf>,
    /// The server leaks 1 KiB for each `GET /`, and the run must fail
    #[arg(long)]
    leak: bool,
}

fn main() -> ExitCode {
    let mut words: Vec<_> = std::env::args_os().collect();
    match words.get(1).and_then(|word| word.to_str()) {
        Some("serve") => {
            words.remove(1);
            return server::demo::cli(words);
        }
        Some("serve-leaking") => {
            words.remove(1);
            return server::run::program(words, |_| || Leaking { routes: server::demo::routes(None), leaked: RefCell::default() });
        }
        _ => {}
    }
    match run(&Args::parse()) {
        Ok(failures) if failures.is_empty() => ExitCode::SUCCESS,
        Ok(failures) => {
            failures.iter().for_each(|failure| eprintln!("soak: {failure}"));
            ExitCode::FAILURE
        }
        Err(e) => {
            eprintln!("soak: {e}");
            ExitCode::FAILURE
        }
    }
}

/// The same service with a leak.
struct Leaking {
    routes: Routes,
    leaked: RefCell<Vec<Vec<u8>>>,
}

impl Service for Leaking {
    fn call(&mut self, request: &Request<'_>, now: Instant) -> Answer {
        if request.path == "/" {
            // Not zeros, which calloc(3) takes from the kernel without touching them.
            self.leaked.borrow_mut().push(vec![1; 1024]);
        }
        self.routes.call(request, now)
    }
}

fn sample(pid: u32, since: Instant) -> Result<Sample, String> {
    let failed = |e| format!("the server cannot be sampled: {e}");
    Ok(Sample {
        at_ms: since.elapsed().as_millis() as u64,
        resident_bytes: process::usage_of(pid).map_err(failed)?.resident_bytes,
        descriptors: process::open_descriptors_of(pid).map_err(failed)?,
        threads: process::threads_of(pid).map_err(failed)?.len() as u64,
    })
}

fn run(args: &Args) -> Result<Vec<String>, String> {
    if args.time < TIME_MIN {
        return Err(format!("--time {:?} is too short; allowed: at least {} s", args.time, TIME_MIN.as_secs()));
    }
    let mut command = this_program_as_server(SERVER_ARGS.iter().copied());
    if args.leak {
        command = std::process::Command::new(command.get_program());
        command.arg("serve-leaking").args(SERVER_ARGS);
    }
    // Jobs that panic are a part of the load; each would be a line.
    command.env("RUST_LOG", "off");
    let mut server = Server::start(command, READY_TIMEOUT)?;
    let started = Instant::now();
    let before = sample(server.pid, started)?;
    println!("{} s of load against pid {}; before: {before:?}", args.time.as_secs(), server.pid);
    let mut samples = Vec::new();
    let mut load = Load::new(server.http);
    let mut next_sample = started + Duration::from_secs(1);
    let mut next_tick = started;
    while started.elapsed() < args.time {
        load.tick();
        let now = Instant::now();
        if now >= next_sample {
            samples.push(sample(server.pid, started)?);
            next_sample += Duration::from_secs(1);
        }
        // A tick that was late is not made up for: the load is lower then, and not a burst.
        next_tick = (next_tick + load::TICK).max(now);
        std::thread::sleep(next_tick.saturating_duration_since(now));
    }
    let counts = load.counts;
    drop(load);
    println!("{counts:?}");
    let after = wait_until_closed(server.pid, started, &before)?;
    println!("after the last client: {after:?}");
    let mut failures: Vec<String> = Vec::new();
    for growth in growth::judge(&samples) {
        println!("{growth}");
        failures.extend((!growth.is_within_limit()).then(|| growth.to_string()));
    }
    for (name, before, after) in [("descriptors", before.descriptors, after.descriptors), ("threads", before.threads, after.threads)] {
        if after > before {
            failures.push(format!("{before} {name} before the first client, {after} after the last one"));
        }
    }
    if counts.steady_lost > 0 || counts.connects_failed > 0 {
        failures.push(format!("clients that did nothing wrong lost their connection: {counts:?}"));
    }
    if !server.is_alive() {
        failures.push(format!("the server has ended: {}", server.stderr_tail()));
    }
    if let Some(path) = &args.plot {
        let title = format!(
            "{} of mixed load: {} requests on kept connections, {} short connections",
            time_in_words(args.time),
            counts.steady_requests,
            counts.short_connections
        );
        std::fs::write(path, plot::svg(&title, &samples)).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        println!("plot: {}", path.display());
    }
    server.stop(STOP_GRACE);
    Ok(failures)
}

fn time_in_words(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

/// Samples until the server has no more descriptors than before.
fn wait_until_closed(pid: u32, started: Instant, before: &Sample) -> Result<Sample, String> {
    let until = Instant::now() + CLOSING_MAX;
    loop {
        let after = sample(pid, started)?;
        if after.descriptors <= before.descriptors || Instant::now() >= until {
            return Ok(after);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
