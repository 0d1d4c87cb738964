//! One loop accepts for all: each connection goes to the loop that has the fewest.
//!
//! The kernel balances by a hash (`SO_REUSEPORT`) or wakes whoever waits (`EPOLLEXCLUSIVE`); neither knows how many connections a loop
//! already has (failure mode H2; Envoy `connection_balance_config` exists for the same reason). It costs a message and a wake-up per
//! connection. Read next: `sharing.rs`, the other ways.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::event_loop::EventLoop;
use crate::handler::{Handler, Origin};
use crate::mail::{Envelope, Mailer};
use crate::os::Os;
use crate::stats::Stats;

/// A loop to hand connections to.
#[derive(Debug)]
pub struct Receiver<M> {
    mailer: Mailer<M>,
    stats: Arc<Stats>,
    /// Sent and perhaps not yet arrived: without it a burst would all go to the same loop.
    handed: u64,
}

impl<M> Receiver<M> {
    fn load(&self) -> u64 {
        let under_way = self.handed.saturating_sub(self.stats.adoptions.get());
        self.stats.connections_open.get() + under_way
    }
}

impl<H: Handler, O: Os> EventLoop<H, O> {
    /// This loop as a receiver, to be given to the loop that accepts.
    #[must_use]
    pub fn receiver(&self) -> Receiver<H::Mail> {
        Receiver { mailer: self.mailer(), stats: self.stats(), handed: 0 }
    }

    /// Spreads the connections that this loop accepts over itself and `receivers`, fewest first.
    pub fn hand_off_to(&mut self, receivers: Vec<Receiver<H::Mail>>) {
        self.receivers = receivers;
    }

    /// Keeps a new connection or hands it over.
    pub(crate) fn place(&mut self, stream: O::Stream, peer: SocketAddr, listener: usize, over: bool) {
        let own_load = self.entries.len() as u64;
        let fewest = self.receivers.iter_mut().min_by_key(|receiver| receiver.load()).filter(|receiver| receiver.load() < own_load);
        let Some((receiver, room)) = fewest.and_then(|receiver| Some((&mut receiver.handed, receiver.mailer.reserve_room()?))) else {
            return self.admit(stream, Origin::Accepted { peer, listener }, over);
        };
        match self.os.release(stream) {
            Ok(descriptor) => {
                *receiver += 1;
                self.shared.progress = true;
                // Comes back only if that loop has ended; dropping it closes the connection.
                drop(room.send(Envelope::Socket { descriptor, peer, listener }));
            }
            Err(e) => log::warn!("cannot hand a connection over: {e}"),
        }
    }
}
