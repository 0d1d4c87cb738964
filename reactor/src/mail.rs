//! Mail for connections from other threads: room first, then the letter; and the loop's remote control.
//!
//! Read next: `mailbox.rs`, the queue behind it.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::mailbox::{Room, Sender};
use crate::os::Wake;
use crate::token::Token;

/// What the mailbox carries.
pub(crate) enum Envelope<M, D> {
    /// For one connection.
    Mail(Token, M),
    /// A connection that another loop accepted for this one.
    Socket { descriptor: D, peer: SocketAddr, listener: usize },
    /// The last word of a loop that may have sent some: no more come from it.
    NoMoreSockets,
}

/// Sends mail to the connections of one loop, from any thread. Outlives the loop safely: mail then comes back to its sender. `D` is what loops hand
/// connections over as ([`crate::Os::Handover`]).
pub struct Mailer<M, D = OwnedFd> {
    pub(crate) sender: Sender<Envelope<M, D>>,
}

impl<M, D> Clone for Mailer<M, D> {
    fn clone(&self) -> Self {
        Mailer { sender: self.sender.clone() }
    }
}

impl<M, D> Mailer<M, D> {
    /// Reserves room for one piece of mail to a connection, at the time the work is admitted: so that the answer, once there, can
    /// neither block nor fail for want of room (failure mode B8). None when `mail_max` pieces are admitted and not delivered.
    #[must_use]
    pub fn reserve(&self, to: Token) -> Option<Reserved<M, D>> {
        Some(Reserved { room: self.sender.reserve()?, to })
    }

    /// Whether [`Mailer::reserve`] would have found room a moment ago.
    pub(crate) fn has_room(&self) -> bool {
        self.sender.has_room()
    }

    /// Room for a connection handed over by another loop.
    pub(crate) fn reserve_room(&self) -> Option<Room<Envelope<M, D>>> {
        self.sender.reserve()
    }
}

/// Room for one piece of mail. Dropping it gives the room back.
pub struct Reserved<M, D = OwnedFd> {
    room: Room<Envelope<M, D>>,
    to: Token,
}

impl<M, D> Reserved<M, D> {
    /// Sends. Never blocks and never lacks room.
    ///
    /// # Errors
    /// Gives the mail back if the loop has ended.
    pub fn send(self, mail: M) -> Result<(), M> {
        self.room.send(Envelope::Mail(self.to, mail)).map_err(|envelope| match envelope {
            Envelope::Mail(_, mail) => mail,
            Envelope::Socket { .. } | Envelope::NoMoreSockets => unreachable!("mail comes back as it was sent"),
        })
    }

    /// Whom it is for.
    #[must_use]
    pub fn to(&self) -> Token {
        self.to
    }
}

/// Orders for a loop that it has not taken yet.
#[derive(Debug)]
pub(crate) struct Orders {
    stop: AtomicBool,
    /// The shortest grace of the drains that were asked for, or [`NO_DRAIN`].
    grace_nanos: AtomicU64,
}

/// Longer than any grace: 584 years is the longest.
const NO_DRAIN: u64 = u64::MAX;

impl Default for Orders {
    fn default() -> Orders {
        Orders { stop: AtomicBool::new(false), grace_nanos: AtomicU64::new(NO_DRAIN) }
    }
}

/// What the loop is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    None,
    Drain(Duration),
    Stop,
}

impl Orders {
    /// What to do that was not taken before. A stop stays.
    pub(crate) fn take(&self) -> Order {
        if self.stop.load(Ordering::Acquire) {
            return Order::Stop;
        }
        // Asked in every turn: the swap only when there is something to take.
        if self.grace_nanos.load(Ordering::Acquire) == NO_DRAIN {
            return Order::None;
        }
        Order::Drain(Duration::from_nanos(self.grace_nanos.swap(NO_DRAIN, Ordering::AcqRel)))
    }
}

/// Remote control of one loop, from any thread.
#[derive(Clone)]
pub struct Handle {
    pub(crate) orders: Arc<Orders>,
    pub(crate) wake: Arc<dyn Wake>,
}

impl Handle {
    /// Ends the loop after its current turn. Connections are closed as they are.
    pub fn stop(&self) {
        self.orders.stop.store(true, Ordering::Release);
        self.wake_loop();
    }

    /// Accepts what the kernel has queued, stops listening, tells every connection [`crate::Pressure::Draining`], and ends the loop
    /// when the last has closed or `grace` is over. The grace counts from the end of the turn in which the loop takes the order.
    ///
    /// Called again, it can bring the end nearer and not put it off: of all drains that were asked for, the one that ends first holds. A stop
    /// ends the loop at once, whatever grace is left.
    pub fn drain(&self, grace: Duration) {
        let nanos = u64::try_from(grace.as_nanos()).unwrap_or(NO_DRAIN).min(NO_DRAIN - 1);
        self.orders.grace_nanos.fetch_min(nanos, Ordering::AcqRel);
        self.wake_loop();
    }

    fn wake_loop(&self) {
        if let Err(e) = self.wake.wake() {
            log::error!("cannot wake a loop: {e}");
        }
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("orders", &self.orders).finish_non_exhaustive()
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
