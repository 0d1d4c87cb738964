//! Finds the end of a head that arrives in pieces. It reads each byte once.
//!
//! A head that arrives byte by byte must cost O(n) and not O(n²) (`quadratic-parse`), and the response must not depend on how the bytes were cut.
//! So the scan also refuses a head at the first byte that no head may contain. The parser would find it only at the blank line, which may never
//! arrive.
//! Read next: `head.rs`.

use super::{HttpLimits, Refusal, byte_search};

/// How far a head has been looked through. All places are relative to the unconsumed input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeadScan {
    /// Everything before this was scanned.
    scanned_bytes: u32,
    /// Where the line begins that the scan is in.
    line_start: u32,
    /// Empty lines skipped before the request line.
    leading_newlines: u8,
}

impl HeadScan {
    pub(super) const fn new() -> Self {
        Self { scanned_bytes: 0, line_start: 0, leading_newlines: 0 }
    }

    /// Whether a head has begun: the request line's first byte was seen.
    pub(super) fn has_begun(&self) -> bool {
        self.scanned_bytes > 0
    }

    /// Consumes the empty lines that are allowed before the request line; returns their bytes.
    #[cold]
    pub(super) fn skip_newlines(&mut self, limits: &HttpLimits, input: &[u8]) -> usize {
        let mut used = 0;
        while self.scanned_bytes == 0 && self.leading_newlines < limits.leading_newlines_max && input[used..].starts_with(b"\r\n") {
            self.leading_newlines += 1;
            used += 2;
        }
        used
    }

    /// Scans what is new in `head`. Returns the length of the head once its blank line is there.
    #[cold]
    pub(super) fn scan(&mut self, limits: &HttpLimits, head: &[u8]) -> Result<Option<usize>, Refusal> {
        let head_bytes_max = limits.head_bytes_max as usize;
        let window = &head[..head.len().min(head_bytes_max)];
        let request_line_bytes_max = limits.request_line_bytes_max();
        let (mut at, mut line_start) = (self.scanned_bytes as usize, self.line_start as usize);
        loop {
            at = byte_search::find(window, at, |word| byte_search::below(word, 0x20));
            if line_start == 0 && at > request_line_bytes_max {
                return Err(too_long_request_line(limits, window));
            }
            match (window.get(at), window.get(at + 1)) {
                (Some(b'\r'), Some(b'\n')) => {
                    let line_end = at + 2;
                    if at == line_start {
                        // An empty first line: one more than `skip_newlines` may skip.
                        return if at == 0 { Err(Refusal::LeadingNewlines) } else { Ok(Some(line_end)) };
                    }
                    (at, line_start) = (line_end, line_end);
                }
                (Some(b'\t'), _) => at += 1,
                (Some(b'\r'), None) | (None, _) => break,
                (Some(b'\r'), Some(_)) => return Err(Refusal::BareCr),
                (Some(b'\n'), _) => return Err(Refusal::BareLf),
                (Some(_), _) => return Err(Refusal::ControlByte),
            }
        }
        if window.len() == head_bytes_max {
            return Err(Refusal::HeadTooLong);
        }
        self.scanned_bytes = at as u32;
        self.line_start = line_start as u32;
        Ok(None)
    }
}

/// Which part is too long: 501 for a method that does not end, else 414 for the target. RFC 9112 section 3.
#[cold]
fn too_long_request_line(limits: &HttpLimits, line: &[u8]) -> Refusal {
    let method_bytes_max = limits.method_bytes_max as usize;
    if line.iter().take(method_bytes_max + 1).any(|&byte| byte == b' ') { Refusal::TargetTooLong } else { Refusal::MethodTooLong }
}
