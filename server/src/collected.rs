//! A request body that is collected in memory: how its buffer grows, so that the server can charge the growth before it happens.

/// The first buffer for a body of unknown length. A page.
const FIRST_BYTES: usize = 4 << 10;

/// The bytes of a body that have arrived.
///
/// The buffer grows with what has arrived and not with what was announced, because a length is only a promise. A buffer of known length never becomes larger
/// than that. Growth doubles the buffer, so that the bytes are moved a few times at most.
#[derive(Debug, Default)]
pub struct CollectedBody {
    bytes: Vec<u8>,
    /// The announced length; the largest `usize` for none.
    length_bytes: Option<usize>,
}

impl CollectedBody {
    /// Sets the length that the request announces.
    pub fn expect(&mut self, length_bytes: u64) {
        self.length_bytes = usize::try_from(length_bytes).ok();
    }

    /// The number of bytes that have arrived.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether no byte has arrived.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The size of the buffer in bytes after `more` bytes are appended.
    #[must_use]
    pub fn memory_bytes(&self, more: usize) -> usize {
        let needed = self.bytes.len().saturating_add(more);
        if needed <= self.bytes.capacity() {
            return self.bytes.capacity();
        }
        let doubled = self.bytes.capacity().saturating_mul(2).max(FIRST_BYTES);
        // `needed` is more than the announced length only if the caller offers more than the request has.
        doubled.min(self.length_bytes.unwrap_or(usize::MAX)).max(needed)
    }

    /// Appends a piece. False if the system has no memory for it: nothing was appended, and the caller should answer 503.
    #[must_use]
    pub fn append(&mut self, piece: &[u8]) -> bool {
        let capacity = self.memory_bytes(piece.len());
        if self.bytes.try_reserve_exact(capacity - self.bytes.len()).is_err() {
            return false;
        }
        self.bytes.extend_from_slice(piece);
        true
    }

    /// The body.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_buffer_has_the_size_that_was_announced_before_each_piece(
            pieces in prop::collection::vec(prop_oneof![0..100usize, 0..70_000usize], 1..30),
            is_length_known: bool,
        ) {
            let length: usize = pieces.iter().sum();
            let mut body = CollectedBody::default();
            if is_length_known {
                body.expect(length as u64);
            }
            for piece in pieces {
                let announced = body.memory_bytes(piece);
                prop_assert!(body.append(&vec![7; piece]));
                prop_assert_eq!(body.bytes.capacity(), announced);
                let most = if is_length_known { length } else { (2 * body.len()).max(FIRST_BYTES) };
                prop_assert!(announced <= most);
            }
            prop_assert_eq!(body.into_bytes(), vec![7; length]);
        }
    }
}
