//! Writes what the socket takes, within a budget, and keeps the place.
//!
//! The write is tried first and the event waited for only after `WouldBlock`: the edge of a socket that has room was consumed when it
//! was registered. A write that takes a part is no error: it is what a full send buffer looks like (failure mode P2). Read next: `visit.rs`.

use std::io::{self, ErrorKind, Write};

use crate::policy::RestPolicy;

/// Why writing stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Flushed {
    /// Everything is in the kernel's hands.
    All,
    /// The kernel's buffer is full. An event comes when a third of it is free (`sk_stream_min_wspace`, include/net/sock.h).
    Full,
    /// We stopped to be fair. No event will come: the connection goes on the ready list.
    BudgetSpent,
}

/// What one flush did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteOutcome {
    /// Why it stopped.
    pub flushed: Flushed,
    /// Bytes that the kernel took, and that must not be offered again.
    pub bytes: usize,
    /// Calls of `write`.
    pub calls: u32,
}

/// Writes `from` until one of [`Flushed`]'s reasons, at most `budget_bytes`.
///
/// # Errors
/// What write(2) says, `WouldBlock` and `Interrupted` excepted: EPIPE and ECONNRESET are a peer that has left, not a fault of ours.
#[inline]
pub fn drain_write(socket: &mut impl Write, from: &[u8], budget_bytes: usize, rest: RestPolicy) -> io::Result<WriteOutcome> {
    let offer_end = from.len().min(budget_bytes);
    let mut bytes = 0;
    let mut calls = 0;
    let flushed = loop {
        if bytes == from.len() {
            break Flushed::All;
        }
        if bytes == offer_end {
            break Flushed::BudgetSpent;
        }
        calls += 1;
        match socket.write(&from[bytes..offer_end]) {
            Ok(0) => return Err(io::Error::new(ErrorKind::WriteZero, "write(2) took nothing of a non-empty buffer")),
            Ok(n) => match rest {
                RestPolicy::Kept => bytes += n,
                RestPolicy::Dropped => bytes = offer_end, // MISTAKE(partial-write): the kernel had room for n bytes, and those behind them are never sent.
            },
            Err(e) if e.kind() == ErrorKind::WouldBlock => break Flushed::Full,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    };
    Ok(WriteOutcome { flushed, bytes, calls })
}
