//! What must hold after every turn, and when all is over. Each rule is one paragraph here; a new one goes beside them.
//!
//! The rules about the loop's own state are asked from inside; those about what it did, from the kernel's and the service's notes; and
//! those about the peers, in `peer.rs`, where they read.

use std::fmt::Write as _;

use super::os::SimOs;
use super::service::Service;
use super::socket::{LastRead, Socket};
use super::trace::Slot;
use super::world::{LoopNotes, World};
use crate::EventLoop;
use crate::buffers::Lease;
use crate::progress::can_progress;
use crate::slot::{Bits, Phase};

/// Turns that a connection may spend on the ready list without getting anywhere: a spurious event costs one, an interrupted call another.
const FRUITLESS_TURNS_MAX: u32 = 4;

/// After a turn.
pub(crate) fn after_turn(event_loop: &EventLoop<Service, SimOs>, world: &mut World) {
    for (slot, entry) in &event_loop.entries {
        let id = entry.stream.id;
        check_phase(event_loop, world, slot as u32, id);
        if !event_loop.shared.slots.get(slot as u32).is_dead() {
            check_connection(event_loop, world, slot as u32, id);
        }
    }
    check_listeners(event_loop, world);
    check_budgets(event_loop, world);
    check_dead(event_loop, world);
    super::expendable::check(event_loop, world);

    // A loop that has nothing to do waits. (A drain goes through the slots in steps, free ones among them.)
    let idle = world.turn_log.idle_poll && !world.turn_log.progress && !event_loop.shutdown_can_progress();
    let idle_turns = if idle { world.here().idle_turns + 1 } else { 0 };
    world.here().idle_turns = idle_turns;
    // A turn may be spent on a deadline that has moved later since it was hung up: each connection's once.
    let slots = world.limits.connections_max + world.limits.refusals_max;
    if idle_turns > FRUITLESS_TURNS_MAX + slots / world.limits.deadlines_per_turn_max {
        world.violated(format!("{idle_turns} turns in a row did not wait, and nothing happened in them"));
    }
    world.check_patience();
}

/// The phases of a connection go one way. Only `Slot::enter` in a debug build sees each move; from turn to turn a connection may skip phases, and
/// it never returns to an earlier one.
fn check_phase(event_loop: &EventLoop<Service, SimOs>, world: &mut World, slot: u32, id: u32) {
    let step = |phase: Phase| match phase {
        Phase::Vacant => 0,
        Phase::Connecting { .. } => 1,
        Phase::Open => 2,
        Phase::Flushing => 3,
        Phase::Aborting => 4,
        Phase::Lingering { .. } => 5,
        Phase::Dead { .. } => 6,
    };
    let phase = event_loop.shared.slots.get(slot).phase;
    let before = std::mem::replace(&mut world.kernel.socket(id).log.loop_phase, phase);
    if step(phase) < step(before) {
        let text = format!("{} was {before:?} after an earlier turn, and is {phase:?}", world.name(id));
        world.violated(text);
    }
}

fn check_connection(event_loop: &EventLoop<Service, SimOs>, world: &mut World, slot: u32, id: u32) {
    let state = event_loop.shared.slots.get(slot);
    let bits = state.bits;
    let token = event_loop.shared.slots.token(slot);
    let name = |world: &World| format!("slot {} = {}", Slot(token), world.name(id));

    // What a peer does not take is bounded, and whoever makes it stops there.
    let kept_bytes = state.output.as_ref().map_or(0, Lease::len);
    let high_water = event_loop.shared.limits.output_high_water_bytes as usize;
    if kept_bytes > high_water {
        let text = format!("{kept_bytes} bytes of output are kept for {}, and {high_water} are allowed", name(world));
        world.violated(text);
    }

    // Above the high water nothing is read before the low one.
    let low_water = event_loop.shared.limits.output_low_water_bytes as usize;
    let log = &mut world.kernel.socket(id).log;
    let was_above = log.is_full && log.kept_bytes.saturating_sub(log.bytes_written) > low_water;
    let has_read = was_above && log.reads > 0 && log.ended_at.is_none();
    log.is_full = kept_bytes >= high_water || was_above && kept_bytes > low_water;
    log.kept_bytes = kept_bytes;
    if has_read {
        let text = format!("{} was read, and its unsent output had not fallen to the low water of {low_water}", name(world));
        world.violated(text);
    }

    // Epoll knows the connection by its own token.
    if world.kernel.socket(id).registered.is_some_and(|registered| registered != token) {
        let text = format!("{} is registered under another token", name(world));
        world.violated(text);
    }

    // What can be read will be: the loop knows of it, or an edge is on its way.
    let socket: &Socket = &world.kernel.sockets[id as usize];
    let connecting = state.is_connecting();
    if !connecting && !bits.intersects(Bits::READABLE.union(Bits::INPUT_ENDED)) && socket.is_readable() && !socket.edge_is_coming() {
        let bytes = socket.received.len();
        let text =
            format!("{bytes} bytes (or the end) of {} wait in the kernel, the loop does not know, and no edge will come", name(world));
        world.violated(text);
    }

    // What can be written will be.
    let socket: &Socket = &world.kernel.sockets[id as usize];
    let wants_to_write = state.output.is_some() || bits.intersects(Bits::WANTS_WRITABLE);
    if !connecting && wants_to_write && !bits.intersects(Bits::WRITABLE) && !socket.wants_space && !socket.edge_is_coming() {
        let text = format!("{} has output and waits for an edge that will not come", name(world));
        world.violated(text);
    }

    // Who can go on is on the ready list, whatever the policy says.
    if can_progress(state) && !state.is_queued() {
        let text = format!("{} can go on and is not on the ready list ({:?}, {bits:?})", name(world), state.phase);
        world.violated(text);
    }

    // Who is on it gets somewhere. (A second visit in the turn, for mail or a deadline, may leave one there that cannot go on any more; the
    // next turn takes it off.)
    let turn = world.kernel.turn;
    let called = world.conns.iter().any(|conn| conn.socket == id && conn.called_in_turn == turn);
    let log = &mut world.kernel.socket(id).log;
    if state.is_queued() && !called && !(log.turn == turn && log.moved) {
        log.fruitless_turns += 1;
    } else {
        log.fruitless_turns = 0;
    }
    // A turn whose time is up serves one connection of each list at least, so the others of the list may come first.
    if log.fruitless_turns as usize > FRUITLESS_TURNS_MAX as usize + event_loop.entries.len() {
        let turns = log.fruitless_turns;
        let text = format!("{} was on the ready list for {turns} turns and got nowhere", name(world));
        world.violated(text);
    }
}

/// Who waits in a listener's queue will be accepted: the loop knows, or an edge is on its way.
fn check_listeners(event_loop: &EventLoop<Service, SimOs>, world: &mut World) {
    for (index, listener) in event_loop.listeners.iter().enumerate() {
        let queue = &world.kernel.listeners[index];
        let edge_is_coming = queue.on_ready_list || queue.late_edges > 0;
        // Closes come last in a turn, and each of them ends the pauses: it may have freed what accept(2) lacked.
        if listener.pause.is_some_and(|pause| pause.ends_at_close) && world.turn_log.closes > 0 {
            world.violated(format!("listener {index} is paused, though a connection was closed in this turn"));
        }
        let queue = &world.kernel.listeners[index];
        if listener.socket.is_some() && !listener.ready && !queue.queue.is_empty() && !edge_is_coming {
            let waiting = queue.queue.len();
            world.violated(format!("{waiting} connections wait at listener {index}, the loop does not know, and no edge will come"));
        }
    }
}

/// While dead sockets wait for their close(2), no more connections begin than are closed: else the dead fill the table, since a turn accepts more
/// than it closes.
fn check_dead(event_loop: &EventLoop<Service, SimOs>, world: &mut World) {
    let limits = &event_loop.shared.limits;
    let log = world.turn_log;
    world.here().dead.balance = match world.here().dead.sockets {
        0 => 0,
        _ => world.here().dead.balance + i64::from(log.admitted) - i64::from(log.closes),
    };
    world.here().dead.sockets = event_loop.shared.closes.len() as u32;
    let balance = world.here().dead.balance;
    // The first turn may begin as many as a turn may; each later one goes by what the one before it closed.
    if balance > i64::from(limits.accepts_per_turn_max) {
        world.violated(format!("while dead sockets waited for their close, {balance} more connections began than were closed"));
    }
}

/// Nothing beyond a limit.
fn check_budgets(event_loop: &EventLoop<Service, SimOs>, world: &mut World) {
    let limits = world.limits.clone();
    let log = world.turn_log;
    let open = event_loop.entries.len() as u64;
    let counted = [
        // At EMFILE each may be followed by one that uses the spare descriptor.
        ("calls of accept", u64::from(log.accepts), 2 * u64::from(limits.accepts_per_turn_max)),
        ("adopted connections", u64::from(log.adopted), u64::from(limits.accepts_per_turn_max)),
        ("pieces of mail", u64::from(log.mail), u64::from(limits.mail_per_turn_max)),
        ("deadlines", u64::from(log.deadlines), u64::from(limits.deadlines_per_turn_max)),
        ("closes", u64::from(log.closes), u64::from(limits.closes_per_turn_max)),
        ("connections", open, u64::from(limits.connections_max + limits.refusals_max)),
        ("bytes leased", event_loop.shared.buffers.held_bytes() as u64, limits.buffer_memory_bytes_max as u64),
    ];
    for (what, number, max) in counted {
        if number > max {
            world.violated(format!("{number} {what}, and {max} are allowed"));
        }
    }
    // The kernel's part of the output is bounded, too.
    for id in 0..world.kernel.sockets.len() {
        let bytes = world.kernel.sockets[id].unsent.len();
        if let Some(max) = limits.kernel_unsent_bytes_max.filter(|max| bytes > *max as usize) {
            let text = format!("the kernel holds {bytes} unsent bytes for {}, and {max} are allowed", world.name(id as u32));
            world.violated(text);
        }
    }
    let scratch = limits.buffer_bytes_max as usize;
    let written_max = limits.visit_written_bytes_max as usize + 3 * limits.output_high_water_bytes as usize;
    for id in 0..world.kernel.sockets.len() {
        let socket = &world.kernel.sockets[id];
        let log = socket.log;
        if log.turn != world.kernel.turn {
            continue;
        }
        // One visit reads in a turn, and one more looks before a deadline; while lingering, its few reads may each fill the scratch.
        let looks = 2;
        let bytes_max = looks * if log.ended_at.is_some() { 4 * scratch } else { scratch };
        let visits = 3 + world.turn_log.mail as usize;
        let exceeded = [
            ("reads", log.reads as usize, looks * limits.visit_reads_max as usize),
            ("bytes read", log.bytes_read, bytes_max),
            ("bytes written", log.bytes_written, visits * written_max),
        ];
        for (what, number, max) in exceeded {
            if number > max {
                let text = format!("{number} {what} on {} in one turn, and {max} are allowed", world.name(id as u32));
                world.violated(text);
            }
        }
    }
}

/// Writes what the turn left behind into the trace.
pub(crate) fn trace_turn(event_loop: &EventLoop<Service, SimOs>, world: &mut World) {
    for (slot, entry) in &event_loop.entries {
        let log = world.kernel.socket(entry.stream.id).log;
        let bits = event_loop.shared.slots.get(slot as u32).bits;
        if let Some(last) = log.last_read.filter(|_| log.turn == world.kernel.turn) {
            let exit = match last {
                LastRead::WouldBlock => "Empty",
                LastRead::End => "PeerClosed",
                LastRead::Failed => "an error, or an interrupted call",
                LastRead::Short if !bits.intersects(Bits::READABLE) => "Empty (a short read)",
                LastRead::Short => "BudgetSpent",
                LastRead::Full if !bits.intersects(Bits::READABLE) => "Empty, as the loop believes",
                LastRead::Full => "BufferFull or BudgetSpent",
            };
            world.note(|line, world| {
                let _ = write!(line, "  slot {slot} = {}: {} bytes read, stopped by {exit}", world.name(entry.stream.id), log.bytes_read);
            });
        }
        if let Some(output) = &event_loop.shared.slots.get(slot as u32).output {
            world.note(|line, world| {
                let _ = write!(line, "  slot {slot} = {}: {} bytes of output kept", world.name(entry.stream.id), output.len());
            });
        }
    }
    let queued: Vec<String> = event_loop
        .entries
        .iter()
        .filter(|(slot, _)| event_loop.shared.slots.get(*slot as u32).is_queued())
        .map(|(slot, entry)| format!("slot {slot} = {}", world.name(entry.stream.id)))
        .collect();
    if !queued.is_empty() {
        world.note(|line, _| {
            let _ = write!(line, "  ready list: {}", queued.join(", "));
        });
    }
}

/// After a turn of one of several loops: where nothing is on its way, the loop that accepts knows how many connections each other loop has.
pub(crate) fn hand_off(loops: &[Option<EventLoop<Service, SimOs>>], world: &mut World) {
    let Some(Some(accepting)) = loops.first().filter(|_| world.kernel.in_transit == 0) else { return };
    for (receiver, event_loop) in accepting.receivers.iter().zip(&loops[1..]) {
        let Some(event_loop) = event_loop else { continue };
        let (load, open) = (receiver.load(), event_loop.entries.len() as u64);
        if load != open {
            world.violated(format!("a loop with {open} connections, and none on the way to it, passes for one with {load}"));
        }
    }
}

/// When the loop has ended and been taken apart: everything is returned, everybody was told.
pub(crate) fn at_the_end(world: &mut World, ended_by_itself: bool) {
    let descriptors = world.kernel.descriptors - world.descriptors_elsewhere;
    if descriptors != 0 {
        world.violated(format!("{descriptors} descriptors are still open at the end"));
    }
    if let Some(open) = world.conns.iter().position(|conn| conn.open) {
        world.violated(format!("connection {open} was opened and never closed"));
    }
    for LoopNotes { mail_sent, mail_taken, .. } in world.loops.clone() {
        if mail_sent != mail_taken {
            world.violated(format!("{mail_sent} pieces of mail were sent, and {mail_taken} came back to the service"));
        }
    }
    for index in 0..world.upstreams.len() {
        let upstream = &world.upstreams[index];
        let ends = upstream.opened + upstream.failed;
        if ends > 1 || (ended_by_itself && upstream.is_asked && ends == 0) {
            world.violated(format!("the connect to upstream {index} ended {ends} times"));
        }
    }
    if ended_by_itself {
        let hanging = world.peers.iter().position(|peer| peer.socket.is_some() && !peer.is_done && peer.excuse.is_none());
        if let Some(peer) = hanging {
            world.violated(format!("peer {peer} behaves, and nothing will ever happen for it again"));
        }
    }
}
