//! What must hold when connections make room for newcomers: who is asked to, in which order, and that it is done at all.
//!
//! The service notes when a wait began; the loop keeps its own order, and is held against that.

use super::kernel::Nanos;
use super::os::SimOs;
use super::service::{Conn, Service, State};
use super::world::World;
use crate::policy::WhenNearlyFull;
use crate::slot::Bits;
use crate::{Context, EventLoop};

/// Turns for which more connections may stay than is good although somebody could make room: those who leave get a last look, and closes
/// have a budget that may be one.
const CROWDED_TURNS_MAX: u32 = 40;

/// Since when a connection waits for its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    /// Counts the waits of a run.
    number: u64,
    /// The turn that it began in.
    turn_started: Nanos,
    /// Output was pending when it began: the loop counts it from when that was sent, which may be later in the same turn (seed 2,268,003).
    began_blocked: bool,
}

/// What is known of the connections of a loop that may be closed for newcomers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Expendable {
    waits: u64,
    /// The youngest wait that was ended in this turn to make room.
    left: Option<u64>,
    /// The last turn whose end saw more connections than are at ease.
    crowded_turn: u64,
    crowded_turns: u32,
    /// How many were to leave after the turn before.
    evictions_pending: u32,
}

impl Service {
    /// A wait for the peer begins.
    pub(super) fn expendable(&self, conn: &Conn, cx: &mut Context<'_>) {
        if conn.is_closing {
            return;
        }
        let mut world = self.world();
        world.here().expendable.waits += 1;
        let socket = world.conns[conn.id as usize].socket;
        let began_blocked = world.kernel.sockets[socket as usize].log.blocked_since.is_some();
        let wait = Wait { number: world.here().expendable.waits, turn_started: world.kernel.turn_started, began_blocked };
        world.conns[conn.id as usize].wait = Some(wait);
        cx.expendable();
    }

    /// It is over.
    pub(super) fn essential(&self, conn: &Conn, cx: &mut Context<'_>) {
        self.world().conns[conn.id as usize].wait = None;
        cx.essential();
    }

    /// The loop has a connection make room.
    pub(super) fn check_leaver(&self, conn: &Conn) {
        let mut world = self.world();
        let record = world.conns[conn.id as usize];
        let name = world.name(record.socket);
        let log = world.kernel.sockets[record.socket as usize].log;
        let Some(wait) = record.wait.filter(|_| conn.state == State::Idle) else {
            return world.violated(format!("{name} is to make room, and its request is being answered"));
        };
        if log.blocked_since.is_some() {
            world.violated(format!("{name} is to make room, and has not got all of its answer"));
        }
        if log.turn != world.kernel.turn || log.reads == 0 {
            world.violated(format!("{name} is to make room, and nobody has looked whether it has spoken"));
        }
        if world.here().turns > world.here().expendable.crowded_turn + u64::from(CROWDED_TURNS_MAX) {
            world.violated(format!("{name} is to make room, and there has been room for long"));
        }
        let expendable = &mut world.here().expendable;
        expendable.left = expendable.left.max(Some(wait.number));
    }
}

/// After a turn.
pub(super) fn check(event_loop: &EventLoop<Service, SimOs>, world: &mut World) {
    let shared = &event_loop.shared;
    let limits = &shared.limits;
    let at_ease = limits.connections_max - limits.free_slots_min.min(limits.connections_max / 2);
    if event_loop.entries.len() >= limits.connections_max.min(at_ease + 1) as usize {
        world.here().expendable.crowded_turn = world.here().turns;
    }

    // Nobody leaves before somebody who has waited for longer. (Who had unsent output waits from when it was sent.)
    if let Some(left) = world.here().expendable.left.take() {
        for (slot, entry) in &event_loop.entries {
            let Some(conn) = entry.conn.as_ref().filter(|_| shared.slots.is_expendable(slot as u32)) else { continue };
            let record = world.conns[conn.id as usize];
            let log = world.kernel.sockets[record.socket as usize].log;
            let Some(wait) = record.wait else {
                let name = world.name(record.socket);
                world.violated(format!("{name} waits for nothing, and is among those that may make room"));
                continue;
            };
            let is_later = |at: Nanos| at > wait.turn_started || wait.began_blocked && at == wait.turn_started;
            let sent_later = log.blocked_since.is_some() || log.progress_at.is_some_and(is_later);
            if wait.number < left && !sent_later {
                let name = world.name(record.socket);
                world.violated(format!("{name} has waited for longer than one that had to make room"));
            }
        }
    }

    // Where somebody can make room, room is made.
    let staying = event_loop.entries.len() - shared.closes.len() - shared.evictions_pending as usize;
    let waiting = shared.slots.expendable_len();
    let safe = limits.free_slots_min.min(limits.connections_max / 2) / 2;
    let crowded = staying > at_ease as usize && waiting > safe;
    world.here().expendable.crowded_turns =
        if crowded && shared.policy.when_nearly_full == WhenNearlyFull::Evict { world.here().expendable.crowded_turns + 1 } else { 0 };
    if world.here().expendable.crowded_turns > CROWDED_TURNS_MAX {
        world.violated(format!("{staying} connections stay, and nobody makes room"));
    }

    let evictions_pending = std::mem::replace(&mut world.here().expendable.evictions_pending, shared.evictions_pending);
    // (A drain that begins ends the waits of all, behind this stage.)
    if shared.evictions_pending > evictions_pending && waiting < safe && event_loop.shutdown.is_none() {
        world.violated(format!("of the youngest {safe} that wait only {waiting} were left out of an eviction"));
    }
    if shared.evictions_pending > evictions_pending + limits.closes_per_turn_max {
        world.violated(format!(
            "{} connections are to be evicted, after {evictions_pending}, and a turn closes {}",
            shared.evictions_pending, limits.closes_per_turn_max
        ));
    }

    // Whoever waits and has got everything can be found.
    for (slot, entry) in &event_loop.entries {
        let Some(conn) = entry.conn.as_ref() else { continue };
        let state = shared.slots.get(slot as u32);
        let bits = state.bits;
        let known = bits.intersects(Bits::EVICTION_PENDING) || shared.slots.is_expendable(slot as u32);
        if crate::eviction::is_expendable(state) != known {
            let name = world.name(world.conns[conn.id as usize].socket);
            world.violated(format!("{name} is {}among the expendable connections ({bits:?})", if known { "" } else { "not " }));
        }
    }
}
