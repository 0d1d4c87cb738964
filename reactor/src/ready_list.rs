//! The ready lists: connections that can make progress without another event. There are two, as in fq_codel (RFC 8290, section 4).
//!
//! At the end of a visit a connection joins *old* if it can still make progress (`progress::can_progress`). An event, a wake by another connection or
//! the eviction of its buffer puts it on *new* if it is not visited at once. A connection that can make progress and is on no list hangs
//! (`lost-resume`; `invariants.rs` checks this). A connection that waits for its peer must not stay on a list, because every poll would return at
//! once (`hot-loop`). The loop takes an entry off its list before the visit. If mail or a deadline has caused a visit before, this visit finds
//! nothing to do.
//!
//! *new* is served first, with at most half of the stage's time while *old* is not empty. So a connection that asks for little does not wait for a
//! round over thousands that ask for much, and those are not starved.
//! Tests: `a_light_client_is_answered_before_a_round_over_all_heavy_ones`,
//! `heavy_clients_are_not_starved_by_those_that_come_back_with_little`.
//!
//! `Slot::queued` names the list that a connection is on, so that it is not listed twice.

use std::collections::VecDeque;

use crate::token::Token;

/// Which list a connection is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Queued {
    /// On no list: it waits for an event, mail, another connection, a deadline or its close.
    #[default]
    No,
    /// On the new list: runnable, and not visited since.
    New,
    /// On the old list: visited, and still able to make progress.
    Old,
}

/// Both lists, each first in, first out.
#[derive(Debug, Default)]
pub(crate) struct ReadyLists {
    new: VecDeque<Token>,
    old: VecDeque<Token>,
}

impl ReadyLists {
    /// Appends to the new list a connection that is on neither list.
    pub(crate) fn push_new(&mut self, token: Token) {
        self.new.push_back(token);
    }

    /// Appends to the old list a connection that is on neither list.
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
