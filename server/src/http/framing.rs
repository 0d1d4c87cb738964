//! How long a body is, by Content-Length or Transfer-Encoding. Whatever two readers could read in two ways is refused.
//!
//! RFC 9112 section 6.3. Read next: `chunked.rs`.

use super::chunked::is_token_byte;
use super::{BodyKind, HttpLimits, Refusal, Version};

/// What the framing headers said, collected while the header lines go by.
#[derive(Default)]
pub(super) struct FramingHeaders {
    content_length: Option<u64>,
    coding: Option<Coding>,
}

/// The list of transfer codings, which may be spread over several lines.
#[derive(Clone, Copy, PartialEq)]
enum Coding {
    /// `chunked` and nothing else.
    Chunked,
    /// Others that we do not know; `chunked` has not come yet.
    Unknown,
    /// Others that we do not know, then `chunked`.
    UnknownThenChunked,
}

impl FramingHeaders {
    /// Digits and nothing else. Not `str::parse`, which takes `+3` (hyper RUSTSEC-2021-0078).
    pub(super) fn content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.content_length.is_some() {
            // RFC 9112 section 6.3 lets equal values pass. A peer that sends them is broken or probing.
            return Err(Refusal::ContentLengthRepeated);
        }
        if value.is_empty() {
            return Err(Refusal::ContentLength);
        }
        let mut length: u64 = 0;
        for &byte in value {
            if !byte.is_ascii_digit() {
                return Err(Refusal::ContentLength);
            }
            length = length.checked_mul(10).and_then(|tens| tens.checked_add(u64::from(byte - b'0'))).ok_or(Refusal::ContentLength)?;
        }
        self.content_length = Some(length);
        Ok(())
    }

    /// Parses the list. Not a comparison with `chunked`: `gzip, chunked` and `chunked\t` are both real
    /// (sozu issue 726, tinyproxy CVE-2026-54387, pingora CVE-2026-2835).
    pub(super) fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        for element in value.split(|&byte| byte == b',') {
            let element = element.trim_ascii();
            self.coding = Some(match self.coding {
                // `chunked` must be last and must come once; an empty element is not a coding.
                Some(Coding::Chunked | Coding::UnknownThenChunked) => {
                    return Err(Refusal::TransferEncoding);
                }
                None if element.eq_ignore_ascii_case(b"chunked") => Coding::Chunked,
                Some(Coding::Unknown) if element.eq_ignore_ascii_case(b"chunked") => Coding::UnknownThenChunked,
                _ if is_coding(element) => Coding::Unknown,
                _ => return Err(Refusal::TransferEncoding),
            });
        }
        Ok(())
    }

    /// Decides, or refuses.
    pub(super) fn body_kind(&self, version: Version, limits: &HttpLimits) -> Result<BodyKind, Refusal> {
        match (self.coding, self.content_length) {
            (None, None | Some(0)) => Ok(BodyKind::None),
            (None, Some(length)) if length > limits.body_bytes_max => Err(Refusal::BodyTooLong),
            (None, Some(length)) => Ok(BodyKind::Length(length)),
            (Some(_), Some(_)) => Err(Refusal::LengthAndEncoding),
            (Some(_), None) if version == Version::Http10 => Err(Refusal::EncodingInOldVersion),
            (Some(Coding::Chunked), None) => Ok(BodyKind::Chunked),
            (Some(Coding::UnknownThenChunked), None) => Err(Refusal::UnknownCoding),
            // The end cannot be found: 400 is a MUST, which beats the SHOULD of 501. RFC 9112 section 6.3.
            (Some(Coding::Unknown), None) => Err(Refusal::TransferEncoding),
        }
    }
}

/// `gzip` or `name;parameter=value`, without `chunked` in disguise: it has no parameters (RFC 9112
/// section 7.1), and a proxy might compare the name only.
fn is_coding(element: &[u8]) -> bool {
    let end = element.iter().position(|&byte| !is_token_byte(byte)).unwrap_or(element.len());
    let (name, parameters) = element.split_at(end);
    !name.is_empty() && !name.eq_ignore_ascii_case(b"chunked") && (parameters.is_empty() || parameters.trim_ascii_start().starts_with(b";"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coding(lines: &[&str]) -> Result<BodyKind, Refusal> {
        let mut framing = FramingHeaders::default();
        for line in lines {
            framing.transfer_encoding(line.as_bytes())?;
        }
        framing.body_kind(Version::Http11, &HttpLimits::default())
    }

    #[test]
    fn only_a_single_final_chunked_is_a_body() {
        assert_eq!(coding(&["chunked"]), Ok(BodyKind::Chunked));
        assert_eq!(coding(&["ChunKed"]), Ok(BodyKind::Chunked));
        for unknown in [&["gzip, chunked"][..], &["gzip", "chunked"], &["gzip;q=1,chunked"]] {
            assert_eq!(coding(unknown), Err(Refusal::UnknownCoding), "{unknown:?}");
        }
        for malformed in [
            &[""][..],
            &["gzip"],
            &["identity"],
            &["xchunked"],
            &["chunked, chunked"],
            &["chunked", "chunked"],
            &["chunked, gzip"],
            &["chunked,"],
            &[", chunked"],
            &["chunked;a=b"],
            &["chunked;a=b, chunked"],
            &["\"chunked\""],
            &["chunked\x0b"],
            &["chunked chunked"],
            &["gzip chunked"],
            &["gzip", ""],
        ] {
            assert_eq!(coding(malformed), Err(Refusal::TransferEncoding), "{malformed:?}");
        }
    }
}
