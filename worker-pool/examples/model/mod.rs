//! A pool in virtual time: the pool's own queue and admission, with simulated threads and clients.
//!
//! Deterministic: the same seed gives the same figures on any machine. It leaves out context switches,
//! caches and other load.

#![allow(dead_code, missing_docs, unreachable_pub)] // Used by an example and a test, each using a part.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use worker_pool::admission::{self, ClassEstimate};
use worker_pool::gradient::GradientLimit;
use worker_pool::queue::{Dequeued, JobQueue, QueuedJob};
use worker_pool::{CancelFlag, Class, Config, InFlight, ResolvedConfig, Terms};

/// The offered load, and the timeout of its clients.
#[derive(Clone)]
pub struct Load {
    /// Offered work as a multiple of what the threads can do.
    pub times_capacity: f64,
    /// Mean run time of a job.
    pub run: Duration,
    /// Run times spread evenly over `run` × (1 ± this).
    pub run_spread: f64,
    /// The timeout of a client.
    pub patience: Duration,
    /// Whether the pool knows that timeout, as the job's deadline.
    pub deadline_known: bool,
    /// Whether the disconnect of a client is noticed: its job's cancel flag is set.
    pub leaves: bool,
    pub lasts: Duration,
    /// From the middle on, where the figures begin, jobs cost this many times as much.
    pub cost_factor: f64,
    /// This many jobs at once, at three quarters.
    pub burst: u32,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            times_capacity: 1.5,
            run: Duration::from_millis(20),
            run_spread: 0.5,
            patience: Duration::from_millis(500),
            deadline_known: false,
            leaves: true,
            lasts: Duration::from_secs(20),
            cost_factor: 1.0,
            burst: 0,
        }
    }
}

/// The results over the last half of the load.
#[derive(Debug, Default)]
pub struct Figures {
    /// Answers within the clients' timeout, as a share of what the threads could have given.
    pub goodput: f64,
    /// Share of the threads' time spent on jobs that were answered too late.
    pub wasted: f64,
    pub latency_p50: Duration,
    pub latency_p99: Duration,
    pub offered: u64,
    pub refused: u64,
    pub unserved: u64,
    pub depth_max: usize,
    /// Of the jobs that came in the burst, the share answered in time.
    pub burst_served: f64,
    /// Run latency of one job sent 100 ms after the load ended, if it was served.
    pub after: Option<Duration>,
}

struct Ask {
    terms: Terms,
    at: Instant,
    run: Duration,
    in_burst: bool,
}

impl QueuedJob for Ask {
    fn terms(&self) -> &Terms {
        &self.terms
    }
    fn admitted_at(&self) -> Instant {
        self.at
    }
}

/// xorshift64*: enough for arrivals, and the same everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn unit(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Runs the load through the pool's own queue and admission.
pub fn simulate(config: &Config, load: &Load, seed: u64) -> Figures {
    let resolved = ResolvedConfig::of(config);
    let begin = Instant::now();
    let mut random = Random(seed | 1);
    let mut arrivals = plan(&resolved, load, begin, &mut random);
    arrivals.reverse();
    let end = begin + load.lasts;
    let half = begin + load.lasts / 2;
    let mut run = Run::new(&resolved, load, begin);
    let mut ends: BinaryHeap<Reverse<(Instant, u64)>> = BinaryHeap::new();
    let mut running: Vec<Option<Ask>> = Vec::new();
    loop {
        let next_end = ends.peek().map(|Reverse((at, _))| *at);
        let next_ask = arrivals.last().map(|ask| ask.at);
        let now = match (next_end, next_ask) {
            (None, None) => break,
            (Some(end), Some(ask)) => end.min(ask),
            (end, ask) => end.or(ask).unwrap_or(begin),
        };
        if next_end == Some(now) {
            if let Some(Reverse((_, i))) = ends.pop()
                && let Some(ask) = running[i as usize].take()
            {
                run.ended(&ask, now, half, end);
            }
        } else if let Some(ask) = arrivals.pop() {
            run.offered(ask, now, half, end);
        }
        while ends.len() < resolved.threads as usize
            && let Some(ask) = run.next(now)
        {
            ends.push(Reverse((now + ask.run, running.len() as u64)));
            running.push(Some(ask));
        }
    }
    run.figures(resolved.threads, load)
}

fn plan(resolved: &ResolvedConfig, load: &Load, begin: Instant, random: &mut Random) -> Vec<Ask> {
    let gap_s = load.run.as_secs_f64() / f64::from(resolved.threads) / load.times_capacity;
    let half = begin + load.lasts / 2;
    let mut ask_at = |at: Instant, in_burst| {
        let factor = if at < half { 1.0 } else { load.cost_factor };
        let run = load.run.mul_f64(factor).mul_f64(1.0 + load.run_spread * (2.0 * random.unit() - 1.0));
        let deadline = load.deadline_known.then_some(at + load.patience);
        let cancel = if load.leaves { CancelFlag::new() } else { CancelFlag::default() };
        let ask = Ask { terms: Terms { class: Class::Fast, deadline, cancel }, at, run, in_burst };
        let gap = Duration::from_secs_f64(-gap_s * (1.0 - random.unit()).ln());
        (ask, gap)
    };
    let (mut asks, mut at) = (Vec::new(), begin);
    while at < begin + load.lasts {
        let (ask, gap) = ask_at(at, false);
        asks.push(ask);
        at += gap;
    }
    let burst_at = begin + load.lasts.mul_f64(0.75);
    asks.extend((0..load.burst).map(|_| ask_at(burst_at, true).0));
    asks.push(ask_at(begin + load.lasts + Duration::from_millis(100), false).0);
    asks.sort_by_key(|ask| ask.at);
    asks
}

struct Run<'a> {
    resolved: &'a ResolvedConfig,
    load: &'a Load,
    waiting: JobQueue<Ask>,
    known: ClassEstimate,
    gradient: Option<GradientLimit>,
    in_flight: u32,
    /// Cancel flags by the time at which the client disconnects and the flag is set.
    leaving: std::collections::VecDeque<(Instant, CancelFlag)>,
    sampled: u64,
    good: u64,
    late_time: Duration,
    latencies: Vec<Duration>,
    burst_good: u32,
    figures: Figures,
}

impl<'a> Run<'a> {
    fn new(resolved: &'a ResolvedConfig, load: &'a Load, begin: Instant) -> Self {
        Self {
            resolved,
            load,
            waiting: JobQueue::new(resolved),
            known: ClassEstimate::new(begin),
            gradient: GradientLimit::from_config(resolved),
            in_flight: 0,
            leaving: Default::default(),
            sampled: 0,
            good: 0,
            late_time: Duration::ZERO,
            latencies: Vec::new(),
            burst_good: 0,
            figures: Figures::default(),
        }
    }

    fn offered(&mut self, ask: Ask, now: Instant, half: Instant, end: Instant) {
        let counts = now >= half && now < end;
        self.figures.offered += u64::from(counts);
        let in_flight = InFlight { fast: self.in_flight, slow: 0 };
        let limit = self.gradient.as_ref().map_or(u32::MAX, GradientLimit::limit);
        let full = self.in_flight >= self.resolved.in_flight_max.min(limit);
        let checked = admission::check(self.resolved, &ask.terms, in_flight, &self.known, now);
        if full || checked.is_err() {
            self.figures.refused += u64::from(counts);
            return;
        }
        self.leaving.push_back((now + self.load.patience, ask.terms.cancel.clone()));
        self.in_flight += 1;
        self.waiting.push(ask);
        self.figures.depth_max = self.figures.depth_max.max(self.waiting.len());
    }

    fn next(&mut self, now: Instant) -> Option<Ask> {
        while self.leaving.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, flag)) = self.leaving.pop_front() {
                flag.cancel();
            }
        }
        loop {
            match self.waiting.take(now, usize::MAX) {
                Dequeued::Run(ask) => return Some(ask),
                Dequeued::Answer(..) => {
                    self.in_flight -= 1;
                    self.figures.unserved += 1;
                }
                Dequeued::Nothing => return None,
            }
        }
    }

    fn ended(&mut self, ask: &Ask, now: Instant, half: Instant, end: Instant) {
        self.known.run_mean.record(ask.run);
        let latency = now - ask.at;
        if let Some(gradient) = &mut self.gradient {
            gradient.record(latency, self.in_flight, now);
        }
        self.in_flight -= 1;
        let good = latency <= self.load.patience;
        self.burst_good += u32::from(good && ask.in_burst);
        if ask.at > end {
            self.figures.after = Some(latency);
        }
        if now < half || now >= end {
            return;
        }
        if good {
            self.good += 1;
            self.latencies.push(latency);
        } else {
            self.late_time += ask.run;
        }
    }

    fn figures(mut self, threads: u32, load: &Load) -> Figures {
        let seconds = load.lasts.as_secs_f64() / 2.0 * f64::from(threads);
        self.latencies.sort();
        let at = |share: f64| {
            let i = (self.latencies.len() as f64 * share) as usize;
            self.latencies.get(i).copied().unwrap_or_default()
        };
        (self.figures.latency_p50, self.figures.latency_p99) = (at(0.5), at(0.99));
        self.figures.goodput = self.good as f64 * load.run.as_secs_f64() * load.cost_factor / seconds;
        self.figures.wasted = self.late_time.as_secs_f64() / seconds;
        self.figures.burst_served = f64::from(self.burst_good) / f64::from(load.burst.max(1));
        self.figures
    }
}
