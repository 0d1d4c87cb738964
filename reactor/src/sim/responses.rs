//! What a simulated client gets is checked byte by byte, and at its end it says whether it got what it was owed.

use std::fmt::Write as _;

use super::kernel::{Nanos, SocketId};
use super::peer::whose;
use super::protocol::{HEAD_BYTES, Head, Kind, Status, first_difference};
use super::world::{Time, Who, World};

/// A behaving peer complains when nothing moves for so long. Far above every timeout of a plan.
const PATIENCE: Nanos = 3_000_000_000;
/// The same while it waits to be accepted: others may hold all connections until their timeouts.
const PATIENCE_IN_QUEUE: Nanos = 30_000_000_000;

impl World {
    /// Checks what comes, byte by byte.
    pub(super) fn peer_gets(&mut self, index: u32, mut bytes: &[u8]) {
        let now = self.kernel.now;
        while !bytes.is_empty() {
            let peer = &mut self.peers[index as usize];
            peer.progress_at = now;
            if let Some((head, at)) = peer.body {
                let n = bytes.len().min(head.len as usize - at);
                if let Some(wrong) = first_difference(head.nonce, at, &bytes[..n]) {
                    let what = whose(head.nonce);
                    return self.violated(format!("peer {index}: byte {wrong} of the answer to {what} is wrong"));
                }
                peer.body = (at + n < head.len as usize).then_some((head, at + n));
                bytes = &bytes[n..];
                continue;
            }
            let n = bytes.len().min(HEAD_BYTES - peer.head_bytes);
            peer.head[peer.head_bytes..][..n].copy_from_slice(&bytes[..n]);
            peer.head_bytes += n;
            bytes = &bytes[n..];
            if peer.head_bytes == HEAD_BYTES {
                peer.head_bytes = 0;
                match Head::decode(&peer.head) {
                    Some(head) => self.peer_gets_head(index, head),
                    None => {
                        let head = self.peers[index as usize].head;
                        return self.violated(format!("peer {index}: no head of a frame: {head:?}"));
                    }
                }
            }
        }
    }

    fn peer_gets_head(&mut self, index: u32, head: Head) {
        let peer = &mut self.peers[index as usize];
        match head.kind {
            Kind::Ending => {
                peer.excuse.get_or_insert("it was told why");
            }
            Kind::Note => {
                let expected = peer.notes_seen + 1;
                peer.notes_seen = head.nonce;
                if head.nonce != expected {
                    self.violated(format!("peer {index}: note {} came instead of {expected}", head.nonce));
                }
            }
            _ => {
                let Some(expected) = peer.expected.pop_front() else {
                    return self.violated(format!("peer {index} got an answer that it did not ask for: to {}", whose(head.nonce)));
                };
                if head.nonce != expected.nonce || head.kind != expected.kind {
                    let (got, wanted) = (whose(head.nonce), whose(expected.nonce));
                    return self.violated(format!("peer {index} got the answer to {got} instead of {wanted}"));
                }
                let len = if head.status == Status::Good { expected.len } else { 0 };
                if head.len != len {
                    return self.violated(format!("peer {index}: the answer has {} bytes instead of {len}", head.len));
                }
                if head.len > 0 {
                    peer.body = Some((head, 0));
                }
            }
        }
    }

    /// The peer has read the end, or was reset: has it got what it was owed?
    pub(crate) fn peer_sees_end(&mut self, index: u32, with_reset: bool) {
        let peer = &self.peers[index as usize];
        let Some(id) = peer.socket.filter(|_| !peer.is_done) else { return };
        self.note(|line, _| {
            let _ = write!(line, "    peer {index} sees {}", if with_reset { "a reset" } else { "the end" });
        });
        let peer = &self.peers[index as usize];
        // FIN says that this was all. In the middle of an answer nobody may say so, whatever the excuse.
        if !with_reset && (peer.body.is_some() || peer.head_bytes > 0) {
            self.violated(format!("peer {index} saw an end in order in the middle of an answer"));
        }
        let peer = &self.peers[index as usize];
        let socket = &self.kernel.sockets[id as usize];
        // What is lost beyond the limits of lingering is lost by design.
        let lingered_out = with_reset && (socket.lingered_out || peer.out.len() > self.limits.linger_bytes_max as usize);
        let excused = peer.excuse.is_some() || self.is_ending || socket.faulted || lingered_out;
        if !peer.is_served() && !excused {
            let owed = match peer.expected.front() {
                Some(expected) => format!("the answer to {}", whose(expected.nonce)),
                None => "the rest".to_owned(),
            };
            let how = if with_reset { "was reset" } else { "saw the end" };
            self.violated(format!("peer {index} {how} and never got {owed}"));
        }
        let peer = &mut self.peers[index as usize];
        if !peer.is_stubborn_after_end(with_reset) && !peer.has_ended {
            peer.has_ended = true;
            self.kernel.peer_ends(id);
        }
        self.peer_is_done(index);
    }

    /// A listener closes with this peer in its queue. Only who connected after the order to drain may be met by that.
    pub(crate) fn came_too_late(&mut self, id: SocketId) {
        if let (Some(Who::Peer(index)), Some(since)) = (self.owner(id), self.drains_since) {
            let peer = &mut self.peers[index as usize];
            if peer.progress_at >= since {
                peer.excuse.get_or_insert("it came while the loop drained");
            }
        }
    }

    /// Whether somebody who behaves waits for too long.
    pub(crate) fn check_patience(&mut self) {
        let now = self.kernel.now;
        for index in 0..self.peers.len() {
            let peer = &self.peers[index];
            let Some(id) = peer.socket.filter(|_| !peer.is_done && peer.excuse.is_none()) else { continue };
            // Between two loops it may wait for a slot, as in the queue.
            let is_admitted = peer.is_accepted && !self.kernel.sockets[id as usize].in_transit;
            let patience = if is_admitted { PATIENCE } else { PATIENCE_IN_QUEUE };
            if now > peer.progress_at + patience && !peer.is_served() && !self.is_ending && !self.kernel.sockets[id as usize].faulted {
                self.violated(format!("peer {index} behaves, and has waited {} for anything to happen", Time(now - peer.progress_at)));
            }
        }
    }
}
