//! The connections that stopped early and will get no event.
//!
//! One rule: a connection is on the list if and only if it can make progress now. A connection that waits for its peer and is on the
//! list makes every poll return at once (failure mode R4); one that could go on and is not on it hangs (R3). The bit that says so
//! lies beside the connection (`connection/slots.rs`), so that nobody is on the list twice. Read next: `event_loop.rs`.

use std::collections::VecDeque;

use crate::token::Token;

/// A queue: served in the order of arrival, each once.
#[derive(Debug, Default)]
pub(crate) struct ReadyList {
    waiting: VecDeque<Token>,
}

impl ReadyList {
    /// Appends a connection that is not on the list.
    pub(crate) fn push(&mut self, token: Token) {
        self.waiting.push_back(token);
    }

    /// The next in turn.
    pub(crate) fn pop(&mut self) -> Option<Token> {
        self.waiting.pop_front()
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
