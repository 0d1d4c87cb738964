//! Invariants of the loop at the end of a turn. Debug builds check them after each turn (`end_turn`), and so does a simulated run
//! (`sim/run.rs`).

use crate::buffers::BufferOwner;
use crate::event_loop::EventLoop;
use crate::handler::Handler;
use crate::os::Os;
use crate::policy::{ReadyRule, ResumePolicy};
use crate::progress::can_progress;
use crate::slot::{Bits, Phase, Slot};

impl<H: Handler, O: Os> EventLoop<H, O> {
    /// Checks the connections and the accounts of buffers and groups, and panics at the first violation. Costs a pass over all connections.
    ///
    /// # Panics
    /// With the invariant and the slot: a bug in this crate, or a deliberate mistake that was switched on.
    pub fn check_invariants(&self) {
        let policy = self.shared.policy;
        let correct = policy.ready_rule == ReadyRule::CanProgress && policy.resume == ResumePolicy::ReadyList;
        let mut leased_bytes = 0;
        let mut held_bytes = [0; BufferOwner::COUNT];
        for (slot, entry) in &self.entries {
            let state = self.shared.slots.get(slot as u32);
            let Slot { phase, bits, .. } = state;
            assert!(*phase != Phase::Vacant, "slot {slot} holds an entry and is vacant");
            assert!(*phase != Phase::Aborting, "slot {slot} was to be reset at the end of a visit");
            assert!(state.is_connecting() || state.is_dead() || entry.conn.is_some(), "slot {slot} has no handler state ({phase:?})");
            if correct {
                // The reverse does not hold: a second visit in one turn, for mail or a deadline, can do the work for which the connection
                // is on the list, and the next turn takes it off. The simulator checks that the loop does not spin on it (`sim/check.rs`).
                assert!(
                    !can_progress(state) || state.is_queued(),
                    "slot {slot} can make progress and is not on the ready list ({phase:?}, {bits:?})"
                );
            }
            // `has_nothing_pending` relies on this: without pending output the socket counts as writable.
            assert!(
                bits.intersects(Bits::WRITABLE) || state.is_dead() || state.output.is_some() || state.bits.intersects(Bits::OUTPUT_EVICTED),
                "slot {slot} waits to become writable and has no pending output ({phase:?}, {bits:?})"
            );
            assert!(!state.is_dead() || (state.input.is_none() && state.output.is_none()), "slot {slot} is dead and holds a lease");
            assert!(!state.is_lingering() || state.input.is_none(), "slot {slot} lingers and holds input");
            assert!(
                !bits.intersects(Bits::FIN_WANTED.union(Bits::FIN_SENT))
                    || state.output.is_some() == bits.intersects(Bits::FIN_WANTED)
                    || state.bits.intersects(Bits::OUTPUT_EVICTED)
                    || !state.is_open()
                    || bits.intersects(Bits::FAILED),
                "slot {slot} has sent FIN before its output, or owes it after its output ({bits:?})"
            );
            for (lease, owner) in [&state.input, &state.output].into_iter().zip(BufferOwner::ALL) {
                let Some(lease) = lease else { continue };
                leased_bytes += lease.capacity();
                held_bytes[owner as usize] += lease.capacity();
                assert!(lease.held().since.is_some(), "slot {slot} holds a lease that cannot be evicted");
                assert!(!lease.is_empty(), "slot {slot} holds an empty lease");
            }
        }
        for owner in BufferOwner::ALL {
            assert_eq!(held_bytes[owner as usize], self.shared.buffers.leased_bytes_of(owner), "the pool's account of an owner is wrong");
            assert_eq!(held_bytes[owner as usize], self.shared.holders[owner as usize].bytes(), "the groups' account is wrong");
        }
        assert_eq!(leased_bytes, self.shared.buffers.leased_bytes(), "the pool's account of leases is wrong");
        let limits = &self.shared.limits;
        assert!(leased_bytes <= limits.buffer_memory_bytes_max, "more is leased than the limit");
        assert!(self.entries.len() <= (limits.connections_max + limits.refusals_max) as usize, "more connections than the limit");
    }
}
