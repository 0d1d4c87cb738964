//! Eleven kinds of adversity, and what each costs the other clients of a server: any server, so that two can be compared.
//!
//! `cargo run --release -p loadtest --example adversity -- NAME --server 'COMMAND with {port}'`, where NAME is `firehose`, `mass-close`,
//! `connect-flood`, `descriptors`, `overload`, `mixed`, `never-read`, `newcomers`, `memory`, `slowloris` or `pipelining`. The server gets CPU 0, the clients CPU 1; only
//! loopback, every run bounded in time and count.
//!
//! All clients of a run live on one thread that never sleeps: a second thread on the same CPU would be measured by the scheduler's time
//! slices. The price is a step of the attack (a write, a read, eight closes) between two looks at the clock; `late` says what that was.
//! Read next: `others.rs` for what is measured, then the adversity of your choice.

mod client;
mod connect_flood;
mod descriptors;
mod firehose;
mod jobs;
mod light;
mod mass_close;
mod memory;
mod mixed;
mod never_read;
mod newcomers;
mod others;
mod overload;
mod pipeline;
mod pipelining;
mod slowloris;
mod sys;
mod target;
mod turns;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use loadtest::units::microseconds;
use server::units::duration_above_zero;

/// Measures what others pay for one adversity.
#[derive(Debug, Parser)]
#[command(name = "adversity", max_term_width = 110)]
struct Args {
    /// Which adversity.
    name: Name,
    /// The server's command; `{port}` becomes a free port, `{admin}` another one, where our server is asked how long its turns lasted. `nginx` alone stands for nginx with one worker and `return 200`.
    #[arg(long)]
    server: String,
    /// How often, each time with a fresh server.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// How long one measurement lasts.
    #[arg(long, default_value = "2s", value_parser = duration_above_zero)]
    time: Duration,
    /// firehose: requests that may be unanswered at a time; 0 is as many as the sockets take.
    #[arg(long, value_delimiter = ',', default_value = "16,64,256,0")]
    depth: Vec<u64>,
    /// mass-close, connect-flood, never-read, newcomers, memory, slowloris and pipelining: how many connections. [default: 8000, 5000, 300, 2000, 10000,
    /// 9500 and 4000]
    #[arg(long)]
    connections: Option<usize>,
    /// mass-close, overload, mixed: clients leave by a reset (SO_LINGER 0) instead of a FIN.
    #[arg(long)]
    reset: bool,
    /// never-read: what is asked for.
    #[arg(long, default_value = "/bytes?n=4194304")]
    path: String,
    /// descriptors: the server's limit.
    #[arg(long, default_value_t = 256)]
    limit: u64,
    /// descriptors: who is refused keeps its connection and says no more.
    #[arg(long)]
    silent: bool,
    /// pipelining: requests that each connection sends at once.
    #[arg(long, default_value_t = 768, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    requests: u64,
    /// pipelining: how many times each connection does so, each time after the last answer to the time before.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    batches: u64,
    /// pipelining: all connections are made, and served once, before the first of them sends; otherwise each is made as it begins to send.
    #[arg(long)]
    connected_before: bool,
    /// pipelining: short connections at a time next to the others; each is one request with `Connection: close`, read to the end.
    #[arg(long, default_value_t = 0)]
    short_connections: usize,
    /// overload: jobs offered as a multiple of the capacity.
    #[arg(long, default_value_t = 1.5)]
    overload: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// One connection pipelines as fast as it can
    Firehose,
    /// 8,000 idle connections close at once
    MassClose,
    /// 5,000 connections at 40,000 a second
    ConnectFlood,
    /// No descriptor is left, then 300 are given back
    Descriptors,
    /// Jobs of 20 ms beyond the capacity, for 6 times --time
    Overload,
    /// 30 jobs of 20 ms a second next to 1,000 light requests per second
    Mixed,
    /// 300 clients ask for 4 MiB and read nothing
    NeverRead,
    /// 2,000 clients ask for 1 GB and read nothing, next to 200 requests in two pieces and 200 downloads of 1 MB a second
    Newcomers,
    /// 10,000 connections with ten times the memory for bodies: resident memory against the sum of --check
    Memory,
    /// 9,500 clients send a byte of a head every 5 s, next to 50 newcomers per second
    Slowloris,
    /// 4,000 clients connect and pipeline 768 requests each, next to a light client that pings, and a newcomer
    Pipelining,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("adversity: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> io::Result<()> {
    reactor::os::descriptors::raise_descriptor_limit()?;
    sys::pin_to_cpu(1)?;
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("{:?} against: {}\nload average before: {}", args.name, args.server, load.split(' ').next().unwrap_or("?"));
    match args.name {
        Name::Firehose => firehose::run(args),
        Name::MassClose => mass_close::run(args),
        Name::ConnectFlood => connect_flood::run(args),
        Name::Descriptors => descriptors::run(args),
        Name::Overload => overload::run(args),
        Name::Mixed => mixed::run(args),
        Name::NeverRead => never_read::run(args),
        Name::Newcomers => newcomers::run(args),
        Name::Memory => memory::run(args),
        Name::Slowloris => slowloris::run(args),
        Name::Pipelining => pipelining::run(args),
    }
}

/// The middle one, or the lower of the two in the middle.
fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0)
}

/// `name median X, worst Y` of one figure in microseconds over all rounds.
fn summary(name: &str, values: &[u64]) -> String {
    let worst = values.iter().copied().max().unwrap_or(0);
    format!("{name}: median {}, worst round {}", microseconds(median(values.to_vec())), microseconds(worst))
}

/// `name: median X, A to B` of one figure in microseconds over all rounds.
fn summary_with_range(name: &str, values: &[u64]) -> String {
    let [least, most] = [values.iter().min(), values.iter().max()].map(|value| microseconds(value.copied().unwrap_or(0)));
    format!("{name}: median {}, {least} to {most}", microseconds(median(values.to_vec())))
}
