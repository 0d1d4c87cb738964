//! Reading and writing a socket until `WouldBlock`, and the loop's input buffer.
//!
//! [`drain_read`] and [`drain_write`] work within a budget, and return the reason for which they stopped. `InputScratch` is the loop's input
//! buffer, which its connections share; the output buffer is in `output.rs`.

use std::io::{self, ErrorKind, Read, Write};

use crate::buffers::Lease;
use crate::policy::{DrainPolicy, RestPolicy};

/// Why [`drain_read`] stopped. The loop must do something different for each reason, so this is not a `bool`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum ReadStop {
    /// The socket is empty. An event will report new input.
    Empty,
    /// The budget of read calls is spent. No event will come for the rest, so the connection must go on the ready list.
    BudgetSpent,
    /// The buffer is full. No event will come for the rest, so the connection must go on the ready list.
    BufferFull,
    /// `read` returned 0: the peer has sent FIN.
    PeerClosed,
    /// The connection has failed after the bytes that were read. The kernel does not report the error again: the next read returns 0, as
    /// after a FIN. Test: `bytes_before_a_failure_are_returned_with_it`.
    Failed(ErrorKind),
}

/// The result of one [`drain_read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOutcome {
    /// Why it stopped.
    pub stop: ReadStop,
    /// Number of bytes read.
    pub bytes: usize,
    /// Number of calls of `read`.
    pub calls: u32,
}

/// Reads into `into` until the socket is empty or another reason in [`ReadStop`] stops it, with at most `reads_max` calls. Does not block on
/// a non-blocking socket.
///
/// `short_read_is_empty`: whether a read that returns less than it could has emptied the socket. True for a stream, unless FIN or urgent
/// data has been reported: a read stops before either, and no further event may come. Tests: `drain_read_says_truly_why_it_stopped`.
///
/// # Errors
/// Those of read(2), except `WouldBlock` and `Interrupted`, if no byte was read before. After bytes it returns [`ReadStop::Failed`].
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
    let stop = loop {
        if bytes == into.len() {
            // Checked first: a read into an empty slice returns 0, which looks like a FIN.
            break ReadStop::BufferFull;
        }
        if calls == reads_max {
            break ReadStop::BudgetSpent;
        }
        calls += 1;
        let asked = into.len() - bytes;
        match socket.read(&mut into[bytes..]) {
            Ok(0) => break ReadStop::PeerClosed,
            Ok(n) => {
                bytes += n;
                match policy {
                    DrainPolicy::UntilShortRead if n < asked && short_read_is_empty => break ReadStop::Empty,
                    DrainPolicy::UntilShortRead | DrainPolicy::UntilWouldBlock => {}
                    DrainPolicy::OncePerEvent => break ReadStop::Empty, // MISTAKE(edge-starvation): one read does not empty the socket, and no second event comes for bytes that are already there.
                }
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => break ReadStop::Empty,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if bytes > 0 => break ReadStop::Failed(e.kind()),
            Err(e) => return Err(e),
        }
    };
    Ok(ReadOutcome { stop, bytes, calls })
}

// Writing. The loop tries to write first and waits for an event only after `WouldBlock`: the edge of a socket with a free send buffer was
// consumed when it was registered. A write that takes a part is not an error: it is how a full send buffer shows (`partial-write`,
// docs/failures/partial-write.md).

/// Why [`drain_write`] stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Flushed {
    /// The kernel has taken all bytes.
    All,
    /// The send buffer is full. An event comes when a third of it is free (`sk_stream_min_wspace`, include/net/sock.h).
    Full,
    /// The budget of bytes is spent. No event will come for the rest, so the connection must go on the ready list.
    BudgetSpent,
}

/// The result of one [`drain_write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteOutcome {
    /// Why it stopped.
    pub flushed: Flushed,
    /// Number of bytes that the kernel took. The caller must not write them again.
    pub bytes: usize,
    /// Number of calls of `write`.
    pub calls: u32,
}

/// Writes `from` until one of the reasons in [`Flushed`] stops it, at most `budget_bytes`. Does not block on a non-blocking socket. Tests:
/// `drain_write_keeps_its_place`.
///
/// # Errors
/// Those of write(2), except `WouldBlock` and `Interrupted`. EPIPE and ECONNRESET mean that the peer has disconnected, not a bug in this
/// crate.
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
            Ok(0) => return Err(io::Error::new(ErrorKind::WriteZero, "write(2) returned 0 for a non-empty buffer")),
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

/// The loop's input buffer, into which its visits read.
#[derive(Debug)]
pub(crate) struct InputScratch {
    pub(crate) bytes: Box<[u8]>,
    /// The lease of partial input that the running visit offers to the handler without a copy. None between visits.
    pub(crate) in_hand: Option<Lease>,
}

impl InputScratch {
    pub(crate) fn new(bytes: usize) -> InputScratch {
        InputScratch { bytes: vec![0; bytes].into_boxed_slice(), in_hand: None }
    }
}
