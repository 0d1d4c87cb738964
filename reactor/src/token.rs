//! The identity of a connection: its slot, and the generation, which counts the connections that have used the slot.
//!
//! Events and mail carry a token, and the loop compares the generation before it delivers them. So what was meant for a closed connection
//! does not reach the next connection in its slot (`stale-completion`; test: `late_mail_never_reaches_the_next_tenant`). HAProxy keeps the same
//! pair in `data.u64`, `src/ev_epoll.c`.

/// A slot and its generation. Two tokens of one loop are equal only if they identify the same connection. The generation has 32 bits, so a token
/// repeats after 2^32 connections in one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl Token {
    /// Slots from here up do not belong to connections: first the listeners', then the timer's and the waker's.
    pub(crate) const FIRST_LISTENER_SLOT: u32 = u32::MAX - 64;
    /// The number of slots from the first listener's to the timer's, excluded.
    pub(crate) const LISTENERS_MAX: usize = (u32::MAX - 1 - Token::FIRST_LISTENER_SLOT) as usize;
    pub(crate) const WAKER: Token = Token { slot: u32::MAX, generation: 0 };
    pub(crate) const TIMER: Token = Token { slot: u32::MAX - 1, generation: 0 };

    /// Both halves in the 64 bits that epoll stores for each descriptor (`epoll_event.data.u64`, epoll_ctl(2)).
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

    /// The slot: a small number that is unique among the open connections of the loop, and reused after the close.
    #[must_use]
    pub const fn slot(self) -> u32 {
        self.slot
    }
}
