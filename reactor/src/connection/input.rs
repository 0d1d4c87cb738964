//! The input half of a visit: the rest of earlier visits, what the socket has, the messages in it, and the new rest.
//!
//! A read is no message: TCP keeps the order of bytes and nothing else (RFC 9293 section 2.2). A message may come in any number of reads
//! and a read may hold any number of messages, so what no message took stays until more has come. Read next: `sending.rs`.

use crate::callback::Callback;
use crate::connection::buffers::{BufferOwner, Lease};
use crate::connection::drain_read::{Drained, drain_read};
use crate::connection::flags::Flags;
use crate::connection::slots::Evicted;
use crate::connection::visit::Visit;
use crate::context::Context;
use crate::handler::{CloseReason, Handler};
use crate::os::Os;
use crate::policy::Framing;

/// The loop's one input buffer, into which every visit reads.
#[derive(Debug)]
pub(crate) struct InputScratch {
    pub(super) bytes: Box<[u8]>,
    /// Partial input that the running visit offers to the handler where it is, without a copy. Empty between visits.
    pub(super) in_hand: Option<Lease>,
}

impl InputScratch {
    pub(crate) fn new(bytes: usize) -> InputScratch {
        InputScratch { bytes: vec![0; bytes].into_boxed_slice(), in_hand: None }
    }
}

impl<H: Handler, O: Os> Visit<'_, H, O> {
    /// Whether this visit may read: the socket may have input, the handler wants it, and no whole message is left of what was read before.
    #[inline]
    pub(super) fn may_read(&self) -> bool {
        const ALL: Flags = Flags::READABLE.or(Flags::HELD).or(Flags::INPUT_ENDED).or(Flags::INPUT_WAITS).or(Flags::UNPARSED);
        self.entry.control.flags.only(ALL, Flags::READABLE)
    }

    /// Whether the partial input may hold whole messages, and the handler wants them.
    #[inline]
    pub(super) fn may_parse(&self) -> bool {
        self.messages_left > 0 && self.entry.control.flags.only(Flags::UNPARSED.or(Flags::HELD).or(Flags::INPUT_WAITS), Flags::UNPARSED)
    }

    /// Takes the partial input in hand, so that it is offered to the handler where it is: nothing is copied. What a connection has left when its
    /// quantum is spent stays in the socket. False if there is none.
    #[cold]
    pub(super) fn take_in_hand(&mut self) -> bool {
        self.scratch.in_hand = self.shared.take_lease(BufferOwner::Input, self.token.slot);
        self.scratch.in_hand.is_some()
    }

    pub(super) fn in_hand_bytes(&self) -> usize {
        self.scratch.in_hand.as_ref().map_or(0, Lease::len)
    }

    /// Puts back what no message took of the input in hand.
    #[cold]
    pub(super) fn put_back(&mut self, taken: usize, filled: usize) {
        let Some(mut lease) = self.scratch.in_hand.take() else { return };
        if taken > 0 {
            self.shared.progress = true; // Also where nothing was read or written.
        }
        if taken == filled || self.entry.control.flags.has(Flags::NO_MORE_MESSAGES) {
            return self.shared.buffers.give_back(BufferOwner::Input, lease);
        }
        lease.consume(taken);
        self.shared.put_input_back(self.token.slot, lease);
    }

    /// The unfinished rest of earlier visits goes in front, so that a message is always one slice. It costs a copy of at most one
    /// buffer per visit (a 64 KiB copy is about the price of a read(2)); a message that needs more is refused.
    #[inline]
    pub(super) fn copy_kept_input(&mut self) -> usize {
        match &self.shared.slots.get(self.token.slot).input {
            None => 0,
            Some(lease) => {
                let bytes = lease.filled();
                self.scratch.bytes[..bytes.len()].copy_from_slice(bytes);
                bytes.len()
            }
        }
    }

    /// Reads behind the `kept_bytes`; returns how far the scratch is filled.
    #[inline]
    pub(super) fn read(&mut self, kept_bytes: usize) -> usize {
        let flags = &mut self.entry.control.flags;
        let short_read_is_empty = !flags.has(Flags::READ_TO_THE_END);
        let shared = &mut *self.shared;
        // What is read and not taken needs a buffer, so less is read where they are short.
        let end = self.scratch.bytes.len().min(kept_bytes.saturating_add(shared.buffers.input_space_bytes()));
        let into = &mut self.scratch.bytes[kept_bytes..end];
        let reads_max = shared.limits.visit_reads_max;
        match drain_read(&mut self.entry.stream, into, reads_max, shared.policy.drain, short_read_is_empty) {
            Ok(outcome) => {
                match outcome.drained {
                    Drained::Empty => flags.clear(Flags::READABLE),
                    Drained::BudgetSpent | Drained::BufferFull => shared.stats.budget_exits.add(1),
                    Drained::PeerClosed => {
                        flags.clear(Flags::READABLE);
                        flags.set(Flags::INPUT_ENDED);
                    }
                    Drained::Failed(_) => {}
                }
                shared.stats.reads.add(u64::from(outcome.calls));
                shared.stats.bytes_read.add(outcome.bytes as u64);
                if outcome.bytes > 0 {
                    shared.progress = true;
                    flags.set(Flags::UNPARSED);
                }
                if let Drained::Failed(kind) = outcome.drained {
                    self.read_failed(&kind.into());
                } else if flags.has(Flags::FAILED) {
                    self.read_after_failure(outcome.drained);
                }
                kept_bytes + outcome.bytes
            }
            Err(e) => {
                self.read_failed(&e);
                kept_bytes
            }
        }
    }

    /// Hands out messages from `taken` on until the handler needs more, is held, or has had its share. Returns how far it came.
    #[inline]
    pub(super) fn messages(&mut self, mut taken: usize, filled: usize) -> usize {
        let output_end_max = self.output_end_max();
        if let Some(conn) = self.entry.conn.as_mut() {
            while taken < filled && self.entry.control.flags.only(Flags::UNPARSED.or(Flags::HELD), Flags::UNPARSED) {
                if self.messages_left == 0 {
                    self.shared.stats.budget_exits.add(1);
                    return taken;
                }
                self.messages_left -= 1;
                let flags = &mut self.entry.control.flags;
                // Who asks for room in this very call waits with its input; who asked before waits with its output only.
                let wanted_room = flags.has(Flags::WANTS_ROOM);
                flags.clear(Flags::WANTS_ROOM.or(Flags::INPUT_WAITS));
                self.output_before = self.output.len();
                self.shared.stats.enter(Callback::Input, self.token.slot);
                let mut cx = Context {
                    shared: self.shared,
                    output: self.output,
                    output_end_max,
                    control: &mut self.entry.control,
                    token: self.token,
                };
                let input = match &self.scratch.in_hand {
                    None => &self.scratch.bytes[taken..filled],
                    Some(lease) => &lease.filled()[taken..],
                };
                let used = self.handler.input(conn, input, &mut cx);
                self.shared.stats.leave();
                assert!(used <= filled - taken, "a handler took {used} bytes of {}", filled - taken);
                taken = match self.shared.policy.framing {
                    Framing::ByMessage => taken + used,
                    Framing::ByRead => filled, // MISTAKE(partial-read): half a message is forgotten before its other half comes, and so is whatever came behind a whole one.
                };
                let flags = &mut self.entry.control.flags;
                let asked_for_room = flags.has(Flags::WANTS_ROOM);
                if wanted_room {
                    flags.set(Flags::WANTS_ROOM);
                }
                if used == 0 {
                    if asked_for_room {
                        if flags.has(Flags::FAILED) {
                            // Output space never comes again.
                            self.die(CloseReason::Reset);
                            return taken;
                        }
                        if self.room_was_in_vain && self.output.len() == 0 && self.shared.slots.get(self.token.slot).output.is_none() {
                            // All the space is free. Nothing has changed since it asked before, and nothing would. Test: `asking_for_output_space_never_spins`.
                            self.die(CloseReason::OutputSpaceTooSmall);
                            return taken;
                        }
                        flags.set(Flags::INPUT_WAITS);
                        return taken;
                    }
                    if flags.has(Flags::PAUSED.or(Flags::NO_MORE_MESSAGES)) {
                        return taken;
                    }
                    flags.clear(Flags::UNPARSED);
                    if filled == self.scratch.bytes.len() && taken == 0 {
                        self.die(CloseReason::MessageTooLong);
                    }
                    break;
                }
            }
        }
        if taken == filled {
            self.entry.control.flags.clear(Flags::UNPARSED);
        }
        self.end_input(filled - taken);
        taken
    }

    /// Calls `ended` once the peer's last byte was read and every whole message was taken; `rest_bytes` of an unfinished one are left.
    #[inline]
    pub(super) fn end_input(&mut self, rest_bytes: usize) {
        let flags = self.entry.control.flags;
        if flags.has(Flags::INPUT_ENDED) && !flags.has(Flags::END_TOLD.or(Flags::UNPARSED).or(Flags::HELD)) {
            self.flags().set(Flags::END_TOLD);
            self.call(Callback::Ended, |handler, conn, cx| handler.ended(conn, rest_bytes, cx));
        }
    }

    /// Keeps what no message took. `kept_bytes` of it are in the lease already.
    #[inline]
    pub(super) fn keep_rest(&mut self, kept_bytes: usize, taken: usize, filled: usize) {
        let slot = self.token.slot;
        if taken > 0 {
            self.shared.progress = true; // Also where nothing was read or written.
        }
        if self.entry.control.flags.has(Flags::NO_MORE_MESSAGES) || taken == filled {
            if kept_bytes > 0 {
                self.shared.drop_input(slot);
            }
            return;
        }
        if taken == 0 && kept_bytes == filled {
            return;
        }
        if self.beside().evicted != Evicted::Nothing {
            return; // It was evicted in this very visit.
        }
        let kept_bytes = if taken > 0 {
            // What is left is another message.
            self.shared.drop_input(slot);
            0
        } else {
            kept_bytes
        };
        self.shared.keep_input(slot, &self.scratch.bytes[taken + kept_bytes..filled]);
    }
}
