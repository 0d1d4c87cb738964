//! Mail from other threads to the connections of a loop. A sender first reserves a permit for a mailbox slot, then sends.

use std::os::fd::OwnedFd;

use crate::address::Address;
use crate::mailbox::{Permit, Sender};
use crate::token::Token;

/// What the mailbox carries.
pub(crate) enum Envelope<M, D> {
    /// Mail for one connection.
    Mail(Token, M),
    /// A connection that another loop accepted for this one.
    Socket { descriptor: D, peer: Address, listener: usize },
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
