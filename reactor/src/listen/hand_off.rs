//! Handing connections to other loops: one loop accepts, and gives each connection to the loop with the fewest.
//!
//! The kernel balances by a hash (`SO_REUSEPORT`) or wakes a waiting loop (`EPOLLEXCLUSIVE`). Neither takes account of the number of
//! connections that a loop has, so one loop can get most of them (Envoy `connection_balance_config` exists for the same reason). A hand-off
//! costs a message and a wake-up per connection. Tests: `several_loops_share_the_clients`.

use std::io;

use crate::address::Address;
use crate::event_loop::{EventLoop, StageTime};
use crate::handler::{Handler, Origin};
use crate::listen::{Adoption, HandOffTarget};
use crate::mailbox::Envelope;
use crate::os::Os;

impl<H: Handler, O: Os> EventLoop<H, O> {
    /// This loop as a target, for [`EventLoop::hand_off_to`] of the loop that accepts. Until the target is dropped, a drain of this loop
    /// lasts for its grace time, because a connection that is handed over late would be lost. The accepting loop drops the target when it
    /// drains itself.
    ///
    /// # Errors
    /// `InvalidInput` when the mailbox has no space for the final message of another loop: `mail_max` is too small, or mail fills it.
    pub fn receiver(&mut self) -> io::Result<HandOffTarget<H::Mail, O::Handover>> {
        let mailer = self.mailer();
        let Some(permit) = mailer.reserve_permit() else {
            let text = format!("mail_max ({}) has no space for another loop that hands connections over", self.shared.limits.mail_max);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        };
        self.givers += 1;
        Ok(HandOffTarget { mailer, stats: self.stats(), slots_taken: self.slots_taken.clone(), gone: false, last_word: Some(permit) })
    }

    /// Spreads the connections that this loop accepts over itself and `receivers`: each goes to the loop with the fewest. Test:
    /// `the_hand_off_goes_to_the_loop_with_the_fewest`.
    pub fn hand_off_to(&mut self, receivers: Vec<HandOffTarget<H::Mail, O::Handover>>) {
        self.receivers = receivers;
    }

    /// Adopts connections that other loops handed over, while a slot is free and accepts are left in this turn: adopting counts as an accept
    /// (test: `connections_that_another_loop_accepted_count_as_accepts`). A connection for which this loop has no slot any more waits for one,
    /// as it would in the kernel's accept queue, and is then served or rejected with a response (test:
    /// `a_client_that_was_handed_to_a_loop_that_filled_up_meanwhile_gets_a_response`). Returns whether the stage's time is up.
    pub(crate) fn adopt_waiting(&mut self, stage: &mut StageTime) -> bool {
        while self.accepts_left > 0 && self.can_adopt() {
            let Some(adoption) = self.adoptions_waiting.pop_front() else { return false };
            self.accepts_left -= 1;
            self.adopt(adoption);
            if self.time_is_up(stage, 1) {
                return true;
            }
        }
        false
    }

    /// Whether a connection waits to be adopted and a slot is free for it. A close makes one free (`close_dead`).
    pub(crate) fn can_adopt(&self) -> bool {
        !self.adoptions_waiting.is_empty() && self.has_slot(!self.shared.closes.is_empty())
    }

    fn adopt(&mut self, Adoption { descriptor, peer, listener, reservation }: Adoption<O::Handover>) {
        let is_own = reservation.is_none();
        match self.os.adopt(descriptor) {
            Ok(stream) => {
                self.shared.stats.adoptions.add(u64::from(!is_own));
                let over = self.entries.len() >= self.shared.limits.connections_max as usize;
                self.admit(stream, Origin::Accepted { peer, listener }, over, reservation);
            }
            Err(e) => {
                self.shared.stats.adoption_failures.add(u64::from(!is_own));
                self.shared.logs.hand_off.warn(self.shared.now, format_args!("cannot take a connection over: {e}"));
            }
        }
    }

    /// Keeps a connection that this loop has accepted until a slot is free for it.
    #[cold]
    pub(crate) fn wait_for_slot(&mut self, stream: O::Stream, origin: Origin) {
        let Origin::Accepted { peer, listener } = origin else { unreachable!("an outbound connection begins only with a free slot") };
        match self.os.release(stream) {
            Ok(descriptor) => self.adoptions_waiting.push_back(Adoption { descriptor, peer, listener, reservation: None }),
            Err(e) => self.shared.logs.hand_off.warn(self.shared.now, format_args!("cannot keep a connection: {e}")),
        }
    }

    /// Admits a connection that no other loop could take. If this loop would not have accepted it for itself, the connection waits for a slot
    /// as in the kernel's accept queue. Test: `a_client_that_no_other_loop_could_take_waits_where_clients_wait_at_the_limit`.
    fn admit_here(&mut self, stream: O::Stream, origin: Origin, over: bool) {
        if over && !self.has_slot(!self.shared.closes.is_empty()) {
            return self.wait_for_slot(stream, origin);
        }
        self.admit(stream, origin, over, None);
    }

    /// Whether another loop can take a connection.
    pub(crate) fn can_hand_off(&self) -> bool {
        self.shutdown.is_none() && self.receivers.iter().any(HandOffTarget::has_capacity)
    }

    /// Admits a new connection here or hands it to another loop. `over`: this loop is at `connections_max`.
    pub(crate) fn place(&mut self, stream: O::Stream, peer: Address, listener: usize, over: bool) {
        let origin = Origin::Accepted { peer, listener };
        if self.shutdown.is_some() {
            // The other loops drain too, or have ended, so this loop serves the client.
            return self.admit(stream, origin, over, None);
        }
        let own_load = if over { u64::MAX } else { self.entries.len() as u64 };
        let fewest = (0..self.receivers.len())
            .filter(|&index| self.receivers[index].has_capacity())
            .min_by_key(|&index| self.receivers[index].load())
            .filter(|&index| self.receivers[index].load() < own_load);
        let Some((index, (reservation, permit))) = fewest.and_then(|index| Some((index, self.receivers[index].reserve()?))) else {
            return self.admit_here(stream, origin, over);
        };
        let descriptor = match self.os.release(stream) {
            Ok(descriptor) => descriptor,
            Err(e) => return self.shared.logs.hand_off.warn(self.shared.now, format_args!("cannot hand a connection over: {e}")),
        };
        self.shared.progress = true;
        match permit.send(Envelope::Socket { descriptor, peer, listener, reservation }) {
            Ok(()) => {}
            // That loop has ended. It is marked, because without connections it would look like the least loaded one.
            Err(Envelope::Socket { descriptor, .. }) => {
                self.receivers[index].gone = true;
                match self.os.adopt(descriptor) {
                    Ok(stream) => self.admit_here(stream, origin, over),
                    Err(e) => self.shared.logs.hand_off.warn(self.shared.now, format_args!("cannot take a connection back: {e}")),
                }
            }
            Err(Envelope::Mail(..) | Envelope::NoMoreSockets) => unreachable!("what comes back is what was sent"),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::context::Context;
    use crate::limits::Config;
    use crate::listen::slots_taken::SlotsTaken;

    /// Notes how many slots are taken when a connection is opened, and whether one could be reserved.
    #[derive(Default)]
    struct Looks {
        slots_taken: Option<SlotsTaken>,
        seen: Vec<(u64, bool)>,
    }

    impl Handler for Looks {
        type Conn = ();
        type Mail = ();

        fn opened(&mut self, _: Origin, _: &mut Context<'_>) {
            self.seen.extend(self.slots_taken.as_ref().map(|slots| (slots.count(), slots.reserve(2).is_some())));
        }

        fn input(&mut self, (): &mut (), input: &[u8], _: &mut Context<'_>) -> usize {
            input.len()
        }

        fn mail(&mut self, (): &mut (), (): (), _: &mut Context<'_>) {}
    }

    #[test]
    fn an_adopted_connection_counts_once_before_and_after_it_is_open() {
        let mut receiving = EventLoop::new(Config::with(|config| config.limits.connections_max = 2), Looks::default()).unwrap();
        receiving.handler_mut().slots_taken = Some(receiving.slots_taken.clone());
        let target = receiving.receiver().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (reservation, permit) = target.reserve().expect("a slot is free");
        assert_eq!(target.load(), 1, "on its way");
        permit.send(Envelope::Socket { descriptor: ours.into(), peer: Address::Unix, listener: 0, reservation }).ok().unwrap();
        receiving.turn().unwrap();
        assert_eq!(receiving.handler().seen, [(1, true)], "while `opened` runs, the other slot is free for a hand-off");
        assert_eq!(target.load(), 1, "open");
        drop(theirs);
        while receiving.stats().connections_open.get() > 0 {
            receiving.turn().unwrap();
        }
        assert_eq!(target.load(), 0, "closed");
    }
}
