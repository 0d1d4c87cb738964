//! From a seed to the peers and upstreams of a run: anybody, clients that churn, or clients that do not read next to some that do.

use super::kernel::Nanos;
use super::peer::{End, Plan, Reads, Request};
use super::plan::{MICRO, MILLI, millis};
use super::protocol::{HEAD_BYTES, Kind};
use super::rng::Rng;
use super::upstream::{Decision, Upstream};
use crate::limits::{Config, Limits};

/// Who the peers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Population {
    /// Anybody.
    Mixed,
    /// Clients that connect, ask and close at once.
    Churn,
    /// More clients that do not read than the buffer memory holds output for, and behind them some that read, and send requests in pieces.
    NonReaders,
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

pub(super) fn peers(rng: &mut Rng, _config: &Config, listeners: usize) -> Vec<(Option<Nanos>, Plan)> {
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
            (connects_at, plan_peer(rng, nature, listeners))
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
pub(super) fn plan_table_for_churn(rng: &mut Rng, limits: &mut Limits) {
    limits.connections_max = rng.between(40, 60) as u32;
    limits.accepts_per_turn_max = rng.pick(&[4, 8, 32]);
    limits.connects_per_turn_max = limits.accepts_per_turn_max;
    limits.closes_per_turn_max = rng.pick(&[1, 2]);
    limits.events_per_poll_max = rng.pick(&[16, 256]);
}

/// Buffer memory of a few buffers, and a place in the table for everybody.
pub(super) fn plan_memory_for_non_readers(rng: &mut Rng, config: &mut Config) {
    let limits = &mut config.limits;
    limits.buffer_bytes_max = 4 << 10;
    limits.buffer_memory_bytes_max = (4 << 10) * rng.between(4, 12) as usize;
    limits.output_high_water_bytes = limits.output_high_water_bytes.min(4000);
    limits.connections_max = 40;
    limits.free_slots_min = 0;
    limits.output_rate_window = millis(rng, 80, 120);
}

/// The memory fills with the output of clients that do not read. Clients that come later, and of which no more have partial input than the share of
/// partial input holds, must not notice: nothing of theirs is evicted.
pub(super) fn non_readers_and_protected_peers(rng: &mut Rng, config: &Config, listeners: usize) -> Vec<(Option<Nanos>, Plan)> {
    let buffers = config.limits.buffer_memory_bytes_max / config.limits.buffer_bytes_max as usize;
    let share_buffers = buffers as u64 / 2 - 1; // As `BufferPool::new` has it.
    let mut peers = Vec::new();
    for _ in 0..buffers as u64 + rng.between(1, 6) {
        let mut plan = plan_peer(rng, Nature::NeverReads, listeners);
        plan.requests = vec![Request { kind: Kind::Stream, len: 20_000 }];
        (plan.gap, plan.urgent_after, plan.end) = (0, None, End::Wait);
        peers.push((Some(rng.below(MILLI)), plan));
    }
    for _ in 0..rng.between(1, share_buffers) {
        let nature = rng.pick(&[Nature::Ordinary, Nature::Dribble]);
        let mut plan = plan_peer(rng, nature, listeners);
        plan.requests.truncate(3);
        plan.is_protected = true;
        peers.push((Some(10 * MILLI + rng.below(30 * MILLI)), plan));
    }
    peers
}

/// Clients that hold one connection each, and open the next one as soon as they have closed it.
pub(super) fn churning_peers(rng: &mut Rng, _config: &Config, listeners: usize) -> Vec<(Option<Nanos>, Plan)> {
    let clients = rng.between(2, 10) as u32;
    let each = rng.between(4, 12) as u32;
    let waits = rng.one_in(2);
    let mut peers = Vec::new();
    for client in 0..clients {
        for nth in 0..each {
            let mut plan = plan_peer(rng, Nature::Ordinary, listeners);
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

fn plan_peer(rng: &mut Rng, nature: Nature, listeners: usize) -> Plan {
    let bytes = rng.pick(&[50, 500, 100_000]);
    // Faster than the least rate, which asks for at most 30 bytes in a window (40 to 120 ms). It may take much longer until an edge comes, when a
    // third of the send buffer is free.
    let gap_max = 3 * MILLI;
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

pub(super) fn upstream(rng: &mut Rng) -> (Nanos, Upstream) {
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
