//! What must hold when a callback of the service is called: input before deadlines, evictions, stalls, failed connects.

use std::io;

use super::kernel::{Nanos, SocketId};
use super::service::{Conn, Service, State};
use super::socket::Phase;
use super::world::{Conn as Record, Time, Who, World};
use crate::CloseReason;

impl Service {
    /// A deadline must not close a client whose bytes have arrived, whether this turn's poll reported them, had no place for them, or returned
    /// before they came: each deadline reads first.
    pub(super) fn check_input_came_first(&self, conn: &Conn) {
        let mut world = self.world();
        let record = world.conns[conn.id as usize];
        let socket = &world.kernel.sockets[record.socket as usize];
        let log = socket.log;
        // Output that was in the way, if only at the beginning of the turn, holds the input too.
        let held = record.paused || log.blocked_since.is_some() || log.bytes_written > 0;
        // Input from before may have filled the buffer: then that was handed out in this turn.
        let spoken_to = record.offered_in_turn == world.kernel.turn;
        if log.reads == 0 && !socket.received.is_empty() && !held && !spoken_to {
            let (name, bytes) = (world.name(record.socket), socket.received.len());
            let known = if log.reported { "poll had reported" } else { "poll had not reported" };
            world.violated(format!("the deadline of {name} ran with {bytes} bytes in its socket, which {known} and nobody has read"));
        }
    }
}

impl World {
    /// A connection has been closed for this reason: whom it excuses, and where it must not be.
    pub(super) fn check_close(&mut self, record: Record, who: Who, reason: CloseReason) {
        let excuse = match reason {
            CloseReason::InputEvicted | CloseReason::OutputEvicted => Some("its memory was needed"),
            CloseReason::Evicted => Some("it made room"),
            CloseReason::LoopEnded => Some("the loop ended"),
            _ => None,
        };
        if let (CloseReason::InputEvicted | CloseReason::OutputEvicted, Who::Peer(peer)) = (reason, who)
            && self.peers[peer as usize].plan.is_protected
            && (reason == CloseReason::InputEvicted || self.has_stalled_since_before(record.opened_at))
        {
            let what = if reason == CloseReason::InputEvicted { "partial input" } else { "output" };
            self.violated(format!(
                "the {what} of peer {peer} was evicted, and other connections have stalled for longer with more than their share"
            ));
        }
        if let (Some(excuse), Who::Peer(peer)) = (excuse, who) {
            self.peers[peer as usize].excuse.get_or_insert(excuse);
        }
        if reason == CloseReason::WriteStalled {
            self.check_stall(record);
        }
    }

    /// A connection was closed because its peer did not take its output: a window ago the loop has looked, and since then the peer has taken less
    /// than half of what the least rate asks for.
    fn check_stall(&mut self, record: Record) {
        let window = self.limits.output_rate_window;
        let log = self.kernel.sockets[record.socket as usize].log;
        let name = self.name(record.socket);
        let [Some((began, taken_before)), Some((ended, taken))] = log.looks else {
            return self.violated(format!("{name} was closed for a stall, and nobody has looked twice what it takes"));
        };
        if ended < began + window.as_nanos() as Nanos {
            self.violated(format!("{name} was closed for a stall {} after a look", Time(ended - began)));
        }
        let needed = self.bytes_needed_in_a_window();
        if taken - taken_before >= needed {
            self.violated(format!("{name} was closed for a stall, and has taken {} bytes of {needed}", taken - taken_before));
        }
    }

    fn bytes_needed_in_a_window(&self) -> u64 {
        (u64::from(self.limits.output_rate_min) * self.limits.output_rate_window.as_millis() as u64 / 2000).max(1)
    }

    /// Whether the loop has looked twice, with nothing written in between, and the peer has taken too little of what the kernel holds. A write in the
    /// turn of the first look may have come behind that look, and then began a window of its own (seed 246,126).
    pub(super) fn has_stalled(&self, socket: SocketId) -> bool {
        let socket = &self.kernel.sockets[socket as usize];
        let (Some(blocked_since), [Some((began, taken_before)), Some((_, taken))]) = (socket.log.blocked_since, socket.log.looks) else {
            return false;
        };
        blocked_since < began && !socket.unsent.is_empty() && taken - taken_before < self.bytes_needed_in_a_window()
    }

    /// Whether the output of an open connection that is not protected is blocked since before `at`. A thread that lost its processor may accept
    /// protected clients together with those that do not read, and then none of them has stalled for longer (seed 1,452,889).
    fn has_stalled_since_before(&self, at: Nanos) -> bool {
        self.conns.iter().filter(|conn| conn.open).any(|conn| {
            let peer = self.peers.iter().find(|peer| peer.socket == Some(conn.socket));
            let blocked_since = self.kernel.sockets[conn.socket as usize].log.blocked_since;
            peer.is_none_or(|peer| !peer.plan.is_protected) && blocked_since.is_some_and(|since| since < at)
        })
    }

    /// An upstream ends its side only after the loop's FIN and its own whole answer, so an orderly end comes behind the answer: also where the loop
    /// has sent FIN first, and reads on.
    pub(super) fn check_answer_came(&mut self, conn: &Conn, what: &str) {
        if let (Who::Upstream(upstream), State::Greeting { .. } | State::Asked { .. }) = (conn.who, conn.state)
            && !conn.is_closing
        {
            self.violated(format!("upstream {upstream} sent its answer: {what}, and the service has not got all of it"));
        }
    }

    /// A connect has failed, and was to have ended by `due`.
    pub(super) fn check_connect_failed(&mut self, tag: u64, error: &io::Error, due: Option<Nanos>) {
        if error.kind() == io::ErrorKind::TimedOut && due.is_some_and(|at| self.kernel.turn_started < at) {
            self.violated(format!("the connect to upstream {tag} timed out early"));
        }
        let phase = self.upstreams[tag as usize].socket.map(|id| self.kernel.sockets[id as usize].phase);
        if error.kind() == io::ErrorKind::TimedOut && phase == Some(Phase::Open) {
            self.violated(format!("the connect to upstream {tag} timed out, and it had succeeded"));
        }
    }
}
