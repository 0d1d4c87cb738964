//! One loop accepts for all: each connection goes to the loop that has the fewest.
//!
//! The kernel balances by a hash (`SO_REUSEPORT`) or wakes whoever waits (`EPOLLEXCLUSIVE`); neither knows how many connections a loop
//! already has (failure mode H2; Envoy `connection_balance_config` exists for the same reason). It costs a message and a wake-up per
//! connection.

use std::io;
use std::net::SocketAddr;

use crate::event_loop::EventLoop;
use crate::handler::{Handler, Origin};
use crate::listen::HandOffTarget;
use crate::mail::Envelope;
use crate::os::Os;

impl<H: Handler, O: Os> EventLoop<H, O> {
    /// This loop as a receiver, to be given to the loop that accepts. As long as it is not dropped, a drain does not end this loop before its
    /// grace time: a connection handed over at the last moment would be lost. The loop that accepts drops it when it drains itself.
    ///
    /// # Errors
    /// `InvalidInput` when the mailbox has no place left for the last message of another loop: `mail_max` is too small, or mail fills it.
    pub fn receiver(&mut self) -> io::Result<HandOffTarget<H::Mail, O::Handover>> {
        let mailer = self.mailer();
        let Some(room) = mailer.reserve_room() else {
            let text = format!("mail_max ({}) has no place for a loop that hands connections over", self.shared.limits.mail_max);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        };
        self.givers += 1;
        Ok(HandOffTarget { mailer, stats: self.stats(), handed: 0, gone: false, last_word: Some(room) })
    }

    /// Spreads the connections that this loop accepts over itself and `receivers`, fewest first.
    pub fn hand_off_to(&mut self, receivers: Vec<HandOffTarget<H::Mail, O::Handover>>) {
        self.receivers = receivers;
    }

    /// Whether some other loop can take a connection when this one cannot.
    pub(crate) fn can_hand_off(&self) -> bool {
        self.drain.is_none() && self.receivers.iter().any(HandOffTarget::has_room)
    }

    /// Keeps a new connection or hands it over.
    pub(crate) fn place(&mut self, stream: O::Stream, peer: SocketAddr, listener: usize, over: bool) {
        let origin = Origin::Accepted { peer, listener };
        if self.drain.is_some() {
            // The others drain too, or have ended: whoever comes now is told by us.
            return self.admit(stream, origin, over);
        }
        let own_load = if over { u64::MAX } else { self.entries.len() as u64 };
        let fewest = (0..self.receivers.len())
            .filter(|&index| self.receivers[index].has_room())
            .min_by_key(|&index| self.receivers[index].load())
            .filter(|&index| self.receivers[index].load() < own_load);
        let Some((index, room)) = fewest.and_then(|index| Some((index, self.receivers[index].mailer.reserve_room()?))) else {
            return self.admit(stream, origin, over);
        };
        let descriptor = match self.os.release(stream) {
            Ok(descriptor) => descriptor,
            Err(e) => return self.shared.logs.hand_off.warn(self.shared.now, format_args!("cannot hand a connection over: {e}")),
        };
        self.shared.progress = true;
        match room.send(Envelope::Socket { descriptor, peer, listener }) {
            Ok(()) => self.receivers[index].handed += 1,
            // That loop has ended. With nobody open it would look like the least loaded for ever.
            Err(Envelope::Socket { descriptor, .. }) => {
                self.receivers[index].gone = true;
                match self.os.adopt(descriptor) {
                    Ok(stream) => self.admit(stream, origin, over),
                    Err(e) => self.shared.logs.hand_off.warn(self.shared.now, format_args!("cannot take a connection back: {e}")),
                }
            }
            Err(Envelope::Mail(..) | Envelope::NoMoreSockets) => unreachable!("what comes back is what was sent"),
        }
    }
}
