//! Writes what the socket takes, within a budget, and keeps the place.
//!
//! The write is tried first and the event waited for only after `WouldBlock`: the edge of a socket that has room was consumed when it
//! was registered (failure mode P2). Read next: `visit.rs`.

use std::io::{self, ErrorKind, Write};

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
    /// Bytes that the kernel took.
    pub bytes: usize,
    /// Calls of `write`.
    pub calls: u32,
}

/// Writes `from` until one of [`Flushed`]'s reasons, at most `budget_bytes`.
///
/// # Errors
/// What write(2) says, `WouldBlock` and `Interrupted` excepted: EPIPE and ECONNRESET are a peer that has left, not a fault of ours.
#[inline]
pub fn drain_write(socket: &mut impl Write, from: &[u8], budget_bytes: usize) -> io::Result<WriteOutcome> {
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
            Ok(n) => bytes += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => break Flushed::Full,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    };
    Ok(WriteOutcome { flushed, bytes, calls })
}
