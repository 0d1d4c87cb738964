//! The loop's one output buffer: everything that a visit has to say is collected here and written in one call.
//!
//! Read next: `visit.rs`.

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
