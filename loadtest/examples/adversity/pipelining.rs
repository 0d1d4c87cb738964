//! 4,000 clients connect and pipeline 768 requests each, as fast as one CPU can, next to a light client that pings, and a newcomer that
//! connects when all 4,000 have.
//!
//! A turn that is bounded in counts alone is long here: 32 accepts, and 128 requests for each connection that has more. The ping waits
//! for one such turn. The newcomer waits for 125 of them, because 4,000 connections are before it in the accept queue. With
//! `--connected-before` all 4,000 become readable at once instead, so the kernel's list of events is the queue, and the ping waits
//! in it too.
//!
//! The light clients are looked at between any two calls for the heavy ones; `looked at every` says how far apart that was, which is
//! the error of every latency here. The next ping is due 1 ms after the last answer, so a ping that waits for 500 ms counts once, although
//! a request due at any moment of that time would have waited. *At any moment* is the same corrected for that omission, as if a ping
//! had been due each millisecond (`record_correct` of HdrHistogram). Read next: `light.rs`.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use loadtest::histogram::histogram;
use loadtest::units::{as_us, microseconds};

use crate::client::{Client, Found, REQUEST, open_served};
use crate::light::{Light, Newcomer, Short};
use crate::pipeline::{Pipeline, connect_served};
use crate::target::Target;
use crate::{Args, median, summary_with_range};

/// What a heavy client reads at a time: about 10 µs.
const READ_BYTES: usize = 64 << 10;
/// A round that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// One figure of each round.
#[derive(Default)]
struct Rounds {
    total: Vec<u64>,
    p50: Vec<u64>,
    p99: Vec<u64>,
    max: Vec<u64>,
    any_p50: Vec<u64>,
    any_p99: Vec<u64>,
    pings: Option<Histogram<u64>>,
    first_answer: Vec<u64>,
    requests_per_second: Vec<u64>,
    answered_per_second: Vec<u64>,
    ended_per_second: Vec<u64>,
}

pub(crate) fn run(args: &Args) -> io::Result<()> {
    let mut rounds = Rounds::default();
    for _ in 0..args.rounds {
        round(args, &mut rounds)?;
    }
    println!("{}; requests/s: median {}", summary_with_range("all answered in", &rounds.total), median(rounds.requests_per_second));
    println!(
        "{}; {}; {}",
        summary_with_range("ping p50", &rounds.p50),
        summary_with_range("p99", &rounds.p99),
        summary_with_range("max", &rounds.max)
    );
    println!("{}; {}", summary_with_range("at any moment p50", &rounds.any_p50), summary_with_range("p99", &rounds.any_p99));
    if let Some(pings) = &rounds.pings {
        let [p50, p90] = [0.5, 0.9].map(|q| microseconds(pings.value_at_quantile(q)));
        println!("all {} pings of all rounds: p50 {p50}, p90 {p90}", pings.len());
    }
    let served = rounds.first_answer.len();
    println!("{}; {served} of {} newcomers served", summary_with_range("the newcomer's first answer", &rounds.first_answer), args.rounds);
    if args.short_connections > 0 {
        let (answered, ended) = (median(rounds.answered_per_second), median(rounds.ended_per_second));
        println!("short connections: median {answered} answered a second, {ended} closed by the server a second");
    }
    Ok(())
}

fn round(args: &Args, rounds: &mut Rounds) -> io::Result<()> {
    let target = Target::start(&args.server)?;
    let (_probe, response_bytes) = connect_served(target.address)?;
    let mut flood = Flood::new(target.address, response_bytes, args);
    if args.connected_before {
        flood.connect_all()?;
    }
    let mut light = Light::connect(target.address)?;
    let until = Instant::now() + args.time;
    while Instant::now() < until {
        light.step()?;
    }
    let quiet = light.take_seen();
    // Under SCHED_FIFO a thread that never sleeps loses its CPU for 50 ms in each second (sched(7), sched_rt_runtime_us).
    std::thread::sleep(Duration::from_secs(1));
    let (turns_before, cpu_before) = (target.turns()?, target.cpu());
    light.restart();
    let mut short = Short::new(target.address, args.short_connections);
    let mut newcomer: Option<Newcomer> = None;
    let begun = Instant::now();
    let mut total = None;
    loop {
        light.step()?;
        short.step()?;
        match &mut newcomer {
            Some(newcomer) => newcomer.step(),
            None if flood.have_all_sent() => newcomer = Some(Newcomer::connect(target.address)?),
            None => {}
        }
        if !flood.step()? {
            total = total.or_else(|| Some(begun.elapsed()));
            if newcomer.as_ref().is_some_and(|newcomer| newcomer.first.is_some()) {
                break;
            }
        }
        if begun.elapsed() > PATIENCE {
            return Err(io::Error::other(format!("after {PATIENCE:?} {} clients have not all their answers", flood.active.len())));
        }
    }
    let total = total.unwrap_or_else(|| begun.elapsed());
    let cpu = target.cpu() - cpu_before;
    let seen = light.take_seen();
    let turns = target.turns()?;

    let requests = flood.done.len() as u64 * args.requests * args.batches;
    let rate = requests as f64 / total.as_secs_f64();
    let [p50, p99] = [0.5, 0.99].map(|q| seen.response.value_at_quantile(q));
    let [any_p50, any_p99] = [0.5, 0.99].map(|q| seen.at_any_moment.value_at_quantile(q));
    println!(
        "{} x {} x {} answered in {}: {rate:.0} requests/s, {:.2} µs of CPU each, the server {:.0} % busy; ping p50 {} p99 {} max {}, at any moment p50 {} p99 {} ({} pings, {} errors; before: p50 {} max {}; looked at every {} at p99, {} at most)",
        flood.done.len(),
        args.batches,
        args.requests,
        microseconds(as_us(total)),
        cpu.as_secs_f64() * 1e6 / requests.max(1) as f64,
        cpu.as_secs_f64() / total.as_secs_f64() * 100.0,
        microseconds(p50),
        microseconds(p99),
        microseconds(seen.response.max()),
        microseconds(any_p50),
        microseconds(any_p99),
        seen.response.len(),
        seen.errors,
        microseconds(quiet.response.value_at_quantile(0.5)),
        microseconds(quiet.response.max()),
        microseconds(seen.apart.value_at_quantile(0.99)),
        microseconds(seen.apart.max()),
    );
    if let Some(Newcomer { came, first: Some((found, took)), .. }) = newcomer {
        let after = microseconds(as_us(came - begun));
        println!("  newcomer after {after}: {found:?} after {}; {}", microseconds(as_us(took)), turns.text_since(&turns_before));
        if found == Found::Answer(200) {
            rounds.first_answer.push(as_us(took));
        }
    }
    if args.short_connections > 0 {
        let per_second = |count: u64| count as f64 / total.as_secs_f64();
        let (answered, ended) = (per_second(short.answered), per_second(short.ended));
        println!(
            "  short connections: {answered:.0} answered a second, {ended:.0} closed by the server a second ({} at once, {} errors)",
            args.short_connections, short.errors
        );
        rounds.answered_per_second.push(answered as u64);
        rounds.ended_per_second.push(ended as u64);
    }
    rounds.total.push(as_us(total));
    rounds.requests_per_second.push(rate as u64);
    rounds.p50.push(p50);
    rounds.p99.push(p99);
    rounds.max.push(seen.response.max());
    rounds.any_p50.push(any_p50);
    rounds.any_p99.push(any_p99);
    rounds.pings.get_or_insert_with(histogram).add(&seen.response).map_err(io::Error::other)?;
    Ok(())
}

/// The heavy clients.
struct Flood {
    address: SocketAddr,
    response_bytes: u64,
    /// Clients that connect when their first call comes.
    unconnected: usize,
    /// Clients that are connected and still wait for answers.
    active: Vec<Pipeline>,
    done: Vec<Pipeline>,
    /// Which of the active ones has the next call.
    next: usize,
    /// Clients whose first write has been made.
    first_writes: usize,
    /// Requests that each sends at a time, and how many times: the next batch follows the last answer to the one before.
    batch_requests: u64,
    batches: u64,
    block: Vec<u8>,
    input: Vec<u8>,
}

impl Flood {
    fn new(address: SocketAddr, response_bytes: u64, args: &Args) -> Flood {
        let clients = args.connections.unwrap_or(4000);
        Flood {
            address,
            response_bytes,
            unconnected: clients,
            active: Vec::with_capacity(clients),
            done: Vec::with_capacity(clients),
            next: 0,
            first_writes: 0,
            batch_requests: args.requests,
            batches: args.batches,
            // One more than is sent: a write that continues a cut request begins within the first.
            block: REQUEST.repeat(args.requests as usize + 1),
            input: vec![0; READ_BYTES],
        }
    }

    /// Connects all, and has each served once.
    fn connect_all(&mut self) -> io::Result<()> {
        for client in open_served(self.address, std::mem::take(&mut self.unconnected))? {
            self.adopt(client)?;
        }
        Ok(())
    }

    fn adopt(&mut self, client: Client) -> io::Result<()> {
        client.reset_at_close()?;
        self.active.push(Pipeline::new(client.into_stream(), self.response_bytes)?);
        Ok(())
    }

    fn have_all_sent(&self) -> bool {
        self.unconnected == 0 && self.first_writes >= self.active.len() + self.done.len()
    }

    /// Makes the next client's calls. At first that is a connect, if there was none, and a write. Once all clients have made these: a write
    /// if the client has something to send, and a read. Returns false when all have all their answers.
    fn step(&mut self) -> io::Result<bool> {
        if self.unconnected > 0 {
            self.unconnected -= 1;
            self.adopt(Client::connect(self.address, 2)?)?;
            self.next = self.active.len() - 1;
        } else if self.active.is_empty() {
            return Ok(false);
        } else {
            self.next = if self.next + 1 < self.active.len() { self.next + 1 } else { 0 };
        }
        let all_have_sent = self.have_all_sent();
        let client = &mut self.active[self.next];
        let may_be_sent = (client.answered() / self.batch_requests + 1).min(self.batches) * self.batch_requests;
        if client.unsent_bytes(may_be_sent) > 0 {
            client.write(&self.block, may_be_sent)?;
        }
        if !all_have_sent {
            self.first_writes += 1;
            return Ok(true);
        }
        client.read(&mut self.input)?;
        if client.answered() == self.batch_requests * self.batches {
            self.done.push(self.active.swap_remove(self.next));
        }
        Ok(!self.active.is_empty())
    }
}
