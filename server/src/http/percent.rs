//! Percent-decoding of a path, refusing what must never reach a file name.
//!
//! Read next: `target.rs`, which checks the bytes before they get here.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

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
    // The library leaves a broken escape as it is. Code that decodes the path again might read it differently, so it is refused.
    let is_escape = |after: &str| matches!(after.as_bytes(), [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit());
    if !text.split('%').skip(1).all(is_escape) {
        return Err(InvalidPercent);
    }
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| InvalidPercent)?;
    if decoded.contains('\0') { Err(InvalidPercent) } else { Ok(decoded) }
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
            ("%%41", Err(InvalidPercent)),
            ("%4ä", Err(InvalidPercent)),
            ("ä%41", Ok("äA")),
            ("%ff", Err(InvalidPercent)),
        ] {
            assert_eq!(percent_decode(text).as_deref().map_err(|e| *e), decoded, "{text:?}");
        }
    }
}
