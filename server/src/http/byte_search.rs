//! Finds the first byte of a kind, eight bytes at a time, in a few instructions for each eight.
//!
//! A byte of a kind is *marked* by its high bit in a word (Warren, "Hacker's Delight", section 6-1). The
//! sums below borrow from or carry to the next byte only where a byte is marked, so a mark may be false
//! behind a true one, and never before it: the first mark is right, and so is "there is none". Read next:
//! `scan.rs` and `target.rs`, which search.

/// Multiplied by a byte, it is a word full of it.
const EACH: u64 = u64::from_le_bytes([1; 8]);

/// The high bit of each byte.
const MARKS: u64 = EACH * 0x80;

/// Marks the bytes below `limit`, which is at most 0x80.
#[inline]
pub(super) const fn below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(EACH * limit as u64) & !word & MARKS
}

/// Marks the bytes from 0x7f on: DEL, and all that is not ASCII.
#[inline]
pub(super) const fn from_del(word: u64) -> u64 {
    (word | word.wrapping_add(EACH)) & MARKS
}

/// Marks the bytes equal to `byte`.
#[inline]
pub(super) const fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (EACH * byte as u64), 1)
}

/// The place of the first byte from `from` on that `marks` marks, or the length of `bytes`.
#[inline]
pub(super) fn find(bytes: &[u8], from: usize, marks: impl Fn(u64) -> u64) -> usize {
    let mut at = from;
    while let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let marked = marks(u64::from_le_bytes(*eight));
        if marked != 0 {
            return at + (marked.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    // The same question, so that the last bytes cannot be of another kind than the others.
    while bytes.get(at).is_some_and(|&byte| marks(EACH * u64::from(byte)) == 0) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each kind, and the same kind said byte by byte.
    type Kind = (fn(u64) -> u64, fn(u8) -> bool);
    const KINDS: [Kind; 4] = [
        (|word| below(word, 0x20), |byte| byte < 0x20),
        (|word| below(word, 0x80), |byte| byte < 0x80),
        (from_del, |byte| byte >= 0x7f),
        (|word| equal(word, b'?') | equal(word, b'#'), |byte| byte == b'?' || byte == b'#'),
    ];

    /// Beside each byte, those that borrow, carry or come close.
    const NEIGHBOURS: [u8; 11] = [0, 1, 0x1f, 0x20, 0x21, b'>', b'@', 0x7e, 0x7f, 0x80, 0xff];

    #[test]
    fn every_byte_is_of_the_same_kind_at_every_place_and_beside_any_other() {
        for (marks, is_kind) in KINDS {
            for byte in 0..=255_u8 {
                for neighbour in NEIGHBOURS {
                    for length in 1..=17 {
                        for place in 0..length {
                            let mut bytes = [neighbour; 17];
                            bytes[place] = byte;
                            let bytes = &bytes[..length];
                            let expected = bytes.iter().position(|&byte| is_kind(byte)).unwrap_or(length);
                            assert_eq!(find(bytes, 0, marks), expected, "{bytes:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_search_begins_where_it_is_told_to() {
        let bytes = b"?aaaaaaaaa?aaa?a";
        for (from, expected) in [(0, 0), (1, 10), (10, 10), (11, 14), (15, 16), (16, 16)] {
            assert_eq!(find(bytes, from, |word| equal(word, b'?')), expected);
        }
    }
}
