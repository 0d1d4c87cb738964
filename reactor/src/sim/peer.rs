//! Simulated clients: how each sends, reads and leaves, and what each may expect.
//!
//! A peer that behaves (reads, does not break off, ends in order) must get every answer. One that does not must only never harm
//! others.

use std::collections::VecDeque;
use std::fmt::Write as _;

use super::kernel::{Nanos, SocketId};
use super::protocol::{HEAD_BYTES, Head, Kind, Status, payload};
use super::socket::Phase;
use super::world::{Act, Who, World};

/// One request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) kind: Kind,
    pub(crate) len: u16,
}

/// How a peer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// So many bytes at once, so long after each other.
    Steadily { bytes: usize, gap: Nanos },
    /// Nothing.
    Never,
}

/// What a peer does when it has sent everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Waits for the end of the connection.
    Wait,
    /// FIN; it goes on reading.
    HalfClose,
    /// close(2): FIN, and a reset for whatever still comes.
    Close,
    /// Reset.
    Reset,
}

/// How a peer is to behave.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) listener: usize,
    pub(crate) requests: Vec<Request>,
    /// Bytes sent at once, at most.
    pub(crate) chunk_bytes: usize,
    /// Time between two pieces, at most. 0: everything at once.
    pub(crate) gap: Nanos,
    pub(crate) reads: Reads,
    pub(crate) end: End,
    pub(crate) end_after: Nanos,
    /// Sends an urgent byte after so many bytes.
    pub(crate) urgent_after: Option<usize>,
    /// Falls silent after so many bytes, for good.
    pub(crate) silent_after: Option<usize>,
    /// Resets so long after its connect.
    pub(crate) resets_after: Option<Nanos>,
    /// Never sends FIN, not even after the service's.
    pub(crate) is_stubborn: bool,
    /// Its partial input fits into the guaranteed share, and others have stalled for longer: nothing of it may be evicted.
    pub(crate) is_protected: bool,
    /// Who connects as soon as this one is done.
    pub(crate) next: Option<u32>,
}

/// An answer that is owed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) kind: Kind,
    pub(super) len: u16,
    pub(super) nonce: u32,
}

/// A client.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) plan: Plan,
    pub(crate) socket: Option<SocketId>,
    pub(super) out: Vec<u8>,
    /// Where each request begins in `out`.
    starts: Vec<usize>,
    sent: usize,
    /// Requests whose head is sent.
    asked: usize,
    pub(super) expected: VecDeque<Expected>,
    pub(super) head: [u8; HEAD_BYTES],
    pub(super) head_bytes: usize,
    /// The answer whose payload is coming, and how much of it has come.
    pub(super) body: Option<(Head, usize)>,
    pub(crate) notes_seen: u32,
    read_is_planned: bool,
    window_is_closed: bool,
    urgent_is_sent: bool,
    pub(super) has_ended: bool,
    pub(crate) is_closed: bool,
    pub(crate) is_done: bool,
    /// The loop drains: answers after that to this request are owed no more.
    pub(crate) last_owed: Option<u32>,
    /// Why it may not complain.
    pub(crate) excuse: Option<&'static str>,
    pub(crate) progress_at: Nanos,
    pub(crate) is_accepted: bool,
}

/// The nonce of a peer's request.
pub(crate) fn nonce(peer: u32, request: usize) -> u32 {
    peer << 12 | (request as u32 + 1)
}

/// What a nonce says, for a message.
pub(crate) fn whose(nonce: u32) -> String {
    format!("request {} of peer {}", (nonce & 0xfff).wrapping_sub(1), nonce >> 12)
}

impl Peer {
    pub(crate) fn new(index: u32, plan: Plan, message_bytes_max: u32) -> Peer {
        let is_too_long = |request: &Request| request.kind == Kind::Whole && HEAD_BYTES + request.len as usize > message_bytes_max as usize;
        let mut out = Vec::new();
        let mut starts = Vec::new();
        for (i, request) in plan.requests.iter().enumerate() {
            starts.push(out.len());
            let nonce = nonce(index, i);
            out.extend(Head::new(request.kind, Status::Good, request.len, nonce).encode());
            if request.kind.has_request_payload() {
                let len = request.len as usize;
                let mut at = 0;
                while at < len {
                    let piece = payload(nonce, at, len - at);
                    out.extend(piece);
                    at += piece.len();
                }
            }
        }
        let excuse = match plan {
            _ if plan.reads == Reads::Never => Some("it does not read"),
            _ if plan.requests.iter().any(is_too_long) => Some("a request is too long"),
            _ if plan.silent_after.is_some() => Some("it falls silent"),
            _ if plan.resets_after.is_some() || matches!(plan.end, End::Close | End::Reset) => Some("it leaves early"),
            _ => None,
        };
        Peer {
            plan,
            socket: None,
            out,
            starts,
            sent: 0,
            asked: 0,
            expected: VecDeque::new(),
            head: [0; HEAD_BYTES],
            head_bytes: 0,
            body: None,
            notes_seen: 0,
            read_is_planned: false,
            window_is_closed: false,
            urgent_is_sent: false,
            has_ended: false,
            is_closed: false,
            is_done: false,
            last_owed: None,
            excuse,
            progress_at: 0,
            is_accepted: false,
        }
    }

    pub(super) fn is_served(&self) -> bool {
        let owes_more = match (self.expected.front(), self.last_owed) {
            (Some(next), Some(last)) => next.nonce <= last,
            (next, None) => next.is_some() || self.sent < self.out.len(),
            (None, Some(_)) => false,
        };
        !owes_more && self.body.is_none() && self.head_bytes == 0
    }

    fn sends_end(&self) -> usize {
        self.plan.silent_after.unwrap_or(usize::MAX).min(self.out.len())
    }
}

impl World {
    pub(crate) fn peer_connects(&mut self, index: u32) {
        let listener = self.peers[index as usize].plan.listener;
        let Some(id) = self.kernel.peer_connects(listener) else {
            self.peers[index as usize].is_done = true; // Nobody listens any more.
            return;
        };
        let now = self.kernel.now;
        let peer = &mut self.peers[index as usize];
        peer.socket = Some(id);
        peer.progress_at = now;
        if let Some(after) = peer.plan.resets_after {
            self.plan_after(after, Act::PeerResets(index));
        }
        self.note(|line, _| {
            let _ = write!(line, "    peer {index} connects");
        });
        self.peer_sends(index);
    }

    pub(crate) fn peer_sends(&mut self, index: u32) {
        let now = self.kernel.now;
        let peer = &mut self.peers[index as usize];
        let Some(id) = peer.socket.filter(|_| !peer.is_done && !peer.has_ended) else { return };
        let socket = &self.kernel.sockets[id as usize];
        if socket.phase == Phase::Reset {
            return;
        }
        if peer.is_accepted && !socket.open {
            // The loop has closed. What is sent now comes back as a reset, and takes with it what was not read (`early-close`).
            self.kernel.socket(id).unsent.clear();
            return self.peer_sees_end(index, true);
        }
        let bytes_max = match peer.plan.chunk_bytes {
            _ if peer.plan.gap == 0 => usize::MAX,
            bytes => self.kernel.rng.between(1, bytes as u64) as usize,
        };
        let mut to = peer.sends_end().min(peer.sent.saturating_add(bytes_max));
        if let Some(mark) = peer.plan.urgent_after.filter(|mark| !peer.urgent_is_sent && (peer.sent..=to).contains(mark)) {
            to = mark;
        }
        let n = self.kernel.peer_sends(id, &peer.out[peer.sent..to]);
        peer.sent += n;
        if n > 0 {
            peer.progress_at = now;
        }
        while peer.asked < peer.starts.len() && peer.sent >= peer.starts[peer.asked] + HEAD_BYTES {
            let request = peer.plan.requests[peer.asked];
            match request.kind {
                Kind::Abort | Kind::Panic => peer.excuse = Some("it asked for a violent end"),
                kind => {
                    let len = kind.answer_bytes(request.len);
                    peer.expected.push_back(Expected { kind, len, nonce: nonce(index, peer.asked) });
                }
            }
            peer.asked += 1;
        }
        let at_mark = peer.plan.urgent_after == Some(peer.sent) && !peer.urgent_is_sent;
        let (sent, ends_at, gap) = (peer.sent, peer.sends_end(), peer.plan.gap);
        if at_mark {
            peer.urgent_is_sent = true;
            self.kernel.peer_sends_urgent(id);
        }
        let sent_all = self.peers[index as usize].sent == self.peers[index as usize].out.len();
        self.note(|line, _| {
            let _ = write!(line, "    peer {index} sends {n}{}", if at_mark { " and an urgent byte" } else { "" });
        });
        if sent < ends_at {
            if n == 0 && !at_mark {
                self.peers[index as usize].window_is_closed = true;
            } else if gap == 0 {
                self.plan_after(1, Act::PeerSends(index));
            } else {
                let after = self.kernel.rng.between(1, gap);
                self.plan_after(after, Act::PeerSends(index));
            }
        } else if sent_all && self.peers[index as usize].plan.end != End::Wait {
            match self.peers[index as usize].plan.end_after {
                0 => self.peer_ends(index),
                after => self.plan_after(after, Act::PeerEnds(index)),
            }
        }
    }

    /// The loop has read: a peer whose window was closed sends on.
    pub(crate) fn window_opened(&mut self, id: SocketId) {
        if let Some(Who::Peer(index)) = self.owner(id)
            && std::mem::take(&mut self.peers[index as usize].window_is_closed)
        {
            self.plan_after(1, Act::PeerSends(index));
        }
    }

    /// The loop has written, or sent FIN: a peer that reads will.
    pub(crate) fn bytes_are_under_way(&mut self, id: SocketId) {
        match self.owner(id) {
            Some(Who::Peer(index)) => {
                let peer = &mut self.peers[index as usize];
                if peer.is_closed {
                    return self.plan_after(50_000, Act::ResetArrives(id));
                }
                if let Reads::Steadily { gap, .. } = peer.plan.reads
                    && !std::mem::replace(&mut peer.read_is_planned, true)
                {
                    self.plan_after(gap, Act::PeerReads(index));
                }
            }
            Some(Who::Upstream(index)) => self.plan_after(20_000, Act::UpstreamReads(index)),
            None => {}
        }
    }

    pub(crate) fn peer_reads(&mut self, index: u32) {
        let peer = &mut self.peers[index as usize];
        peer.read_is_planned = false;
        let Some(id) = peer.socket.filter(|_| !peer.is_done) else { return };
        let Reads::Steadily { bytes, gap } = peer.plan.reads else { return };
        let mut read = Vec::new();
        self.kernel.peer_reads(id, bytes, &mut read);
        self.peer_gets(index, &read);
        let socket = &self.kernel.sockets[id as usize];
        if !socket.unsent.is_empty() {
            self.peers[index as usize].read_is_planned = true;
            self.plan_after(gap, Act::PeerReads(index));
        } else if socket.ended && socket.phase != Phase::Reset {
            self.peer_sees_end(index, false);
        }
    }

    pub(crate) fn peer_ends(&mut self, index: u32) {
        let peer = &mut self.peers[index as usize];
        let Some(id) = peer.socket.filter(|_| !peer.is_done) else { return };
        peer.has_ended = true;
        let end = peer.plan.end;
        self.note(|line, _| {
            let _ = write!(line, "    peer {index}: {end:?}");
        });
        match end {
            End::HalfClose => self.kernel.peer_ends(id),
            End::Wait => {}
            End::Reset => self.peer_resets(index),
            End::Close if !self.kernel.sockets[id as usize].unsent.is_empty() => self.peer_resets(index),
            End::Close => {
                self.peers[index as usize].is_closed = true;
                self.kernel.peer_ends(id);
                self.peer_is_done(index);
            }
        }
    }

    pub(crate) fn peer_resets(&mut self, index: u32) {
        let peer = &mut self.peers[index as usize];
        let Some(id) = peer.socket.filter(|_| !peer.is_done) else { return };
        self.note(|line, _| {
            let _ = write!(line, "    peer {index} resets");
        });
        self.kernel.peer_resets(id);
        self.peer_is_done(index);
    }

    /// The loop has closed the socket, or its end is broken.
    pub(crate) fn socket_is_gone(&mut self, id: SocketId, with_reset: bool) {
        match self.owner(id) {
            Some(Who::Peer(index)) => {
                let reads = self.peers[index as usize].plan.reads != Reads::Never;
                if with_reset || !reads {
                    // A moment later, so that the service has been told the reason by then.
                    self.plan_after(0, Act::PeerSeesReset(index));
                } else {
                    self.bytes_are_under_way(id);
                }
            }
            Some(Who::Upstream(index)) => self.upstreams[index as usize].is_done = true,
            None => {}
        }
    }

    pub(super) fn peer_is_done(&mut self, index: u32) {
        let peer = &mut self.peers[index as usize];
        peer.is_done = true;
        if let Some(next) = peer.plan.next {
            self.plan_after(1, Act::PeerConnects(next));
        }
    }
}

impl Peer {
    pub(super) fn is_stubborn_after_end(&self, with_reset: bool) -> bool {
        self.plan.is_stubborn && !with_reset
    }
}
