//! From a seed to everything that a run meets: limits, times, peers, upstreams, faults, unkindness, and how it ends.
//!
//! The limits are tiny on purpose: whatever happens at a limit then happens early and often.

use std::time::Duration;

use super::faults::Faults;
use super::kernel::{Hostility, Nanos};
use super::peer::{End, Plan, Reads, Request};
use super::protocol::{HEAD_BYTES, Kind};
use super::rng::Rng;
use super::upstream::{Decision, Upstream};
use crate::limits::{Config, Limits};
use crate::policy::{AtConnectionsMax, DrainPolicy, Policy, WhenNearlyFull};

const MICRO: Nanos = 1_000;
const MILLI: Nanos = 1_000_000;

/// How the run ends, if not by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Drain(Duration),
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
        let population = rng.pick(&[
            Population::Churn,
            Population::NonReaders,
            Population::Mixed,
            Population::Mixed,
            Population::Mixed,
            Population::Mixed,
            Population::Mixed,
            Population::Mixed,
        ]);
        match population {
            Population::Mixed => {}
            Population::Churn => plan_table_for_churn(rng, &mut config.limits),
            Population::NonReaders => plan_memory_for_non_readers(rng, &mut config),
        }
        let unsent_bytes_max: u32 = rng.pick(&[128, 300, 1000, 4000]);
        config.limits.kernel_unsent_bytes_max = Some(unsent_bytes_max);
        let listeners = rng.between(1, 2) as usize;
        let loops = if population != Population::NonReaders && rng.one_in(4) { rng.between(2, 3) as usize } else { 1 };
        if loops > 1 {
            // Each receiver keeps room for the last word of the loop that accepts.
            config.limits.mail_max = rng.pick(&[3, 16]);
        }
        let plan_peers = match population {
            Population::Mixed => peers,
            Population::Churn => churning_peers,
            Population::NonReaders => non_readers_and_protected_peers,
        };
        let peers = plan_peers(rng, &config, listeners, unsent_bytes_max as usize);
        let mut upstreams: Vec<_> = (0..rng.pick(&[0, 0, 1, 3])).map(|_| upstream(rng)).collect();
        for (index, (_, upstream)) in upstreams.iter_mut().enumerate() {
            upstream.of_loop = index % loops;
        }
        let is_calm = rng.one_in(4);
        let mut settings = settings(rng);
        let mut hostility = if is_calm { Hostility { call_nanos: 500, ..Hostility::default() } } else { hostility(rng, &config) };
        if population == Population::NonReaders {
            // A loop that comes late sees those that read begin to stall with those that do not.
            (settings.slow_one_in, hostility.preempted_one_in) = (0, 0);
        }
        if loops > 1 {
            hostility.failing_wake = 0;
        }
        let descriptors = rng.between(2, 16) as u32;
        RunPlan {
            settings,
            hostility,
            received_bytes_max: rng.pick(&[1000, 3000, 9000, 20_000]),
            descriptors_max: if rng.one_in(3) && population == Population::Mixed { descriptors } else { u32::MAX },
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

/// Who the peers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Population {
    /// Anybody.
    Mixed,
    /// Clients that connect, ask and close at once.
    Churn,
    /// More clients that do not read than the buffer memory holds output for, and behind them some that read, and send requests in pieces.
    NonReaders,
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
    /// What a callback costs.
    pub(crate) callback_nanos: Nanos,
    /// Every how many callbacks one takes long, and how long at most.
    pub(crate) slow_one_in: u64,
    pub(crate) slow_nanos_max: Nanos,
}

fn orders(rng: &mut Rng, loops: usize) -> Vec<(Nanos, Option<usize>, Order)> {
    let order = match rng.below(8) {
        0 => Order::Stop,
        1..=3 => Order::Drain(Duration::from_millis(rng.between(1, 200))),
        _ => return Vec::new(),
    };
    let at = rng.below(60) * MILLI;
    if loops == 1 || rng.one_in(2) {
        return vec![(at, None, order)];
    }
    // One of them, and the others later or never.
    let mut orders = vec![(at, Some(rng.below(loops as u64) as usize), order)];
    if rng.one_in(2) {
        orders.push((at + rng.below(60) * MILLI, None, Order::Drain(Duration::from_millis(rng.between(1, 200)))));
    }
    orders
}

fn millis(rng: &mut Rng, low: u64, high: u64) -> Duration {
    Duration::from_millis(rng.between(low, high))
}

fn config(rng: &mut Rng) -> Config {
    let buffer_bytes_max = if rng.one_in(8) { 16 << 10 } else { 4 << 10 };
    let high = rng.pick(&[256, 700, 2000, 4000]);
    let limits = Limits {
        connections_max: rng.between(1, 10) as u32,
        newcomers_room: 0,
        refusals_max: rng.between(0, 3) as u32,
        buffer_memory_bytes_max: (buffer_bytes_max as usize) * rng.between(4, 10) as usize,
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
        write_stall_timeout: millis(rng, 40, 120),
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
        newcomers_room: rng.pick(&[0, 0, 1, 2, 5]),
        connects_per_turn_max: limits.accepts_per_turn_max,
        ..limits
    };
    let policy = Policy {
        drain: if rng.one_in(3) { DrainPolicy::UntilWouldBlock } else { DrainPolicy::UntilShortRead },
        at_connections_max: if rng.one_in(2) { AtConnectionsMax::Wait } else { AtConnectionsMax::Refuse },
        when_nearly_full: if rng.one_in(3) { WhenNearlyFull::Keep } else { WhenNearlyFull::MakeRoom },
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

/// What a peer is like.
#[derive(Clone, Copy)]
enum Nature {
    /// Small pieces, one after the other.
    Ordinary,
    /// Everything before it is accepted, and then nothing more.
    Burst,
    /// Single bytes.
    Dribble,
    /// As much as fits, for long.
    Flood,
    /// Stops in the middle.
    Silent,
    NeverReads,
    Resets,
    Subscribes,
}

fn peers(rng: &mut Rng, config: &Config, listeners: usize, unsent_bytes_max: usize) -> Vec<(Option<Nanos>, Plan)> {
    use Nature::*;
    let count = rng.between(2, 9) as u32;
    let together = rng.one_in(2);
    let mut peers: Vec<(Option<Nanos>, Plan)> = (0..count)
        .map(|index| {
            let nature =
                rng.pick(&[Ordinary, Ordinary, Ordinary, Burst, Burst, Burst, Dribble, Flood, Silent, NeverReads, Resets, Subscribes]);
            let follows = index > 0 && rng.one_in(3);
            let connects_at = match (follows, together) {
                (true, _) => None,
                (_, true) => Some(0),
                _ => Some(rng.below(20 * MILLI)),
            };
            (connects_at, plan_peer(rng, nature, config, listeners, unsent_bytes_max))
        })
        .collect();
    // Who follows connects when the one before it is done.
    for index in 1..peers.len() {
        if peers[index].0.is_none() {
            peers[index - 1].1.next = Some(index as u32);
        }
    }
    peers
}

/// A table that churn could fill with dead sockets: larger than what is alive at a time, and a turn closes fewer than it accepts.
fn plan_table_for_churn(rng: &mut Rng, limits: &mut Limits) {
    limits.connections_max = rng.between(40, 60) as u32;
    limits.accepts_per_turn_max = rng.pick(&[4, 8, 32]);
    limits.connects_per_turn_max = limits.accepts_per_turn_max;
    limits.closes_per_turn_max = rng.pick(&[1, 2]);
    limits.events_per_poll_max = rng.pick(&[16, 256]);
}

/// Buffer memory of a few buffers, and a place in the table for everybody.
fn plan_memory_for_non_readers(rng: &mut Rng, config: &mut Config) {
    let limits = &mut config.limits;
    limits.buffer_bytes_max = 4 << 10;
    limits.buffer_memory_bytes_max = (4 << 10) * rng.between(4, 12) as usize;
    limits.output_high_water_bytes = limits.output_high_water_bytes.min(4000);
    limits.connections_max = 40;
    limits.newcomers_room = 0;
    limits.write_stall_timeout = millis(rng, 80, 120);
}

/// The memory fills with the output of clients that do not read. Clients that come later, and of which no more have partial input than the share of
/// partial input holds, must not notice: nothing of theirs is evicted.
fn non_readers_and_protected_peers(
    rng: &mut Rng,
    config: &Config,
    listeners: usize,
    unsent_bytes_max: usize,
) -> Vec<(Option<Nanos>, Plan)> {
    let buffers = config.limits.buffer_memory_bytes_max / config.limits.buffer_bytes_max as usize;
    let share_buffers = buffers as u64 / 2 - 1; // As `BufferPool::new` has it.
    let mut peers = Vec::new();
    for _ in 0..buffers as u64 + rng.between(1, 6) {
        let mut plan = plan_peer(rng, Nature::NeverReads, config, listeners, unsent_bytes_max);
        plan.requests = vec![Request { kind: Kind::Stream, len: 20_000 }];
        (plan.gap, plan.urgent_after, plan.end) = (0, None, End::Wait);
        peers.push((Some(rng.below(MILLI)), plan));
    }
    for _ in 0..rng.between(1, share_buffers) {
        let nature = rng.pick(&[Nature::Ordinary, Nature::Dribble]);
        let mut plan = plan_peer(rng, nature, config, listeners, unsent_bytes_max);
        plan.requests.truncate(3);
        plan.is_protected = true;
        peers.push((Some(10 * MILLI + rng.below(30 * MILLI)), plan));
    }
    peers
}

/// Clients that hold one connection each, and open the next one as soon as they have closed it.
fn churning_peers(rng: &mut Rng, config: &Config, listeners: usize, unsent_bytes_max: usize) -> Vec<(Option<Nanos>, Plan)> {
    let clients = rng.between(2, 10) as u32;
    let each = rng.between(4, 12) as u32;
    let waits = rng.one_in(2);
    let mut peers = Vec::new();
    for client in 0..clients {
        for nth in 0..each {
            let mut plan = plan_peer(rng, Nature::Ordinary, config, listeners, unsent_bytes_max);
            plan.requests.truncate(1);
            (plan.gap, plan.end, plan.urgent_after, plan.is_stubborn) = (0, End::Close, None, false);
            // Before the answer, or about when it comes.
            plan.end_after = if waits { rng.below(200 * MICRO) } else { 0 };
            plan.next = (nth + 1 < each).then_some(client * each + nth + 1);
            peers.push(((nth == 0).then(|| rng.below(MILLI)), plan));
        }
    }
    peers
}

fn plan_peer(rng: &mut Rng, nature: Nature, config: &Config, listeners: usize, unsent_bytes_max: usize) -> Plan {
    let bytes = rng.pick(&[50, 500, 100_000]);
    // An edge comes when a third of the send buffer is free: who reads so slowly that this takes longer than the write stall timeout is
    // closed by design.
    let stall = config.limits.write_stall_timeout.as_nanos() as Nanos;
    let gap_max = (stall / 4 * bytes as Nanos / unsent_bytes_max as Nanos).clamp(1, 3 * MILLI);
    let reads =
        Reads::Steadily { bytes, gap: if rng.one_in(2) { rng.between(1, 50 * MICRO.min(gap_max)) } else { rng.between(1, gap_max) } };
    let mut plan = Plan {
        listener: rng.below(listeners as u64) as usize,
        requests: Vec::new(),
        chunk_bytes: rng.pick(&[20, 200, 2000]),
        gap: rng.pick(&[0, 20 * MICRO, 300 * MICRO]),
        reads,
        end: rng.pick(&[End::Wait, End::HalfClose, End::HalfClose, End::Close]),
        end_after: if rng.one_in(2) { 0 } else { rng.below(5 * MILLI) },
        urgent_after: None,
        silent_after: None,
        resets_after: None,
        is_stubborn: rng.one_in(6),
        is_protected: false,
        next: None,
    };
    let (few, len_max) = match nature {
        Nature::Ordinary => (rng.between(1, 6), 300),
        Nature::Burst => {
            plan.gap = 0;
            (rng.between(1, 12), 2000)
        }
        Nature::Dribble => {
            (plan.chunk_bytes, plan.gap) = (2, rng.between(1, 100) * MICRO);
            (rng.between(1, 2), 16)
        }
        Nature::Flood => {
            plan.gap = 0;
            plan.is_stubborn = rng.one_in(2);
            (rng.between(10, 20), 3000)
        }
        Nature::Silent => (rng.between(1, 4), 200),
        Nature::NeverReads => {
            plan.reads = Reads::Never;
            (rng.between(1, 6), 3000)
        }
        Nature::Resets => {
            plan.resets_after = Some(rng.below(rng.clone().pick(&[MILLI, 20 * MILLI])));
            if rng.one_in(2) {
                plan.end = End::Reset;
            }
            (rng.between(1, 4), 500)
        }
        Nature::Subscribes => {
            plan.requests.push(Request { kind: Kind::Subscribe, len: 0 });
            plan.end = End::Wait;
            (0, 0)
        }
    };
    for _ in 0..few {
        plan.requests.push(request(rng, nature, len_max));
    }
    if !matches!(nature, Nature::Subscribes) && rng.one_in(5) {
        let kind = rng.pick(&[Kind::Bye, Kind::Bye, Kind::Abort, Kind::Panic]);
        plan.requests.push(Request { kind, len: 0 });
    }
    let payload = |request: &Request| if request.kind.has_request_payload() { request.len as u64 } else { 0 };
    let total = plan.requests.iter().map(|request| HEAD_BYTES as u64 + payload(request)).sum::<u64>();
    if matches!(nature, Nature::Silent) {
        plan.silent_after = Some(rng.below(total) as usize);
    }
    if rng.one_in(8) {
        plan.urgent_after = Some(rng.below(total + 1) as usize);
    }
    plan
}

fn request(rng: &mut Rng, nature: Nature, len_max: u64) -> Request {
    let kinds: &[Kind] = match nature {
        Nature::Flood | Nature::Burst => &[Kind::Echo, Kind::Echo, Kind::Whole, Kind::Whole, Kind::Job],
        Nature::NeverReads => &[Kind::Echo, Kind::Stream],
        Nature::Dribble => &[Kind::Echo, Kind::Whole, Kind::Publish],
        _ => &[
            Kind::Echo,
            Kind::Echo,
            Kind::Whole,
            Kind::Whole,
            Kind::Job,
            Kind::Job,
            Kind::Job,
            Kind::Stream,
            Kind::Stream,
            Kind::Sleep,
            Kind::Publish,
        ],
    };
    let kind = rng.pick(kinds);
    let len = match kind {
        Kind::Sleep => rng.below(100),
        Kind::Publish => 0,
        Kind::Whole if rng.one_in(60) => 4089,
        _ => rng.below(len_max),
    };
    Request { kind, len: len as u16 }
}

fn upstream(rng: &mut Rng) -> (Nanos, Upstream) {
    let decision = rng.pick(&[
        Decision::AcceptAndGreet,
        Decision::AcceptAndGreet,
        Decision::AcceptAndGreet,
        Decision::Refuse,
        Decision::Silence,
        Decision::AcceptAndReset,
    ]);
    let decides_after = if rng.one_in(3) { 0 } else { rng.below(5 * MILLI) };
    let chunk_bytes = rng.pick(&[5, 50, 1000]);
    (rng.below(30 * MILLI), Upstream::new(decision, decides_after, rng.between(1, 40) * MILLI, chunk_bytes))
}
