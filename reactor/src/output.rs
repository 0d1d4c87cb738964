//! The output buffer that the connections of a loop share, and the two ways to write into it: [`Output`] and [`Cursor`].
//!
//! The buffer is not cleared between visits, since that would cost a pass over it for each visit: beyond its filled part it holds what other
//! connections' responses left there. So both types count what was written, and neither lets its user see or claim a byte that it has not
//! written. Test: `bytes_of_an_earlier_visit_cannot_become_output`.

use std::marker::PhantomData;

/// The loop's output buffer. Callbacks append to it, and `Visit::flush` writes what they have appended in one call (`split-write`).
#[derive(Debug)]
pub(crate) struct OutputScratch {
    bytes: Box<[u8]>,
    filled: usize,
    /// Length before the running callback. A panic drops what is behind it.
    before_callback: usize,
    /// Start of the piece that was appended last.
    last_piece: usize,
}

impl OutputScratch {
    pub(crate) fn new(bytes: usize) -> OutputScratch {
        OutputScratch { bytes: vec![0; bytes].into_boxed_slice(), filled: 0, before_callback: 0, last_piece: 0 }
    }

    #[inline]
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.filled
    }

    /// The end of the piece that contains `from`: the piece that was appended last, or the pieces before it as one.
    pub(crate) fn end_of_piece(&self, from: usize) -> usize {
        if from < self.last_piece { self.last_piece.min(self.filled) } else { self.filled }
    }

    /// Notes that a callback begins.
    #[inline]
    pub(crate) fn callback_begins(&mut self) {
        self.before_callback = self.filled;
    }

    /// Drops what the callback that has panicked wrote. What it discarded of earlier output stays discarded.
    pub(crate) fn callback_panicked(&mut self) {
        self.truncate(self.before_callback);
    }

    /// Drops the bytes after the first `len`.
    #[inline]
    pub(crate) fn truncate(&mut self, len: usize) {
        self.filled = self.filled.min(len);
        // A callback can discard output that was there before it. What it writes instead is its own.
        self.before_callback = self.before_callback.min(len);
    }
}

/// Output space of the connection that is visited: a part of the loop's output buffer. It counts what is written.
#[derive(Debug)]
pub struct Output<'a> {
    scratch: &'a mut OutputScratch,
    /// Where this `Output` begins in the buffer.
    start: usize,
    end_max: usize,
}

impl<'a> Output<'a> {
    #[inline]
    pub(crate) fn new(scratch: &'a mut OutputScratch, end_max: usize) -> Output<'a> {
        debug_assert!(end_max <= scratch.bytes.len());
        Output { start: scratch.filled, scratch, end_max }
    }

    /// Free output space, in bytes.
    #[must_use]
    #[inline]
    pub fn space(&self) -> usize {
        self.end_max.saturating_sub(self.scratch.filled)
    }

    /// The number of bytes written through this `Output`.
    #[must_use]
    #[inline]
    pub fn written_bytes(&self) -> usize {
        self.scratch.filled.saturating_sub(self.start)
    }

    /// Appends as much of `bytes` as fits. Returns the number of bytes appended.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.space());
        self.scratch.bytes[self.scratch.filled..][..n].copy_from_slice(&bytes[..n]);
        self.scratch.last_piece = self.scratch.filled;
        self.scratch.filled += n;
        n
    }

    /// Appends what `encode` writes into the [`Cursor`] that it gets, as one piece. If it returns `None`, because the space is not enough, nothing
    /// is appended. Returns whether it was appended.
    #[inline(always)]
    pub fn encode(&mut self, encode: impl for<'c> FnOnce(Cursor<'c>) -> Option<Cursor<'c>>) -> bool {
        let from = self.scratch.filled.min(self.end_max);
        let spare = &mut self.scratch.bytes[from..self.end_max];
        let space = spare.len();
        let Some(cursor) = encode(Cursor { rest: spare, brand: PhantomData }) else { return false };
        let n = space - cursor.rest.len();
        self.scratch.last_piece = self.scratch.filled;
        self.scratch.filled += n;
        true
    }

    /// An output that takes at most `bytes_max` bytes of this one's space. What is written to it is written to this one.
    #[must_use]
    #[inline]
    pub fn limited(&mut self, bytes_max: usize) -> Output<'_> {
        let end_max = self.scratch.filled.saturating_add(bytes_max).min(self.end_max);
        Output::new(self.scratch, end_max)
    }

    /// Writes over bytes that were written through this `Output` before, from its byte number `at` on: for a header whose content is
    /// known only after what follows it.
    ///
    /// # Panics
    /// If they reach beyond [`Output::written_bytes`].
    #[inline]
    pub fn overwrite(&mut self, at: usize, bytes: &[u8]) {
        assert!(at.saturating_add(bytes.len()) <= self.written_bytes(), "only bytes that were written can be written over");
        self.scratch.bytes[self.start + at..][..bytes.len()].copy_from_slice(bytes);
    }

    /// Drops what was written through this `Output` after its first `bytes` bytes.
    #[inline]
    pub fn truncate(&mut self, bytes: usize) {
        self.scratch.truncate(self.start.saturating_add(bytes));
    }
}

/// A place to encode into, passed on by value: each write consumes it and returns the place behind what was written, or `None` if that did not
/// fit. So an encoder's position stays in a register.
///
/// [`Output::encode`] takes back the cursor that it gave out, and so knows how much was written. No other one fits:
///
/// ```compile_fail
/// use reactor::OutputBuffer;
/// let mut other = OutputBuffer::new(100);
/// let mut buffer = OutputBuffer::new(100);
/// let mut result = None;
/// other.output().encode(|cursor| { result = Some(cursor); None });
/// buffer.output().encode(|_| result); // A cursor does not outlive the call that it was made for.
/// ```
#[derive(Debug)]
pub struct Cursor<'a> {
    rest: &'a mut [u8],
    /// Makes the lifetime invariant, so that `for<'c>` above admits only the cursor of that call.
    brand: PhantomData<fn(&'a ()) -> &'a ()>,
}

impl Cursor<'_> {
    /// Free space, in bytes.
    #[must_use]
    #[inline(always)]
    pub fn space(&self) -> usize {
        self.rest.len()
    }

    /// Writes a fixed number of bytes: a few moves instead of a call, after one comparison.
    #[must_use]
    #[inline(always)]
    pub fn put<const N: usize>(self, bytes: &[u8; N]) -> Option<Self> {
        let (place, rest) = self.rest.split_first_chunk_mut::<N>()?;
        *place = *bytes;
        Some(Self { rest, brand: PhantomData })
    }

    /// Writes any number of bytes. Fast for 8 to 16, which most header values are: two moves that overlap cost less than a call.
    #[must_use]
    #[inline(always)]
    pub fn put_slice(self, bytes: &[u8]) -> Option<Self> {
        let (place, rest) = self.rest.split_at_mut_checked(bytes.len())?;
        match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
            (Some(first), Some(last)) if bytes.len() <= 16 => {
                *place.first_chunk_mut()? = *first;
                *place.last_chunk_mut()? = *last;
            }
            _ => place.copy_from_slice(bytes),
        }
        Some(Self { rest, brand: PhantomData })
    }
}

/// An output buffer without a loop, for tests and benchmarks of what writes into an [`Output`].
#[derive(Debug)]
pub struct OutputBuffer(OutputScratch);

impl OutputBuffer {
    /// A buffer of this many bytes, which is the space that [`OutputBuffer::output`] offers at first.
    #[must_use]
    pub fn new(bytes: usize) -> OutputBuffer {
        OutputBuffer(OutputScratch::new(bytes))
    }

    /// The space that is left.
    #[inline]
    pub fn output(&mut self) -> Output<'_> {
        let end_max = self.0.bytes.len();
        Output::new(&mut self.0, end_max)
    }

    /// What was written.
    #[must_use]
    pub fn filled(&self) -> &[u8] {
        self.0.filled()
    }

    /// Forgets what was written, as the loop does between two visits.
    pub fn clear(&mut self) {
        self.0.truncate(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn bytes_of_an_earlier_visit_cannot_become_output() {
        let mut buffer = OutputBuffer::new(32);
        assert_eq!(buffer.output().write(&[b's'; 40]), 32);
        buffer.clear();
        let mut output = buffer.output();
        assert_eq!((output.space(), output.written_bytes()), (32, 0));
        output.write(b"head:");
        assert!(!output.encode(|cursor| cursor.put(b"an attempt that")?.put_slice(b"does not fit at all")));
        assert!(output.encode(|cursor| cursor.put(b"ab")?.put_slice(b"cd")));
        assert_eq!(output.limited(3).write(b"efgh"), 3);
        assert_eq!(output.limited(100).space(), 32 - 12);
        output.overwrite(0, b"HEAD");
        assert!(catch_unwind(AssertUnwindSafe(|| output.overwrite(9, b"long"))).is_err());
        output.truncate(20); // Beyond what was written: no change.
        assert_eq!(output.written_bytes(), 12);
        output.truncate(11);
        assert_eq!(buffer.filled(), b"HEAD:abcdef");
        // What is written later cannot be reached by an output that came before it, nor the other way round.
        let mut next = buffer.output();
        next.truncate(0);
        assert_eq!(next.written_bytes(), 0);
        assert!(catch_unwind(AssertUnwindSafe(|| next.overwrite(0, b"x"))).is_err());
        assert_eq!(buffer.filled(), b"HEAD:abcdef");
    }

    #[test]
    fn a_cursor_writes_texts_of_every_length_as_they_are() {
        let text: Vec<u8> = (0..64).collect();
        for length in 0..=text.len() {
            let mut buffer = OutputBuffer::new(64);
            assert!(buffer.output().encode(|cursor| cursor.put_slice(&text[..length])));
            assert_eq!(buffer.filled(), &text[..length]);
            let mut short = OutputBuffer::new(length);
            assert!(!short.output().encode(|cursor| cursor.put_slice(&[0; 65][..length + 1])));
        }
    }
}
