//! What must hold at the end of every turn. Checked in debug builds, and in every turn of a simulation.

use crate::buffers::BufferOwner;
use crate::event_loop::EventLoop;
use crate::handler::Handler;
use crate::os::Os;
use crate::policy::{ReadyRule, ResumePolicy};
use crate::slot::Evicted;
use crate::slot::Flags;
use crate::visit::can_progress;

impl<H: Handler, O: Os> EventLoop<H, O> {
    /// Looks at every connection and panics at the first that breaks a rule.
    ///
    /// # Panics
    /// With the rule and the connection: a fault of this crate, or a deliberate mistake that was switched on.
    pub fn check_invariants(&self) {
        let policy = self.shared.policy;
        let correct = policy.ready_rule == ReadyRule::CanProgress && policy.resume == ResumePolicy::ReadyList;
        let mut leased_bytes = 0;
        let mut held_bytes = [0; BufferOwner::COUNT];
        for (slot, entry) in &self.entries {
            let state = self.shared.slots.get(slot as u32);
            let flags = entry.control.flags;
            assert!(state.open, "slot {slot} is taken and not open");
            if correct {
                // Not the other way round: a second visit in one turn, for mail or a deadline, can end what put it on the list, and
                // the next turn takes it off. Nobody stays there without progress (the simulator counts).
                assert!(
                    !can_progress(flags, state, policy.output) || state.is_queued(),
                    "slot {slot} can go on, and is not on the ready list ({flags:?})"
                );
            }
            // What `may_say_more` rests on.
            assert!(
                flags.intersects(Flags::WRITABLE.union(Flags::DEAD)) || state.output.is_some() || state.evicted == Evicted::Output,
                "slot {slot} waits for room in the kernel, and has nothing to put there ({flags:?})"
            );
            assert!(
                !flags.intersects(Flags::DEAD) || (state.input.is_none() && state.output.is_none()),
                "slot {slot} is dead and holds a lease"
            );
            assert!(state.input.is_none() || !flags.intersects(Flags::LINGERING), "slot {slot} lingers and keeps input");
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
