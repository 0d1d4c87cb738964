//! Percent-decoding of a path, refusing what must never reach a file name.
//!
//! Read next: `target.rs`, which checks the bytes before they get here.

use std::borrow::Cow;

/// The text has a broken escape, decodes to NUL, or is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPercent;

impl std::fmt::Display for InvalidPercent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken percent-encoding")
    }
}

impl std::error::Error for InvalidPercent {}

/// Decodes `%XX` once (RFC 3986 section 2.1); borrows when there is none. `+` stays `+`: this is for paths.
///
/// Decode first and look for `..` afterwards: `%2e%2e` is `..` too.
///
/// # Errors
/// [`InvalidPercent`] for a `%` without two hex digits, for `%00`, and for bytes that are not UTF-8.
pub fn percent_decode(text: &str) -> Result<Cow<'_, str>, InvalidPercent> {
    if text.contains('\0') {
        return Err(InvalidPercent);
    }
    let Some(first) = text.find('%') else {
        return Ok(Cow::Borrowed(text));
    };
    let mut decoded = Vec::with_capacity(text.len());
    decoded.extend_from_slice(&text.as_bytes()[..first]);
    let mut rest = &text.as_bytes()[first..];
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            decoded.push(byte);
            rest = after;
            continue;
        }
        let [high, low, ..] = *after else {
            return Err(InvalidPercent);
        };
        match (hex_digit(high), hex_digit(low)) {
            (Some(0), Some(0)) | (None, _) | (_, None) => return Err(InvalidPercent),
            (Some(high), Some(low)) => decoded.push(high << 4 | low),
        }
        rest = &after[2..];
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| InvalidPercent)
}

/// The value of one hexadecimal digit.
pub(super) const fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_once_and_broken_ones_refused() {
        for (text, decoded) in [
            ("/a", Ok("/a")),
            ("", Ok("")),
            ("/a%20b", Ok("/a b")),
            ("/%2e%2E/x", Ok("/../x")),
            ("%2525", Ok("%25")),
            ("/%c3%A4", Ok("/ä")),
            ("+", Ok("+")),
            ("%00", Err(InvalidPercent)),
            ("a\0", Err(InvalidPercent)),
            ("%", Err(InvalidPercent)),
            ("%4", Err(InvalidPercent)),
            ("%g0", Err(InvalidPercent)),
            ("%0g", Err(InvalidPercent)),
            ("%+1", Err(InvalidPercent)),
            ("%ff", Err(InvalidPercent)),
        ] {
            assert_eq!(percent_decode(text).as_deref().map_err(|e| *e), decoded, "{text:?}");
        }
    }
}
