//! Reads what the socket has, within a budget, and says why it stopped.

use std::io::{self, ErrorKind, Read, Write};

use crate::buffers::Lease;
use crate::policy::{DrainPolicy, RestPolicy};

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

// Writes what the socket takes, within a budget, and keeps the place.
//
// The write is tried first and the event waited for only after `WouldBlock`: the edge of a socket that has room was consumed when it
// was registered. A write that takes a part is no error: it is what a full send buffer looks like (failure mode P2).

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

/// The loop's one input buffer, into which every visit reads.
#[derive(Debug)]
pub(crate) struct InputScratch {
    pub(crate) bytes: Box<[u8]>,
    /// Partial input that the running visit offers to the handler where it is, without a copy. Empty between visits.
    pub(crate) in_hand: Option<Lease>,
}

impl InputScratch {
    pub(crate) fn new(bytes: usize) -> InputScratch {
        InputScratch { bytes: vec![0; bytes].into_boxed_slice(), in_hand: None }
    }
}

// The loop's one output buffer: everything that a visit has to say is collected here and written in one call.
//
//

/// A fixed buffer and how much of it is filled.
#[derive(Debug)]
pub(crate) struct OutputScratch {
    bytes: Box<[u8]>,
    filled: usize,
    /// Where the piece begins that was appended last.
    last_piece: usize,
}

impl OutputScratch {
    pub(crate) fn new(bytes: usize) -> OutputScratch {
        OutputScratch { bytes: vec![0; bytes].into_boxed_slice(), filled: 0, last_piece: 0 }
    }

    #[inline]
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.filled
    }

    /// Where the piece ends that `from` lies in: the one that was appended last, or all those before it.
    pub(crate) fn end_of_piece(&self, from: usize) -> usize {
        if from < self.last_piece { self.last_piece.min(self.filled) } else { self.filled }
    }

    /// Forgets what comes after the first `len` bytes.
    #[inline]
    pub(crate) fn truncate(&mut self, len: usize) {
        self.filled = self.filled.min(len);
    }
}

/// Room for output of the connection visited: a part of the loop's scratch buffer.
#[derive(Debug)]
pub struct Output<'a> {
    scratch: &'a mut OutputScratch,
    end_max: usize,
}

impl<'a> Output<'a> {
    #[inline]
    pub(crate) fn new(scratch: &'a mut OutputScratch, end_max: usize) -> Output<'a> {
        debug_assert!(end_max <= scratch.bytes.len());
        Output { scratch, end_max }
    }

    /// How many bytes fit now.
    #[must_use]
    #[inline]
    pub fn room(&self) -> usize {
        self.end_max.saturating_sub(self.scratch.filled)
    }

    /// Appends what fits of `bytes` and returns how many that were.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.room());
        self.scratch.bytes[self.scratch.filled..][..n].copy_from_slice(&bytes[..n]);
        self.scratch.last_piece = self.scratch.filled;
        self.scratch.filled += n;
        n
    }

    /// The free room, to write into; [`Output::advance`] says how much of it was used. What it holds before is unspecified.
    #[must_use]
    #[inline]
    pub fn spare_mut(&mut self) -> &mut [u8] {
        let from = self.scratch.filled.min(self.end_max);
        &mut self.scratch.bytes[from..self.end_max]
    }

    /// Counts the first `n` bytes of [`Output::spare_mut`] as written.
    ///
    /// # Panics
    /// If there was less room.
    #[inline]
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.room(), "advanced by {n} bytes, but the room was {}", self.room());
        self.scratch.last_piece = self.scratch.filled;
        self.scratch.filled += n;
    }
}
