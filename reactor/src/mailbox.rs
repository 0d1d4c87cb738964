//! Mail for a loop from other threads: bounded, room reserved in advance, one wake for a burst.
//!
//! *Room first.* Whoever admits work reserves the room for its answer ([`Sender::reserve`]); so an answer can always be sent, at
//! once, by a thread that must not wait. The room is free again when the loop takes the mail.
//!
//! *One wake for a burst.* Each sender swaps the flag `notified` to true, and only the one that found it false wakes the loop. A
//! write to the eventfd for each piece would cost a system call and a turn each (failure mode R9).
//!
//! *The order.* The loop clears the flag and then empties the channel. In the other order, mail that comes after the last look and
//! before the clearing finds the flag set, wakes nobody, and lies there while the loop sleeps (failure mode R8, [`DrainOrder`]).
//!
//! This code, with loom's atomics and a model of the channel, is checked under every interleaving (of up to three preemptions):
//! `RUSTFLAGS="--cfg loom" cargo test -p reactor --release loom`. The models are in `mailbox/loom_tests.rs`, and one of them shows
//! that the mistake is found.

mod channel;
#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

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
use crate::policy::DrainOrder;

/// A channel into a loop, with room for `capacity` pieces of mail, reserved or sent. `wake` ends the loop's poll.
pub(crate) fn mailbox<T>(capacity: u32, wake: StdArc<dyn Wake>) -> (Sender<T>, Inbox<T>) {
    let (channel, receiver) = channel::bounded(capacity as usize);
    let shared = Arc::new(Shared {
        channel,
        capacity,
        rooms_taken: AtomicU32::new(0),
        notified: AtomicBool::new(false),
        wake_failed: AtomicBool::new(false),
        wake,
    });
    (Sender { shared: shared.clone() }, Inbox { receiver, shared, order: DrainOrder::default(), clear_at_end: false })
}

struct Shared<T> {
    channel: channel::Sender<T>,
    capacity: u32,
    /// Rooms reserved, and mail sent and not yet taken. Never more than `capacity`.
    rooms_taken: AtomicU32,
    /// Somebody has woken the loop, and it has not begun to drain since.
    notified: AtomicBool,
    /// A wake has failed and was logged.
    wake_failed: AtomicBool,
    wake: StdArc<dyn Wake>,
}

impl<T> Shared<T> {
    /// Wakes the loop, unless somebody did since it last began to drain.
    fn notify(&self) {
        // A swap and not "load, then store": of many senders exactly one finds false. AcqRel, because the loop's swap in `clear`
        // must see the mail of those who found true.
        if self.notified.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Err(error) = self.wake.wake() {
            // The mail stays in the channel. The next sender must try again, so the flag may not stay set.
            self.notified.swap(false, Ordering::AcqRel);
            if !self.wake_failed.swap(true, Ordering::Relaxed) {
                log::error!("mail is late: waking the event loop failed: {error}");
            }
        }
    }

    /// From here on a sender wakes the loop again. A plain store would not do: it can stay in the core's store buffer while the loop
    /// looks into the channel and finds nothing, and a sender in between would still find the flag set.
    fn clear(&self) {
        self.notified.swap(false, Ordering::AcqRel);
    }

    fn give_room_back(&self) {
        // Release: who gets this room next must find the channel's place empty.
        let before = self.rooms_taken.fetch_sub(1, Ordering::Release);
        debug_assert!(before > 0, "a room was given back twice");
    }
}

/// The senders' end. Clones share one mailbox and its room. It may outlive the loop.
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
    /// Takes room for one piece of mail, or `None` when all is reserved or full of mail. Never waits.
    pub(crate) fn reserve(&self) -> Option<Room<T>> {
        let capacity = self.shared.capacity;
        // Acquire: pairs with `give_room_back`.
        self.shared
            .rooms_taken
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |taken| (taken < capacity).then_some(taken + 1))
            .ok()
            .map(|_| Room { shared: self.shared.clone(), used: false })
    }
}

impl<T> Sender<T> {
    /// Whether there is room now. Somebody else may take it: only [`Sender::reserve`] keeps it.
    pub(crate) fn has_room(&self) -> bool {
        self.shared.rooms_taken.load(Ordering::Relaxed) < self.shared.capacity
    }
}

/// Room for one piece of mail. Dropping it gives the room back.
#[must_use = "dropping it gives the room back"]
pub(crate) struct Room<T> {
    shared: Arc<Shared<T>>,
    used: bool,
}

impl<T> std::fmt::Debug for Room<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room").finish_non_exhaustive()
    }
}

impl<T> Room<T> {
    /// Sends. It cannot wait and cannot lack room.
    ///
    /// # Errors
    /// Gives the mail back when the loop has ended. (Mail that was sent just before that is dropped with the mailbox.)
    pub(crate) fn send(mut self, mail: T) -> Result<(), T> {
        match self.shared.channel.try_send(mail) {
            Ok(()) => {
                self.used = true; // The loop gives the room back, when it takes the mail.
                self.shared.notify();
                Ok(())
            }
            Err(TrySendError::Disconnected(mail)) => Err(mail),
            Err(TrySendError::Full(_)) => panic!("the mailbox is full although room was reserved: the count of rooms is wrong"),
        }
    }
}

impl<T> Drop for Room<T> {
    fn drop(&mut self) {
        if !self.used {
            self.shared.give_room_back();
        }
    }
}

/// The loop's end. Dropping it drops the mail that was not taken; later mail goes back to its sender.
pub(crate) struct Inbox<T> {
    receiver: channel::Receiver<T>,
    shared: Arc<Shared<T>>,
    order: DrainOrder,
    clear_at_end: bool,
}

impl<T> std::fmt::Debug for Inbox<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").field("order", &self.order).finish_non_exhaustive()
    }
}

impl<T> Inbox<T> {
    /// Chooses when the flag is cleared.
    pub(crate) fn set_drain_order(&mut self, order: DrainOrder) {
        self.order = order;
    }

    /// Call this before the first [`Inbox::take`] of a turn.
    pub(crate) fn start_draining(&mut self) {
        match self.order {
            DrainOrder::ClearThenDrain => self.shared.clear(),
            DrainOrder::DrainThenClear => self.clear_at_end = true, // MISTAKE(lost-wakeup): mail sent between the last look and the clearing wakes nobody.
        }
    }

    /// Takes one piece, in the order in which each sender sent, and gives its room back.
    ///
    /// After `None` the loop may sleep: whatever comes later wakes it. If it stops before, because its budget is spent, it must not:
    /// for mail that was there when it began to drain, nobody wakes it again.
    pub(crate) fn take(&mut self) -> Option<T> {
        let Ok(mail) = self.receiver.try_recv() else {
            if std::mem::take(&mut self.clear_at_end) {
                self.shared.clear();
            }
            return None;
        };
        self.shared.give_room_back();
        Some(mail)
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        // crossbeam keeps what lies in a bounded channel until its last sender goes too, and ours live in other threads. What is sent
        // between this and the channel's closing a moment later waits for that.
        while self.take().is_some() {}
    }
}
