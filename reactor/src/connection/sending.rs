//! The output half of a visit: what earlier visits left goes first, then all that this one has collected, in one call.
//!
//! What the kernel does not take is kept in a lease, and its edge waited for. Read next: `closing.rs`.

use crate::clock;
use crate::connection::drain_write::{Flushed, drain_write};
use crate::connection::flags::Flags;
use crate::connection::slots::Evicted;
use crate::connection::visit::Visit;
use crate::handler::{CloseReason, Handler};
use crate::os::Os;
use crate::policy::WritePolicy;

impl<H: Handler, O: Os> Visit<'_, H, O> {
    /// Sends what earlier visits left.
    #[inline]
    pub(super) fn flush_kept(&mut self) {
        let beside = self.beside();
        if beside.output.is_some() && self.entry.control.flags.has(Flags::WRITABLE) {
            self.write_kept();
        } else if beside.evicted == Evicted::Output {
            // Nothing may be written behind the hole.
            self.break_off(CloseReason::OutputEvicted);
        }
    }

    /// Not inlined: it is seldom called, and the question before it is asked in every visit.
    #[inline(never)]
    fn write_kept(&mut self) {
        let slot = self.token.slot;
        let Some(lease) = self.shared.slots.get_mut(slot).output.as_mut() else { return };
        let result = drain_write(&mut self.entry.stream, lease.filled(), self.write_left_bytes, self.shared.policy.rest);
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(e) if self.stays_to_deliver(&e) => return,
            Err(_) => return self.die(CloseReason::Reset),
        };
        lease.consume(outcome.bytes);
        self.wrote(outcome.bytes, outcome.calls, outcome.flushed);
        if outcome.flushed == Flushed::All {
            self.shared.drop_output(slot);
            self.entry.stall_at = None;
            self.entry.control.flags.clear(Flags::OUTPUT_FULL);
        } else if outcome.bytes > 0 {
            self.shared.output_progressed(slot, outcome.bytes);
            self.entry.stall_at = clock::after(self.shared.now, self.shared.limits.write_stall_timeout);
        }
    }

    /// Sends what this visit has collected, in one call where the kernel takes it; keeps the rest.
    #[inline]
    pub(super) fn flush(&mut self) {
        if self.output.len() == 0 {
            return;
        }
        if self.entry.control.flags.has(Flags::DEAD.or(Flags::FAILED)) {
            // Nobody can read it.
            self.output.truncate(0);
            self.output_before = 0;
            return;
        }
        let mut sent = 0;
        while sent < self.output.len() && self.takes_output() {
            let end = match self.shared.policy.write {
                WritePolicy::Joined => self.output.len(),
                WritePolicy::Split => self.output.end_of_piece(sent), // MISTAKE(split-write): the second of two small writes waits until the first is acknowledged (Nagle), and the peer, who waits for the second, takes 40 ms over that.
            };
            match drain_write(&mut self.entry.stream, &self.output.filled()[sent..end], usize::MAX, self.shared.policy.rest) {
                Ok(outcome) => {
                    sent += outcome.bytes;
                    self.wrote(outcome.bytes, outcome.calls, outcome.flushed);
                    if outcome.flushed == Flushed::Full {
                        break;
                    }
                }
                Err(e) if self.stays_to_deliver(&e) => {}
                Err(_) => self.break_off(CloseReason::Reset),
            }
        }
        if sent < self.output.len() && !self.entry.control.flags.has(Flags::DEAD) {
            self.keep_unsent(sent);
        }
        self.output.truncate(0);
        self.output_before = 0;
    }

    /// Whether the kernel may take something, and nothing older has to go first.
    #[inline]
    fn takes_output(&self) -> bool {
        let flags = self.entry.control.flags;
        flags.has(Flags::WRITABLE) && !flags.has(Flags::DEAD) && self.beside().output.is_none()
    }

    #[inline]
    fn wrote(&mut self, bytes: usize, calls: u32, flushed: Flushed) {
        self.write_left_bytes = self.write_left_bytes.saturating_sub(bytes);
        let stats = &self.shared.stats;
        stats.writes.add(u64::from(calls));
        stats.bytes_written.add(bytes as u64);
        if bytes > 0 {
            self.shared.progress = true;
        }
        if flushed == Flushed::Full {
            self.shared.stats.short_writes.add(1);
            self.entry.control.flags.clear(Flags::WRITABLE);
        }
    }

    #[cold]
    fn keep_unsent(&mut self, sent: usize) {
        if self.entry.stall_at.is_none() {
            self.entry.stall_at = clock::after(self.shared.now, self.shared.limits.write_stall_timeout);
        }
        if !self.shared.keep_output(self.token.slot, &self.output.filled()[sent..]) {
            // A response that is cut short must not look complete.
            self.break_off(CloseReason::OutputEvicted);
        }
    }
}
