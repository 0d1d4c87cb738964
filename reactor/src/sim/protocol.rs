//! The protocol that the simulated service and its peers speak: made to show whose bytes are whose, and in which order.
//!
//! A frame is a head of 8 bytes (kind, status, length, nonce) and a payload. The nonce names peer and request, and the payload follows
//! from the nonce: so one wrong, lost, doubled or foreign byte is seen where it appears.

use std::sync::LazyLock;

use super::rng::Rng;

/// Bytes of a frame's head.
pub(crate) const HEAD_BYTES: usize = 8;

/// What a peer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Send the payload back, piece by piece, as it comes.
    Echo = 1,
    /// Take the whole payload as one message, then answer with 4 bytes.
    Whole,
    /// Have a worker compute `len` bytes.
    Job,
    /// Send `len` bytes, as room permits.
    Stream,
    /// Answer after `len` times 100 µs.
    Sleep,
    /// Send a note for each thing published from now on.
    Subscribe,
    /// Publish.
    Publish,
    /// Answer and close.
    Bye,
    /// Close at once.
    Abort,
    /// Panic.
    Panic,
    /// Not asked for: a note to a subscriber; its nonce is the number of the thing published.
    Note,
    /// Not asked for: the service has to end the connection, and the status says why.
    Ending,
}

impl Kind {
    pub(crate) fn of(byte: u8) -> Option<Kind> {
        use Kind::*;
        [Echo, Whole, Job, Stream, Sleep, Subscribe, Publish, Bye, Abort, Panic, Note, Ending].into_iter().find(|kind| *kind as u8 == byte)
    }

    /// Whether the request carries `len` bytes of payload.
    pub(crate) fn has_request_payload(self) -> bool {
        matches!(self, Kind::Echo | Kind::Whole)
    }

    /// Bytes of payload in a good answer to a request of this kind and `len`.
    pub(crate) fn answer_bytes(self, len: u16) -> u16 {
        match self {
            Kind::Echo | Kind::Job | Kind::Stream => len,
            Kind::Whole => 4,
            _ => 0,
        }
    }
}

/// How an answer turned out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Status {
    Good,
    /// No room for the worker's mail.
    Busy,
    /// The worker took too long.
    TooLate,
    /// Too many connections.
    Refused,
    /// Memory ran out.
    Evicted,
    /// The loop drains.
    Draining,
    /// The peer was silent, or too slow with a request.
    TimedOut,
    /// A callback panicked.
    Broken,
}

impl Status {
    pub(crate) fn of(byte: u8) -> Option<Status> {
        use Status::*;
        [Good, Busy, TooLate, Refused, Evicted, Draining, TimedOut, Broken].into_iter().find(|status| *status as u8 == byte)
    }
}

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) status: Status,
    pub(crate) len: u16,
    pub(crate) nonce: u32,
}

impl Head {
    pub(crate) fn new(kind: Kind, status: Status, len: u16, nonce: u32) -> Head {
        Head { kind, status, len, nonce }
    }

    pub(crate) fn encode(self) -> [u8; HEAD_BYTES] {
        let [len0, len1] = self.len.to_le_bytes();
        let [n0, n1, n2, n3] = self.nonce.to_le_bytes();
        [self.kind as u8, self.status as u8, len0, len1, n0, n1, n2, n3]
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Head> {
        let &[kind, status, len0, len1, n0, n1, n2, n3] = bytes.first_chunk::<HEAD_BYTES>()?;
        Some(Head {
            kind: Kind::of(kind)?,
            status: Status::of(status)?,
            len: u16::from_le_bytes([len0, len1]),
            nonce: u32::from_le_bytes([n0, n1, n2, n3]),
        })
    }
}

const PATTERN_BYTES: usize = 1 << 14;

/// Twice the same random bytes, so that a piece from anywhere in the first half is one slice.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut rng = Rng::new(0x5eed);
    let once: Vec<u8> = (0..PATTERN_BYTES).map(|_| rng.bits() as u8).collect();
    [once.as_slice(), once.as_slice()].concat()
});

/// The payload's bytes from `from` on, as many as come in one slice, at most `bytes_max`.
pub(crate) fn payload(nonce: u32, from: usize, bytes_max: usize) -> &'static [u8] {
    let start = (nonce.wrapping_mul(2_654_435_769) >> 16) as usize + from;
    let start = start % PATTERN_BYTES;
    &PATTERN[start..start + bytes_max.min(PATTERN_BYTES)]
}

/// Where `bytes`, said to be the payload's from `from` on, differ first.
pub(crate) fn first_difference(nonce: u32, from: usize, bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < bytes.len() {
        let expected = payload(nonce, from + at, bytes.len() - at);
        let given = &bytes[at..at + expected.len()];
        if given != expected {
            return given.iter().zip(expected).position(|(a, b)| a != b).map(|i| from + at + i);
        }
        at += expected.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Head, Kind, Status, first_difference, payload};

    #[test]
    fn a_head_reads_as_it_was_written() {
        let head = Head::new(Kind::Stream, Status::Busy, 513, 0xdead_beef);
        assert_eq!(Head::decode(&head.encode()), Some(head));
        assert_eq!(Head::decode(&[0; 8]), None);
    }

    #[test]
    fn one_wrong_byte_is_found_where_it_is() {
        let mut bytes: Vec<u8> = payload(77, 100, 300).to_vec();
        assert_eq!(first_difference(77, 100, &bytes), None);
        bytes[17] ^= 1;
        assert_eq!(first_difference(77, 100, &bytes), Some(117));
    }
}
