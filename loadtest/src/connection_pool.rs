//! Which connections of a class are idle, and which have been told that there is work.
//!
//! Tokens only; the connections themselves belong to the loop. Idle ones take turns, so that all of them stay in use.
//! Read next: `class_load.rs`.

use std::collections::VecDeque;

use reactor::Token;

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Gone,
    Idle,
    /// Woken for an arrival; its callback has not run yet.
    Summoned,
    Busy,
}

/// The connections of one class on one thread.
#[derive(Debug, Default)]
pub struct ConnectionPool {
    /// By slot: the tenant and where it is. Grows to the highest slot seen.
    places: Vec<(Option<Token>, Place)>,
    /// Idle connections, longest idle first. May hold some that have gone since: `places` says.
    queue: VecDeque<Token>,
    idle: usize,
    summoned: usize,
    open: usize,
}

impl ConnectionPool {
    /// Connections that are free.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.idle
    }

    /// Connections that were woken and have not run yet: each will take an arrival.
    #[must_use]
    pub fn summoned(&self) -> usize {
        self.summoned
    }

    /// Connections established and not closed.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open
    }

    /// A connection is there, and busy until it says otherwise.
    pub fn opened(&mut self, token: Token) {
        let slot = token.slot() as usize;
        if self.places.len() <= slot {
            self.places.resize(slot + 1, (None, Place::Gone));
        }
        self.places[slot] = (Some(token), Place::Busy);
        self.open += 1;
    }

    /// A busy connection has nothing to do.
    pub fn rest(&mut self, token: Token) {
        if self.move_to(token, Place::Idle) {
            self.queue.push_back(token);
        }
    }

    /// The connection that has been idle longest, to be woken.
    pub fn summon(&mut self) -> Option<Token> {
        loop {
            let token = self.queue.pop_front()?;
            if self.place(token) == Place::Idle && self.move_to(token, Place::Summoned) {
                return Some(token);
            }
        }
    }

    /// A connection's callback runs: it is busy now.
    pub fn answered(&mut self, token: Token) {
        self.move_to(token, Place::Busy);
    }

    /// A connection has gone, or is about to. Saying so twice does no harm.
    pub fn closed(&mut self, token: Token) {
        if self.move_to(token, Place::Gone) {
            self.open -= 1;
        }
    }

    fn place(&self, token: Token) -> Place {
        match self.places.get(token.slot() as usize) {
            Some((Some(tenant), place)) if *tenant == token => *place,
            _ => Place::Gone,
        }
    }

    /// False if the connection had gone, or was there already.
    fn move_to(&mut self, token: Token, to: Place) -> bool {
        let from = self.place(token);
        if from == Place::Gone || from == to {
            return false;
        }
        self.idle -= usize::from(from == Place::Idle);
        self.summoned -= usize::from(from == Place::Summoned);
        self.idle += usize::from(to == Place::Idle);
        self.summoned += usize::from(to == Place::Summoned);
        self.places[token.slot() as usize].1 = to;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(slot: u64, generation: u64) -> Token {
        Token::from_bits(generation << 32 | slot)
    }

    #[test]
    fn idle_connections_take_turns() {
        let mut pool = ConnectionPool::default();
        let tokens = [token(3, 0), token(1, 0), token(2, 0)];
        for token in tokens {
            pool.opened(token);
            pool.rest(token);
        }
        for round in 0..6 {
            let token = pool.summon().unwrap();
            assert_eq!(token, tokens[round % 3]);
            pool.answered(token);
            pool.rest(token);
        }
        assert_eq!((pool.idle(), pool.summoned(), pool.open()), (3, 0, 3));
    }

    #[test]
    fn a_connection_that_closed_is_not_summoned_even_when_its_slot_has_a_new_tenant() {
        let mut pool = ConnectionPool::default();
        pool.opened(token(0, 0));
        pool.rest(token(0, 0));
        pool.closed(token(0, 0));
        pool.closed(token(0, 0));
        pool.opened(token(0, 1));
        assert_eq!(pool.summon(), None, "the new tenant is busy");
        pool.rest(token(0, 1));
        assert_eq!((pool.summon(), pool.summon()), (Some(token(0, 1)), None));
        assert_eq!((pool.idle(), pool.summoned(), pool.open()), (0, 1, 1));
        pool.closed(token(0, 1));
        assert_eq!((pool.idle(), pool.summoned(), pool.open()), (0, 0, 0));
    }
}
