//! Reads what the socket has, within a budget, and says why it stopped.
//!
//! Read next: `drain_write.rs`, the same for the other direction.

use std::io::{self, ErrorKind, Read};

use crate::policy::DrainPolicy;

/// Why a drain stopped. Each reason asks for a different next move, so this is not a `bool`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Drained {
    /// The socket is empty. The next event will come by itself.
    Empty,
    /// We stopped to be fair. No event will come: the connection goes on the ready list.
    BudgetSpent,
    /// The buffer is full. No event will come: the connection goes on the ready list.
    BufferFull,
    /// The peer has sent its last byte.
    PeerClosed,
    /// The connection has failed behind the bytes read. The error is not reported again: the next read returns 0, as at the peer's end.
    Failed(ErrorKind),
}

/// What one drain did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOutcome {
    /// Why it stopped.
    pub drained: Drained,
    /// Bytes read.
    pub bytes: usize,
    /// Calls of `read`.
    pub calls: u32,
}

/// Reads into `into` until one of [`Drained`]'s reasons.
///
/// `short_read_is_empty`: a read that returns less than asked for has emptied the socket. True for a stream, unless the peer's end
/// or urgent data has been reported: a read stops short before either, and no further event may come.
///
/// # Errors
/// What read(2) says, `WouldBlock` and `Interrupted` excepted, if nothing was read before it. Behind bytes it is [`Drained::Failed`].
#[inline]
pub fn drain_read(
    socket: &mut impl Read,
    into: &mut [u8],
    reads_max: u32,
    policy: DrainPolicy,
    short_read_is_empty: bool,
) -> io::Result<ReadOutcome> {
    let mut bytes = 0;
    let mut calls = 0;
    let drained = loop {
        if bytes == into.len() {
            // Asked first: a read into an empty slice returns 0, which looks like the peer's end.
            break Drained::BufferFull;
        }
        if calls == reads_max {
            break Drained::BudgetSpent;
        }
        calls += 1;
        let asked = into.len() - bytes;
        match socket.read(&mut into[bytes..]) {
            Ok(0) => break Drained::PeerClosed,
            Ok(n) => {
                bytes += n;
                match policy {
                    DrainPolicy::UntilShortRead if n < asked && short_read_is_empty => break Drained::Empty,
                    DrainPolicy::UntilShortRead | DrainPolicy::UntilWouldBlock => {}
                    DrainPolicy::OncePerEvent => break Drained::Empty, // MISTAKE(edge-starvation): one read does not empty the socket, and no second event comes for bytes that are already there.
                }
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => break Drained::Empty,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if bytes > 0 => break Drained::Failed(e.kind()),
            Err(e) => return Err(e),
        }
    };
    Ok(ReadOutcome { drained, bytes, calls })
}
