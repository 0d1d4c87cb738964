//! Connections for the requests that are due.
//!
//! Read next: `../connection_pool.rs`.

use reactor::{Connect, LoopContext};

use super::Client;

/// Connections that are given a request in one turn, at most. Answers are read between turns: after a burst of 500 in one turn the first
/// answers would be read, and dated, milliseconds after they came.
const WAKES_PER_TURN_MAX: usize = 32;

impl Client {
    /// Wakes an idle connection for each arrival that waits, and opens connections where there are none.
    pub(super) fn supply(&mut self, cx: &mut LoopContext<'_>) {
        for (index, load) in self.loads.iter_mut().enumerate() {
            let mut wanted = load.wanted(self.now);
            let wakes_max = WAKES_PER_TURN_MAX.saturating_sub(load.pool.summoned());
            if wanted > wakes_max && load.pool.idle() > wakes_max {
                wanted = wakes_max;
                self.attention = true;
            }
            while wanted > 0
                && let Some(token) = load.pool.summon()
            {
                cx.wake(token);
                wanted -= 1;
            }
            // Before the start each connection is tried once: a server that refuses all must not keep the run from beginning.
            let to_open = if self.at_gate && self.started.is_none() { 0 } else { load.to_open(self.now) };
            for _ in 0..to_open {
                let tag = self.next_tag + 1;
                let mut connect = Connect::new(self.to, tag, load.class.connect_timeout);
                connect.from = load.class.from;
                if cx.connect(connect).is_err() {
                    break; // As many wait already. The end of one of them comes here again.
                }
                self.next_tag = tag;
                self.connecting.insert(tag, (index, self.now));
                load.connecting += 1;
            }
        }
    }
}
