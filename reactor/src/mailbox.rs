//! Mail for a loop from other threads: bounded, with slots reserved in advance, and one wake-up for a burst.
//!
//! *Permits.* The code that admits a job reserves a slot for its result ([`Sender::reserve`]). So a worker thread can send the result at once, and
//! does not wait for a slot. The slot is free again when the loop takes the mail.
//!
//! *One wake-up for a burst.* Each sender swaps the flag `notified` to true, and only the sender that found it false wakes the loop. A
//! write to the eventfd for each piece of mail would cost a system call and a turn each.
//!
//! *The order.* The loop clears the flag and then empties the channel. In the other order, mail that is sent after the last `try_recv` and
//! before the clearing finds the flag set, wakes no loop, and stays in the channel while the loop sleeps (`lost-wakeup`, [`MailboxOrder`]).
//!
//! This code, with loom's atomics and a model of the channel, is checked under every interleaving (of up to three preemptions):
//! `RUSTFLAGS="--cfg loom" cargo test -p reactor --release loom`. The models are in `mailbox/loom_tests.rs`. One of them shows that the mistake
//! `lost-wakeup` is found.

mod channel;
#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

use crate::address::Address;
use crate::listen::slots_taken::Reservation;
use crate::token::Token;
use std::os::fd::OwnedFd;
use std::sync::Arc as StdArc;

#[cfg(loom)]
use loom::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};
#[cfg(not(loom))]
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use self::channel::TrySendError;
use crate::os::Wake;
use crate::policy::MailboxOrder;

/// A channel into a loop with `capacity` slots for mail, reserved or sent. `wake` ends the loop's poll.
pub(crate) fn mailbox<T>(capacity: u32, wake: StdArc<dyn Wake>) -> (Sender<T>, Inbox<T>) {
    let (channel, receiver) = channel::bounded(capacity as usize);
    let shared = Arc::new(Shared {
        channel,
        capacity,
        permits_taken: AtomicU32::new(0),
        notified: AtomicBool::new(false),
        wake_failed: AtomicBool::new(false),
        wake,
    });
    (Sender { shared: shared.clone() }, Inbox { receiver, shared, order: MailboxOrder::default(), clear_at_end: false })
}

struct Shared<T> {
    channel: channel::Sender<T>,
    capacity: u32,
    /// Slots that are reserved or hold mail that was not taken yet. At most `capacity`.
    permits_taken: AtomicU32,
    /// A sender has woken the loop, and the loop has not begun to empty the channel since.
    notified: AtomicBool,
    /// A wake-up has failed, and the error was logged.
    wake_failed: AtomicBool,
    wake: StdArc<dyn Wake>,
}

impl<T> Shared<T> {
    /// Wakes the loop, unless another sender has woken it since it last began to empty the channel.
    fn notify(&self) {
        // A swap and not a load and a store, so that of several senders exactly one finds false. AcqRel, because after its swap in `clear` the
        // loop must see the mail of the senders that found true.
        if self.notified.swap(true, Ordering::AcqRel) {
            return;
        }
        // Tried twice. The mail may be a connection that another loop handed over, whose client sends nothing before it has an answer: if no
        // later mail comes, nothing else wakes the loop for it.
        if let Err(error) = self.wake.wake().or_else(|_| self.wake.wake()) {
            // The mail stays in the channel. The next sender must try again, so the flag may not stay set.
            self.notified.swap(false, Ordering::AcqRel);
            if !self.wake_failed.swap(true, Ordering::Relaxed) {
                log::error!("waking the event loop failed, so mail is delivered late: {error}");
            }
        }
    }

    /// Clears the flag, so that the next sender wakes the loop again. A plain store is not enough: it can stay in the core's store buffer while
    /// the loop finds the channel empty, and a sender at that time would still find the flag set.
    fn clear(&self) {
        self.notified.swap(false, Ordering::AcqRel);
    }

    fn give_permit_back(&self) {
        // Release: the sender that reserves this slot next must find the channel's slot empty.
        let before = self.permits_taken.fetch_sub(1, Ordering::Release);
        debug_assert!(before > 0, "a mailbox slot was released twice");
    }
}

/// The sending end. Clones share one mailbox and its slots. It may outlive the loop.
pub(crate) struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        Sender { shared: self.shared.clone() }
    }
}

impl<T> std::fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("capacity", &self.shared.capacity).finish_non_exhaustive()
    }
}

impl<T> Sender<T> {
    /// Reserves a slot for one piece of mail. `None` when all slots are reserved or hold mail. Does not block.
    pub(crate) fn reserve(&self) -> Option<Permit<T>> {
        let capacity = self.shared.capacity;
        // Acquire: pairs with `give_permit_back`.
        self.shared
            .permits_taken
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |taken| (taken < capacity).then_some(taken + 1))
            .ok()
            .map(|_| Permit { shared: self.shared.clone(), used: false })
    }
}

impl<T> Sender<T> {
    /// Whether a slot is free now. Another sender may take it at any time: only [`Sender::reserve`] reserves it.
    pub(crate) fn has_permit(&self) -> bool {
        self.shared.permits_taken.load(Ordering::Relaxed) < self.shared.capacity
    }
}

/// A permit for one piece of mail. Dropping it releases the slot.
#[must_use = "dropping it gives the permit back"]
pub(crate) struct Permit<T> {
    shared: Arc<Shared<T>>,
    used: bool,
}

impl<T> std::fmt::Debug for Permit<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

impl<T> Permit<T> {
    /// Sends the mail. Does not block, and does not fail for lack of a slot, because the slot is reserved.
    ///
    /// # Errors
    /// Returns the mail when the loop has ended. Mail that was sent just before the end is dropped with the mailbox.
    pub(crate) fn send(mut self, mail: T) -> Result<(), T> {
        match self.shared.channel.try_send(mail) {
            Ok(()) => {
                self.used = true; // The loop releases the slot when it takes the mail.
                self.shared.notify();
                Ok(())
            }
            Err(TrySendError::Disconnected(mail)) => Err(mail),
            Err(TrySendError::Full(_)) => panic!("the mailbox is full although a slot was reserved: the count of slots is wrong"),
        }
    }
}

impl<T> Drop for Permit<T> {
    fn drop(&mut self) {
        if !self.used {
            self.shared.give_permit_back();
        }
    }
}

/// The receiving end. Dropping it drops the mail that was not taken. A later send returns the mail to its sender.
pub(crate) struct Inbox<T> {
    receiver: channel::Receiver<T>,
    shared: Arc<Shared<T>>,
    order: MailboxOrder,
    clear_at_end: bool,
}

impl<T> std::fmt::Debug for Inbox<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").field("order", &self.order).finish_non_exhaustive()
    }
}

impl<T> Inbox<T> {
    /// Chooses when the flag is cleared.
    pub(crate) fn set_order(&mut self, order: MailboxOrder) {
        self.order = order;
    }

    /// Begins to empty the channel. To be called before the first [`Inbox::take`] of a turn.
    pub(crate) fn start_emptying(&mut self) {
        match self.order {
            MailboxOrder::ClearThenEmpty => self.shared.clear(),
            MailboxOrder::EmptyThenClear => self.clear_at_end = true, // MISTAKE(lost-wakeup): mail sent between the last `try_recv` and the clearing of the flag wakes no loop.
        }
    }

    /// Takes one piece of mail and releases its slot. Mail of one sender comes in the order in which it was sent.
    ///
    /// After `None` the loop may sleep, because later mail wakes it. If the loop stops earlier, because its budget is spent, it must not sleep:
    /// no sender wakes it again for mail that was there when it began to empty the channel.
    pub(crate) fn take(&mut self) -> Option<T> {
        let Ok(mail) = self.receiver.try_recv() else {
            if std::mem::take(&mut self.clear_at_end) {
                self.shared.clear();
            }
            return None;
        };
        self.shared.give_permit_back();
        Some(mail)
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        // crossbeam keeps the content of a bounded channel until its last sender is dropped, and the senders live in other threads. Mail that
        // is sent between this loop and the closing of the channel is dropped only then.
        while self.take().is_some() {}
    }
}

// Mail from other threads to the connections of a loop. A sender first reserves a permit for a mailbox slot, then sends.

/// What the mailbox carries.
pub(crate) enum Envelope<M, D> {
    /// Mail for one connection.
    Mail(Token, M),
    /// A connection that another loop accepted for this one.
    Socket { descriptor: D, peer: Address, listener: usize, reservation: Reservation },
    /// The final message of another loop that may have sent sockets: it sends no more.
    NoMoreSockets,
}

/// Sends mail to the connections of one loop, from any thread. May outlive the loop: a send then returns the mail to its sender. `D` is the type in
/// which loops hand connections over ([`crate::Os::Handover`]).
pub struct Mailer<M, D = OwnedFd> {
    pub(crate) sender: Sender<Envelope<M, D>>,
}

impl<M, D> Clone for Mailer<M, D> {
    fn clone(&self) -> Self {
        Mailer { sender: self.sender.clone() }
    }
}

impl<M, D> Mailer<M, D> {
    /// Reserves a permit for one piece of mail to a connection. Reserve it when the job is admitted: then sending the result neither blocks nor
    /// fails for lack of a slot. Otherwise the pool could wait for the loop while the loop waits for the pool. `None` when `mail_max` pieces
    /// of mail are reserved or not delivered yet. Never blocks.
    #[must_use]
    pub fn reserve(&self, to: Token) -> Option<Reserved<M, D>> {
        Some(Reserved { permit: self.sender.reserve()?, to })
    }

    /// Whether [`Mailer::reserve`] would have succeeded a moment ago.
    pub(crate) fn has_permit(&self) -> bool {
        self.sender.has_permit()
    }

    /// A permit for a connection handed over by another loop.
    pub(crate) fn reserve_permit(&self) -> Option<Permit<Envelope<M, D>>> {
        self.sender.reserve()
    }
}

/// A permit for one piece of mail to one connection. Dropping it releases the mailbox slot.
pub struct Reserved<M, D = OwnedFd> {
    permit: Permit<Envelope<M, D>>,
    to: Token,
}

impl<M, D> Reserved<M, D> {
    /// Sends the mail. Does not block, and does not fail for lack of a slot, because the slot is reserved.
    ///
    /// # Errors
    /// Returns the mail if the loop has ended.
    pub fn send(self, mail: M) -> Result<(), M> {
        self.permit.send(Envelope::Mail(self.to, mail)).map_err(|envelope| match envelope {
            Envelope::Mail(_, mail) => mail,
            Envelope::Socket { .. } | Envelope::NoMoreSockets => unreachable!("a failed send returns the envelope that was sent"),
        })
    }

    /// The connection that the mail is for.
    #[must_use]
    pub fn to(&self) -> Token {
        self.to
    }
}

impl<M, D> std::fmt::Debug for Mailer<M, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailer").finish_non_exhaustive()
    }
}

impl<M, D> std::fmt::Debug for Reserved<M, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reserved").field("to", &self.to).finish_non_exhaustive()
    }
}
