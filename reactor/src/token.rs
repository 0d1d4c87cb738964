//! The identity of a connection: which slot, and which of the slot's tenants.
//!
//! Events, mail and deadlines all carry one, and the loop compares the generation before it acts, so that nothing meant for a
//! connection that has gone can reach the one that took its slot (failure mode R6; HAProxy keeps the same pair in `data.u64`,
//! `src/ev_epoll.c`).

/// A slot and its generation. Two tokens are equal only if they mean the same connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl Token {
    /// Slots from here up are not connections: listeners, then the waker and the timer.
    pub(crate) const FIRST_LISTENER_SLOT: u32 = u32::MAX - 64;
    /// Slots between the first listener's and the timer's.
    pub(crate) const LISTENERS_MAX: usize = (u32::MAX - 1 - Token::FIRST_LISTENER_SLOT) as usize;
    pub(crate) const WAKER: Token = Token { slot: u32::MAX, generation: 0 };
    pub(crate) const TIMER: Token = Token { slot: u32::MAX - 1, generation: 0 };

    /// Both halves in the 64 bits that epoll carries for us (`epoll_event.data.u64`, epoll_ctl(2)).
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.slot as u64
    }

    /// The inverse of [`Token::to_bits`].
    #[must_use]
    pub const fn from_bits(bits: u64) -> Token {
        Token { slot: bits as u32, generation: (bits >> 32) as u32 }
    }

    pub(crate) const fn listener(index: u32) -> Token {
        Token { slot: Token::FIRST_LISTENER_SLOT + index, generation: 0 }
    }

    pub(crate) const fn listener_index(self) -> Option<usize> {
        if self.slot >= Token::FIRST_LISTENER_SLOT && self.slot < Token::TIMER.slot {
            Some((self.slot - Token::FIRST_LISTENER_SLOT) as usize)
        } else {
            None
        }
    }

    /// The slot: a small number that is unique among the connections open now, and reused afterwards.
    #[must_use]
    pub const fn slot(self) -> u32 {
        self.slot
    }
}
