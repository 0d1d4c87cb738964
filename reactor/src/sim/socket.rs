//! One simulated TCP socket of the loop's process: two byte queues, what the peer has ended, and what tcp_poll would say.
//!
//! Each rule names its source in Linux.

use std::collections::VecDeque;
use std::io;

use super::kernel::Nanos;
use crate::os::Ready;
use crate::token::Token;

/// epoll's bits, by their numbers in `include/uapi/linux/eventpoll.h`.
pub(crate) mod bits {
    pub(crate) const IN: u32 = 0x1;
    pub(crate) const PRI: u32 = 0x2;
    pub(crate) const OUT: u32 = 0x4;
    pub(crate) const ERR: u32 = 0x8;
    pub(crate) const HUP: u32 = 0x10;
    pub(crate) const RDHUP: u32 = 0x2000;
}

/// What mio makes of them (`src/sys/unix/selector/epoll.rs`, module `event`), as `os/linux.rs` passes it on.
pub(crate) fn ready_of(mask: u32) -> Ready {
    let has = |bit: u32| mask & bit != 0;
    let mut ready = Ready::default();
    let mut put = |on: bool, bit: Ready| {
        if on {
            ready = ready.union(bit);
        }
    };
    put(has(bits::IN) || has(bits::PRI), Ready::READABLE);
    put(has(bits::OUT), Ready::WRITABLE);
    put(has(bits::HUP) || (has(bits::IN) && has(bits::RDHUP)), Ready::READ_CLOSED);
    put(has(bits::HUP) || (has(bits::OUT) && has(bits::ERR)) || mask == bits::ERR, Ready::WRITE_CLOSED);
    put(has(bits::ERR), Ready::ERROR);
    put(has(bits::PRI), Ready::PRIORITY);
    ready
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// SYN sent by us.
    Connecting,
    /// Established, or half closed.
    Open,
    /// Reset, or a connect that failed (`TCP_CLOSE`).
    Reset,
}

/// A socket.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) phase: Phase,
    /// Arrived and not read.
    pub(crate) received: VecDeque<u8>,
    received_bytes_max: usize,
    /// How many bytes of `received` come before the urgent mark.
    urgent_after: Option<usize>,
    /// The peer's FIN has arrived (`RCV_SHUTDOWN`, `SOCK_DONE`).
    pub(crate) peer_ended: bool,
    /// A read has returned 0.
    pub(crate) end_read: bool,
    /// Written and not taken by the peer.
    pub(crate) unsent: VecDeque<u8>,
    unsent_bytes_max: usize,
    /// FIN is sent (`SEND_SHUTDOWN`).
    pub(crate) ended: bool,
    /// A write found no room, or a poll did: only then does freed room make an edge (`SOCK_NOSPACE`).
    pub(crate) wants_space: bool,
    /// `sk_err`: reported once.
    pub(crate) error: Option<i32>,
    /// The descriptor exists: accepted or connected, and not dropped.
    pub(crate) open: bool,
    pub(crate) registered: Option<Token>,
    /// Whose epoll that is.
    pub(crate) of_loop: usize,
    /// Between two loops: released and not adopted.
    pub(crate) in_transit: bool,
    /// A service's `opened` was called for it.
    pub(crate) is_opened: bool,
    /// On epoll's ready list (`rdllist`).
    pub(crate) on_ready_list: bool,
    /// Edges that are under way (see `Kernel::edge`).
    pub(crate) late_edges: u32,
    /// `SO_LINGER` of zero: close(2) forgets what is unsent and sends a reset (`tcp_close`, `net/ipv4/tcp.c`).
    pub(crate) resets_at_close: bool,
    /// A fault was injected here: the peer's complaints do not count any more.
    pub(crate) faulted: bool,
    /// It was closed when its time to linger was over.
    pub(crate) lingered_out: bool,
    /// What the loop did with it, for the checks.
    pub(crate) log: SocketLog,
}

/// What the loop did with a socket: in this turn, and when last.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SocketLog {
    pub(crate) turn: u64,
    pub(crate) reads: u32,
    pub(crate) bytes_read: usize,
    pub(crate) bytes_written: usize,
    /// This turn's poll reported input, and there was some.
    pub(crate) reported: bool,
    /// Something else happened that counts as getting somewhere: an end, an error, an interrupted call.
    pub(crate) moved: bool,
    /// Why the last drain of this turn ended, as far as the system can see.
    pub(crate) last_read: Option<LastRead>,
    /// The next FIN is a half-close that the service asked for: input still reaches it.
    pub(crate) is_half_closing: bool,
    /// FIN was sent in the turn that began then, and input is discarded since.
    pub(crate) ended_at: Option<Nanos>,
    /// It was refused, or ended while places were short: it lingers for less.
    pub(crate) lingers_briefly: bool,
    /// The last byte was taken in the turn that began then.
    pub(crate) progress_at: Option<Nanos>,
    /// The same by the clock: later than the turn's beginning by as much as callbacks have cost.
    pub(crate) progress_clock: Nanos,
    /// The last write got no memory, though the send buffer had space.
    pub(crate) lacked_memory: bool,
    /// All that the loop has written.
    pub(crate) written_bytes: u64,
    /// The last two times that the loop asked for the unacknowledged bytes: the turn's beginning, and the bytes that the peer had taken.
    pub(crate) looks: [Option<(Nanos, u64)>; 2],
    /// Since when output waits for the peer.
    pub(crate) blocked_since: Option<Nanos>,
    /// Output that the loop kept after the last turn, and whether that had reached the high water and not fallen to the low one.
    pub(crate) kept_bytes: usize,
    pub(crate) is_full: bool,
    /// Turns in a row on the loop's ready list without getting anywhere.
    pub(crate) fruitless_turns: u32,
    /// The phase of its connection after the last turn.
    pub(crate) loop_phase: crate::slot::Phase,
}

/// The last answer of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastRead {
    WouldBlock,
    Short,
    Full,
    End,
    Failed,
}

impl Socket {
    pub(crate) fn new(phase: Phase, received_bytes_max: usize, unsent_bytes_max: usize) -> Socket {
        Socket {
            phase,
            received: VecDeque::new(),
            received_bytes_max,
            urgent_after: None,
            peer_ended: false,
            end_read: false,
            unsent: VecDeque::new(),
            unsent_bytes_max,
            ended: false,
            wants_space: false,
            error: None,
            open: false,
            registered: None,
            of_loop: 0,
            in_transit: false,
            is_opened: false,
            on_ready_list: false,
            late_edges: 0,
            resets_at_close: false,
            faulted: false,
            lingered_out: false,
            log: SocketLog::default(),
        }
    }

    /// tcp_poll, `net/ipv4/tcp.c`. Like the kernel's, a look that finds no room asks for an edge when there is some.
    pub(crate) fn poll(&mut self) -> u32 {
        let mut mask = 0;
        let both_ended = self.ended && self.peer_ended;
        if both_ended || self.phase == Phase::Reset {
            mask |= bits::HUP;
        }
        if self.peer_ended || self.phase == Phase::Reset {
            mask |= bits::IN | bits::RDHUP;
        }
        if self.phase != Phase::Connecting {
            if self.has_bytes() {
                mask |= bits::IN;
            }
            if self.ended || self.phase == Phase::Reset || self.is_writable() {
                mask |= bits::OUT;
            } else {
                self.wants_space = true;
            }
            if self.urgent_after.is_some() {
                mask |= bits::PRI;
            }
        }
        if self.error.is_some() {
            mask |= bits::ERR;
        }
        mask
    }

    fn has_bytes(&self) -> bool {
        !self.received.is_empty()
    }

    /// `__sk_stream_is_writeable`, `include/net/sock.h`: as much is free as half of what is queued, so a third of the buffer.
    fn is_writable(&self) -> bool {
        self.unsent_bytes_max.saturating_sub(self.unsent.len()) >= self.unsent.len().div_ceil(2).max(1)
    }

    /// Whether a read would return something else than `WouldBlock`.
    pub(crate) fn is_readable(&self) -> bool {
        self.has_bytes() || (self.peer_ended && !self.end_read) || self.error.is_some()
    }

    /// Whether an edge is on its way to the loop.
    pub(crate) fn edge_is_coming(&self) -> bool {
        self.on_ready_list || self.late_edges > 0
    }

    /// tcp_recvmsg_locked, `net/ipv4/tcp.c`: bytes first, even after a reset; then the end; then the error. A read stops at the urgent
    /// mark, and the next one begins behind it; the urgent byte itself is out of band and not in the stream (tcp(7)).
    pub(crate) fn read(&mut self, into: &mut [u8], bytes_max: usize) -> io::Result<usize> {
        if self.urgent_after == Some(0) {
            self.urgent_after = None;
        }
        let available = self.urgent_after.map_or(self.received.len(), |bytes| bytes.min(self.received.len()));
        let n = available.min(into.len()).min(bytes_max);
        if n == 0 {
            if self.peer_ended {
                self.end_read = true;
                return Ok(0);
            }
            return Err(match self.error.take() {
                Some(errno) => io::Error::from_raw_os_error(errno),
                None if self.phase == Phase::Reset => return Ok(0),
                None => io::ErrorKind::WouldBlock.into(),
            });
        }
        let (first, second) = self.received.as_slices();
        let from_first = n.min(first.len());
        into[..from_first].copy_from_slice(&first[..from_first]);
        into[from_first..n].copy_from_slice(&second[..n - from_first]);
        self.received.drain(..n);
        if let Some(after) = &mut self.urgent_after {
            *after -= n;
        }
        Ok(n)
    }

    /// tcp_sendmsg_locked, `net/ipv4/tcp.c`: takes what fits; a write that was not taken whole asks for an edge (`SOCK_NOSPACE`).
    pub(crate) fn write(&mut self, from: &[u8], bytes_max: usize) -> io::Result<usize> {
        if self.phase == Phase::Reset || self.ended {
            // sk_stream_error, `net/core/stream.c`.
            return Err(io::Error::from_raw_os_error(self.error.take().unwrap_or(libc::EPIPE)));
        }
        let room = self.unsent_bytes_max.saturating_sub(self.unsent.len());
        if room < from.len() {
            self.wants_space = true;
        }
        if room == 0 || self.phase == Phase::Connecting {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = room.min(from.len()).min(bytes_max);
        self.unsent.extend(&from[..n]);
        Ok(n)
    }

    /// Room for bytes from the peer: its window.
    pub(crate) fn window(&self) -> usize {
        match self.phase {
            Phase::Open if !self.peer_ended => self.received_bytes_max.saturating_sub(self.received.len()),
            _ => 0,
        }
    }

    /// An urgent byte arrives behind what has arrived so far. A later mark replaces an earlier one (tcp_check_urg).
    pub(crate) fn mark_urgent(&mut self) {
        self.urgent_after = Some(self.received.len());
    }

    /// tcp_reset, `net/ipv4/tcp_input.c`: what was to be sent is gone, what has arrived stays readable.
    pub(crate) fn reset(&mut self) {
        self.error = Some(match (self.phase, self.peer_ended) {
            (Phase::Connecting, _) => libc::ECONNREFUSED,
            (_, true) => libc::EPIPE,
            (_, false) => libc::ECONNRESET,
        });
        self.phase = Phase::Reset;
        self.unsent.clear();
    }

    /// sk_stream_write_space, `net/core/stream.c`: whether freed room makes an edge.
    pub(crate) fn space_freed(&mut self) -> bool {
        if self.wants_space && self.is_writable() {
            self.wants_space = false;
            return true;
        }
        false
    }
}
