//! From a seed to everything that a run meets: limits, times, peers, upstreams, faults, unkindness, and how it ends.
//!
//! The limits are tiny on purpose: whatever happens at a limit then happens early and often.

use std::time::Duration;

use super::faults::Faults;
use super::kernel::{Hostility, Nanos};
use super::peer::Plan;
use super::population::{self, Population};
use super::rng::Rng;
use super::upstream::Upstream;
use crate::limits::{Config, Limits};
use crate::policy::{AtConnectionsMax, DrainPolicy, Policy, WhenNearlyFull};

pub(super) const MICRO: Nanos = 1_000;
pub(super) const MILLI: Nanos = 1_000_000;

/// How the run ends, if not by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    ShutDown(Duration),
    Stop,
}

/// A run.
#[derive(Debug)]
pub(crate) struct RunPlan {
    pub(crate) config: Config,
    pub(crate) settings: Settings,
    pub(crate) hostility: Hostility,
    pub(crate) received_bytes_max: usize,
    pub(crate) descriptors_max: u32,
    pub(crate) wake_latency_nanos_max: Nanos,
    pub(crate) listeners: usize,
    /// Each with the time of its connect; none for those that follow another.
    pub(crate) peers: Vec<(Option<Nanos>, Plan)>,
    pub(crate) upstreams: Vec<(Nanos, Upstream)>,
    pub(crate) faults: Faults,
    /// Loops: the first accepts, and hands over to the others.
    pub(crate) loops: usize,
    /// When which loop, or all of them, gets which order.
    pub(crate) orders: Vec<(Nanos, Option<usize>, Order)>,
}

impl RunPlan {
    /// The plan of a seed; the same seed has always the same plan.
    pub(crate) fn new(rng: &mut Rng) -> RunPlan {
        let mut config = config(rng);
        let kind = rng.pick(&[
            Population::Churn,
            Population::NonReaders,
            Population::Mixed,
            Population::Mixed,
            Population::Mixed,
            Population::Mixed,
            Population::Mixed,
            Population::Mixed,
        ]);
        match kind {
            Population::Mixed => {}
            Population::Churn => population::plan_table_for_churn(rng, &mut config.limits),
            Population::NonReaders => population::plan_memory_for_non_readers(rng, &mut config),
        }
        let unsent_bytes_max: u32 = rng.pick(&[128, 300, 1000, 4000]);
        config.limits.kernel_unsent_bytes_max = Some(unsent_bytes_max);
        let listeners = rng.between(1, 2) as usize;
        let loops = if kind != Population::NonReaders && rng.one_in(4) { rng.between(2, 3) as usize } else { 1 };
        if loops > 1 {
            // Each receiver keeps room for the last word of the loop that accepts.
            config.limits.mail_max = rng.pick(&[3, 16]);
        }
        let plan_peers = match kind {
            Population::Mixed => population::peers,
            Population::Churn => population::churning_peers,
            Population::NonReaders => population::non_readers_and_protected_peers,
        };
        let peers = plan_peers(rng, &config, listeners);
        let mut upstreams: Vec<_> = (0..rng.pick(&[0, 0, 1, 3])).map(|_| population::upstream(rng)).collect();
        for (index, (_, upstream)) in upstreams.iter_mut().enumerate() {
            upstream.of_loop = index % loops;
        }
        let is_calm = rng.one_in(4);
        let mut settings = settings(rng);
        let mut hostility = if is_calm { Hostility { call_nanos: 500, ..Hostility::default() } } else { hostility(rng, &config) };
        if kind == Population::NonReaders {
            // A loop that comes late sees those that read begin to stall with those that do not.
            (settings.slow_one_in, hostility.preempted_one_in) = (0, 0);
        }
        let descriptors = rng.between(2, 16) as u32;
        RunPlan {
            settings,
            hostility,
            received_bytes_max: rng.pick(&[1000, 3000, 9000, 20_000]),
            descriptors_max: if rng.one_in(3) && kind == Population::Mixed { descriptors } else { u32::MAX },
            wake_latency_nanos_max: if rng.one_in(2) { rng.between(1, 200) * MICRO } else { 0 },
            listeners,
            peers,
            upstreams,
            faults: if is_calm { Faults::default() } else { Faults::plan(rng) },
            loops,
            orders: orders(rng, loops),
            config,
        }
    }
}

/// The service's own times and costs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) idle_timeout: Nanos,
    /// For one request, from its first byte on; progress does not move it.
    pub(crate) request_timeout: Nanos,
    pub(crate) job_timeout: Nanos,
    pub(crate) job_nanos_max: Nanos,
    /// Every how many jobs one ends without a word.
    pub(crate) lost_job_one_in: u64,
    /// Whether a request to an upstream ends with FIN.
    pub(crate) half_closes: bool,
    /// What a callback costs.
    pub(crate) callback_nanos: Nanos,
    /// Every how many callbacks one takes long, and how long at most.
    pub(crate) slow_one_in: u64,
    pub(crate) slow_nanos_max: Nanos,
}

fn orders(rng: &mut Rng, loops: usize) -> Vec<(Nanos, Option<usize>, Order)> {
    let order = match rng.below(8) {
        0 => Order::Stop,
        1..=3 => Order::ShutDown(Duration::from_millis(rng.between(1, 200))),
        _ => return Vec::new(),
    };
    let at = rng.below(60) * MILLI;
    if loops == 1 || rng.one_in(2) {
        return vec![(at, None, order)];
    }
    // One of them, and the others later or never.
    let mut orders = vec![(at, Some(rng.below(loops as u64) as usize), order)];
    if rng.one_in(2) {
        orders.push((at + rng.below(60) * MILLI, None, Order::ShutDown(Duration::from_millis(rng.between(1, 200)))));
    }
    orders
}

pub(super) fn millis(rng: &mut Rng, low: u64, high: u64) -> Duration {
    Duration::from_millis(rng.between(low, high))
}

fn config(rng: &mut Rng) -> Config {
    let buffer_bytes_max = if rng.one_in(8) { 16 << 10 } else { 4 << 10 };
    let high = rng.pick(&[256, 700, 2000, 4000]);
    let limits = Limits {
        connections_max: rng.between(1, 10) as u32,
        free_slots_min: 0,
        refusals_max: rng.between(0, 3) as u32,
        buffer_memory_bytes_max: (buffer_bytes_max as usize) * rng.between(4, 10) as usize,
        buffer_bytes_min: 4 << 10, // Few buffers fit the memory, so evictions happen early and often.
        buffer_bytes_max,
        output_high_water_bytes: high,
        output_low_water_bytes: rng.below(u64::from(high)) as u32,
        kernel_unsent_bytes_max: None,
        first_visit_messages_max: rng.pick(&[1, 2, 8, 16]),
        visit_messages_max: rng.pick(&[1, 2, 8, 128]),
        visit_reads_max: rng.pick(&[1, 2, 4, 16]),
        visit_written_bytes_max: rng.pick(&[100, 1000, 10_000, 100_000]),
        events_per_poll_max: rng.pick(&[1, 3, 16, 256]),
        accepts_per_turn_max: rng.pick(&[1, 2, 32]),
        connects_per_turn_max: 1,
        connects_waiting_max: 16,
        mail_per_turn_max: rng.pick(&[1, 2, 256]),
        deadlines_per_turn_max: rng.pick(&[1, 2, 256]),
        closes_per_turn_max: rng.pick(&[1, 2, 64]),
        mail_max: rng.pick(&[1, 3, 16]),
        output_rate_min: 500,
        output_rate_window: millis(rng, 40, 120),
        evictable_stall_min: millis(rng, 5, 60),
        linger_timeout: millis(rng, 10, 60),
        refused_linger_timeout: Duration::ZERO,
        linger_bytes_max: rng.pick(&[3000, 1 << 20]),
        accept_pause: millis(rng, 1, 50),
        visits_time_max: Duration::from_micros(rng.pick(&[0, 20, 500])),
        accepts_time_max: Duration::from_micros(rng.pick(&[0, 250])),
        mail_time_max: Duration::from_micros(rng.pick(&[0, 250])),
        deadlines_time_max: Duration::from_micros(rng.pick(&[0, 250])),
        connects_time_max: Duration::from_micros(rng.pick(&[0, 250])),
        closes_time_max: Duration::from_micros(rng.pick(&[0, 250])),
    };
    let limits = Limits {
        refused_linger_timeout: limits.linger_timeout / 2,
        free_slots_min: rng.pick(&[0, 0, 1, 2, 5]),
        connects_per_turn_max: limits.accepts_per_turn_max,
        ..limits
    };
    let policy = Policy {
        drain: if rng.one_in(3) { DrainPolicy::UntilWouldBlock } else { DrainPolicy::UntilShortRead },
        at_connections_max: if rng.one_in(2) { AtConnectionsMax::Wait } else { AtConnectionsMax::Refuse },
        when_nearly_full: if rng.one_in(3) { WhenNearlyFull::Keep } else { WhenNearlyFull::Evict },
        ..Policy::default()
    };
    Config { limits, policy }
}

fn settings(rng: &mut Rng) -> Settings {
    Settings {
        idle_timeout: rng.between(5, 150) * MILLI,
        request_timeout: rng.between(10, 100) * MILLI,
        job_timeout: rng.between(1, 30) * MILLI,
        job_nanos_max: rng.between(1, 60) * MILLI,
        lost_job_one_in: rng.pick(&[0, 20]),
        half_closes: rng.one_in(2),
        callback_nanos: rng.pick(&[200, 2 * MICRO, 20 * MICRO]),
        slow_one_in: rng.pick(&[0, 20, 200]),
        slow_nanos_max: rng.between(1, 12) * MILLI,
    }
}

fn hostility(rng: &mut Rng, config: &Config) -> Hostility {
    let sometimes = [0, 0, 3, 10, 50];
    Hostility {
        late_edge_one_in: rng.pick(&sometimes),
        late_edge_nanos_max: rng.between(1, 300) * MICRO,
        spurious_one_in: rng.pick(&sometimes),
        interrupted_one_in: rng.pick(&[0, 0, 5, 40]),
        short_write_one_in: rng.pick(&sometimes),
        no_memory_one_in: rng.pick(&[0, 0, 10, 50]),
        short_read_one_in: if config.policy.drain == DrainPolicy::UntilWouldBlock { rng.pick(&[0, 2, 10]) } else { 0 },
        events_max: config.limits.events_per_poll_max,
        preempted_one_in: rng.pick(&[0, 4, 12, 50]),
        // From a time slice to longer than every deadline of a plan.
        preempted_nanos_max: rng.pick(&[MILLI, 20 * MILLI, 200 * MILLI]),
        late_mail_one_in: rng.pick(&[0, 3, 10]),
        early_timer_one_in: rng.pick(&[0, 0, 3, 20]),
        failing_wake: if rng.one_in(4) { rng.between(1, 8) as u32 } else { 0 },
        call_nanos: rng.pick(&[100, 1000, 10 * MICRO]),
    }
}
