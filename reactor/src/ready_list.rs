//! The connections that can make progress and will get no event: two lists, in the manner of fq_codel (RFC 8290, section 4).
//!
//! One rule: a connection is on a list if and only if it can make progress now. A connection that waits for its peer and is on a
//! list makes every poll return at once (`hot-loop`). A connection that could resume and is on none hangs (`lost-resume`).
//!
//! *new* holds connections that an event or another connection made runnable and that found no time in their turn. *old* holds connections that
//! spent a quantum and have work left. *new* is served first, with at most half of the stage's time while *old* is not empty, so a
//! connection that asks for little does not wait for a round over thousands that ask for much, and those are not starved either.
//! `Slot::queued` says which list a connection is on, so that it is on one list, once.

use std::collections::VecDeque;

use crate::token::Token;

/// Which list a connection is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Queued {
    /// None: it waits for an event, for mail, for a deadline or for its close.
    #[default]
    No,
    /// Runnable, and not served yet.
    New,
    /// It has spent a quantum, and has work left.
    Old,
}

/// Both lists, each served in the order of arrival.
#[derive(Debug, Default)]
pub(crate) struct ReadyLists {
    new: VecDeque<Token>,
    old: VecDeque<Token>,
}

impl ReadyLists {
    /// Appends a connection that is on neither list.
    pub(crate) fn push_new(&mut self, token: Token) {
        self.new.push_back(token);
    }

    /// Appends a connection that is on neither list.
    pub(crate) fn push_old(&mut self, token: Token) {
        self.old.push_back(token);
    }

    pub(crate) fn pop_new(&mut self) -> Option<Token> {
        self.new.pop_front()
    }

    pub(crate) fn pop_old(&mut self) -> Option<Token> {
        self.old.pop_front()
    }

    pub(crate) fn new_len(&self) -> usize {
        self.new.len()
    }

    pub(crate) fn old_len(&self) -> usize {
        self.old.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.new.is_empty() && self.old.is_empty()
    }
}
