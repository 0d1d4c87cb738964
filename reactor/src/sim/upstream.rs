//! Simulated servers that the loop connects to: they accept, refuse, keep silent or break off, and echo one request.

use std::fmt::Write as _;

use super::kernel::{Nanos, SocketId};
use super::protocol::{HEAD_BYTES, Head, Kind, Status};
use super::socket::Phase;
use super::world::{Act, World};

/// What an upstream does with a connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Accepts, and speaks first: its greeting may come with the handshake.
    AcceptAndGreet,
    Refuse,
    /// Nothing: the attempt must time out.
    Silence,
    /// Accepts and resets.
    AcceptAndReset,
}

/// A server.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) decision: Decision,
    /// Who connects to it.
    pub(crate) of_loop: usize,
    pub(crate) decides_after: Nanos,
    /// How long the loop is to try.
    pub(crate) connect_timeout: Nanos,
    /// When the attempt under way must have ended.
    pub(crate) connect_due: Option<Nanos>,
    /// Bytes sent at once.
    pub(crate) chunk_bytes: usize,
    pub(crate) socket: Option<SocketId>,
    pub(crate) is_done: bool,
    /// The service asked for it.
    pub(crate) is_asked: bool,
    pub(crate) opened: u32,
    pub(crate) failed: u32,
    request: Vec<u8>,
    out: Vec<u8>,
    sent: usize,
}

impl Upstream {
    pub(crate) fn new(decision: Decision, decides_after: Nanos, connect_timeout: Nanos, chunk_bytes: usize) -> Upstream {
        Upstream {
            decision,
            of_loop: 0,
            decides_after,
            connect_timeout,
            connect_due: None,
            chunk_bytes,
            socket: None,
            is_done: false,
            is_asked: false,
            opened: 0,
            failed: 0,
            request: Vec::new(),
            out: Vec::new(),
            sent: 0,
        }
    }
}

impl World {
    pub(crate) fn upstream_decides(&mut self, index: u32) {
        let upstream = &mut self.upstreams[index as usize];
        let Some(id) = upstream.socket.filter(|_| !upstream.is_done) else { return };
        let decision = upstream.decision;
        self.note(|line, _| {
            let _ = write!(line, "    upstream {index}: {decision:?}");
        });
        match decision {
            Decision::Silence => {}
            Decision::Refuse => self.kernel.peer_resets(id),
            Decision::AcceptAndReset => {
                self.kernel.peer_accepts(id);
                self.kernel.peer_resets(id);
            }
            Decision::AcceptAndGreet => {
                self.kernel.peer_accepts(id);
                self.upstreams[index as usize].out.extend(Head::new(Kind::Note, Status::Good, 0, 0).encode());
                self.upstream_sends(index);
            }
        }
    }

    pub(crate) fn upstream_sends(&mut self, index: u32) {
        let upstream = &mut self.upstreams[index as usize];
        let Some(id) = upstream.socket.filter(|_| !upstream.is_done) else { return };
        if self.kernel.sockets[id as usize].phase != Phase::Open {
            return;
        }
        let to = upstream.out.len().min(upstream.sent + upstream.chunk_bytes);
        let n = self.kernel.peer_sends(id, &upstream.out[upstream.sent..to]);
        upstream.sent += n;
        if upstream.sent < upstream.out.len() {
            self.plan_after(30_000, Act::UpstreamSends(index));
        } else {
            self.upstream_ends(index);
        }
    }

    /// After the loop's FIN an upstream ends its side too, when it has sent its whole answer.
    fn upstream_ends(&mut self, index: u32) {
        let upstream = &self.upstreams[index as usize];
        let Some(id) = upstream.socket else { return };
        let socket = &self.kernel.sockets[id as usize];
        if socket.ended && socket.unsent.is_empty() && socket.open && upstream.sent == upstream.out.len() {
            self.kernel.peer_ends(id);
        }
    }

    pub(crate) fn upstream_reads(&mut self, index: u32) {
        let upstream = &mut self.upstreams[index as usize];
        let Some(id) = upstream.socket else { return };
        let before = upstream.request.len();
        self.kernel.peer_reads(id, usize::MAX, &mut upstream.request);
        // Its answer is its request.
        if upstream.request.len() > before {
            upstream.out.extend(&upstream.request[before..]);
            self.upstream_sends(index);
        }
        self.upstream_ends(index);
    }
}

/// Bytes of the payload that the service sends to an upstream.
pub(crate) const REQUEST_BYTES: usize = 100;

/// Bytes of the whole request.
pub(crate) const REQUEST_FRAME_BYTES: usize = HEAD_BYTES + REQUEST_BYTES;
