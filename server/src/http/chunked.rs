//! The chunked decoder: a state table that consumes framing byte by byte and never copies the data.
//!
//! Written by hand, because what a lenient decoder accepts here is how a request is smuggled: a bare LF
//! in a size line (Go CVE-2025-22871) or in an extension (Kestrel CVE-2025-55315), bytes after the data
//! left unchecked (h11 CVE-2025-43859), an empty size read as 0 (`httparse::parse_chunk_size`).
//! Grammar: RFC 9112 section 7.1. Read next: `machine.rs`, which hands out the data.

use super::{HttpLimits, Refusal};

/// The most hex digits of one chunk size: 64 bits. More would overflow.
const SIZE_DIGITS_MAX: u8 = 16;

/// Where in the framing the next byte falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum At {
    /// A digit of the size.
    Size,
    /// Space after the size, which only `;` may end.
    SizeSpace,
    /// Before an extension's name.
    NameStart,
    /// Within it.
    Name,
    /// Space after it.
    NameSpace,
    /// Before its value.
    ValueStart,
    /// Within an unquoted value.
    Value,
    /// Within quotes.
    Quoted,
    /// After a backslash within quotes.
    QuotedPair,
    /// After the closing quote.
    QuotedEnd,
    /// Space after a value.
    ValueSpace,
    /// The LF of a size line.
    SizeLf,
    /// Within the data: not a byte of framing.
    Data,
    /// The CR after the data.
    DataCr,
    /// The LF after the data.
    DataLf,
    /// The first byte of a trailer line, or the CR of the last line.
    TrailerStart,
    /// Within a trailer's name.
    TrailerName,
    /// Within a trailer's value.
    TrailerValue,
    /// The LF of a trailer line.
    TrailerLf,
    /// The LF that ends the body.
    EndLf,
}

/// What the framing leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// All input is used.
    NeedBytes,
    /// Data begins: this many bytes of it are still to come.
    Data(u64),
    /// The body is complete.
    End,
    /// The framing is broken, or over a limit.
    Refuse(Refusal),
}

/// The state of one chunked body: 24 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunked {
    /// Data bytes left in this chunk; while the size is read, its value so far. 0 between the two.
    left_bytes: u64,
    /// Data bytes announced so far, this chunk's not among them before its size is complete.
    body_bytes: u64,
    /// Bytes of extensions so far; from the last chunk on, bytes of trailers.
    extra_bytes: u32,
    digits: u8,
    at: At,
}

impl Chunked {
    pub(super) const fn new() -> Self {
        Self { left_bytes: 0, body_bytes: 0, extra_bytes: 0, digits: 0, at: At::Size }
    }

    /// Counts data that the sink took.
    pub(super) fn took(&mut self, bytes: u64) {
        assert!(self.at == At::Data && bytes <= self.left_bytes, "took more than the piece that was offered");
        self.left_bytes -= bytes;
        if self.left_bytes == 0 {
            self.at = At::DataCr;
        }
    }

    /// Consumes framing until data, the end, an error, or the end of `input`; returns how much.
    pub(super) fn step(&mut self, limits: &HttpLimits, input: &[u8]) -> (usize, Framing) {
        for (used, &byte) in input.iter().enumerate() {
            if self.at == At::Data {
                return (used, Framing::Data(self.left_bytes));
            }
            match self.next(limits, byte) {
                Ok(At::Data) if self.left_bytes == 0 => {
                    // The last chunk: the counter of extensions is free to count trailers.
                    self.extra_bytes = 0;
                    self.at = At::TrailerStart;
                }
                Ok(_) if self.at == At::EndLf => return (used + 1, Framing::End),
                Ok(at) => self.at = at,
                Err(refusal) => return (used, Framing::Refuse(refusal)),
            }
        }
        (input.len(), Framing::NeedBytes)
    }

    /// The transition table. `EndLf` stays `EndLf`: the caller ends there.
    fn next(&mut self, limits: &HttpLimits, byte: u8) -> Result<At, Refusal> {
        use At::*;
        match self.at {
            SizeSpace | NameStart | Name | NameSpace | ValueStart | Value | Quoted | QuotedPair | QuotedEnd | ValueSpace => {
                self.extra(limits.chunk_extension_bytes_max, Refusal::ChunkExtensionTooLong)?;
            }
            TrailerStart | TrailerName | TrailerValue | TrailerLf => {
                self.extra(limits.trailer_bytes_max, Refusal::TrailersTooLong)?;
            }
            _ => {}
        }
        match (self.at, byte) {
            (Size, b'\r') if self.digits > 0 => self.size_complete(limits, SizeLf),
            (Size, b';') if self.digits > 0 => self.size_complete(limits, NameStart),
            // Space that is not followed by `;` is refused there: "5 \r\n" has no reading.
            (Size, b' ' | b'\t') if self.digits > 0 => self.size_complete(limits, SizeSpace),
            (Size, _) => self.size_digit(byte),
            (SizeSpace | NameSpace | ValueSpace, b' ' | b'\t') => Ok(self.at),
            (SizeSpace, b';') => Ok(NameStart),
            (NameStart, b' ' | b'\t') => Ok(NameStart),
            (NameStart | Name, _) if is_token_byte(byte) => Ok(Name),
            (Name | NameSpace, b'=') => Ok(ValueStart),
            (Name | NameSpace | Value | QuotedEnd | ValueSpace, b';') => Ok(NameStart),
            (Name, b' ' | b'\t') => Ok(NameSpace),
            (ValueStart, b' ' | b'\t') => Ok(ValueStart),
            (ValueStart, b'"') => Ok(Quoted),
            (ValueStart | Value, _) if is_token_byte(byte) => Ok(Value),
            (Value | QuotedEnd, b' ' | b'\t') => Ok(ValueSpace),
            (Name | Value | QuotedEnd, b'\r') => Ok(SizeLf),
            (Quoted, b'"') => Ok(QuotedEnd),
            (Quoted, b'\\') => Ok(QuotedPair),
            // A strict reader accepts neither CR nor LF here: RFC 9110 section 5.6.4.
            (Quoted | QuotedPair, _) if is_text_byte(byte) => Ok(Quoted),
            (SizeLf, b'\n') => Ok(Data),
            (SizeLf, _) => Err(Refusal::ChunkSize),
            (DataCr, b'\r') => Ok(DataLf),
            (DataLf, b'\n') => {
                self.digits = 0;
                Ok(Size)
            }
            (DataCr | DataLf, _) => Err(Refusal::ChunkEnd),
            (TrailerStart, b'\r') => Ok(EndLf),
            (TrailerStart | TrailerName, _) if is_token_byte(byte) => Ok(TrailerName),
            (TrailerName, b':') => Ok(TrailerValue),
            (TrailerValue, b'\r') => Ok(TrailerLf),
            (TrailerValue, _) if is_text_byte(byte) => Ok(TrailerValue),
            (TrailerLf, b'\n') => Ok(TrailerStart),
            (EndLf, b'\n') => Ok(EndLf),
            (TrailerStart | TrailerName | TrailerValue | TrailerLf | EndLf, _) => Err(Refusal::Trailer),
            (_, _) => Err(Refusal::ChunkExtension),
        }
    }

    fn extra(&mut self, bytes_max: u32, refusal: Refusal) -> Result<(), Refusal> {
        if self.extra_bytes >= bytes_max {
            return Err(refusal);
        }
        self.extra_bytes += 1;
        Ok(())
    }

    fn size_digit(&mut self, byte: u8) -> Result<At, Refusal> {
        let digit = char::from(byte).to_digit(16).ok_or(Refusal::ChunkSize)?;
        if self.digits == SIZE_DIGITS_MAX {
            return Err(Refusal::ChunkSize);
        }
        self.digits += 1;
        self.left_bytes = self.left_bytes << 4 | u64::from(digit);
        Ok(At::Size)
    }

    /// Checks the body limit before a byte of the data is seen; written so that no sum can overflow.
    fn size_complete(&mut self, limits: &HttpLimits, next: At) -> Result<At, Refusal> {
        if self.left_bytes > limits.body_bytes_max.saturating_sub(self.body_bytes) {
            return Err(Refusal::BodyTooLong);
        }
        self.body_bytes += self.left_bytes;
        Ok(next)
    }
}

/// A byte of a token: RFC 9110 section 5.6.2.
pub(super) const fn is_token_byte(byte: u8) -> bool {
    matches!(byte,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`'
        | b'|' | b'~' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z')
}

/// A byte of a field value or of quoted text: RFC 9110 sections 5.5 and 5.6.4.
pub(super) const fn is_text_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=0x7e | 0x80..=0xff)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes framing and data of a whole body.
    fn decode(mut input: &[u8]) -> Result<(Vec<u8>, usize), Refusal> {
        let limits = HttpLimits::default();
        let (mut chunked, mut body) = (Chunked::new(), Vec::new());
        loop {
            let (used, framing) = chunked.step(&limits, input);
            input = &input[used..];
            match framing {
                Framing::NeedBytes => panic!("unexpected end"),
                Framing::End => return Ok((body, input.len())),
                Framing::Refuse(refusal) => return Err(refusal),
                Framing::Data(left) => {
                    let piece = left as usize;
                    body.extend_from_slice(&input[..piece]);
                    chunked.took(left);
                    input = &input[piece..];
                }
            }
        }
    }

    #[test]
    fn valid_bodies_decode() {
        for (wire, body) in [
            (&b"0\r\n\r\n"[..], &b""[..]),
            (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
            (b"00005\r\nhello\r\n000\r\n\r\n", b"hello"),
            (b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", b"01234567890123456789"),
            (b"1;a\r\nx\r\n0;b=c\r\n\r\n", b"x"),
            (b"1 ; a = \"q;\\\"\\\\ \" ;b\r\nx\r\n0\r\n\r\n", b"x"),
            (b"1\r\nx\r\n0\r\nTrailer: 1\r\nOther:\r\n\r\n", b"x"),
            (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
        ] {
            assert_eq!(decode(wire), Ok((body.to_vec(), 0)), "{}", wire.escape_ascii());
        }
    }
}
