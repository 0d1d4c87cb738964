//! Mail for connections from other threads: room first, then the letter; and the loop's remote control.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use crate::mailbox::{Room, Sender};
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
