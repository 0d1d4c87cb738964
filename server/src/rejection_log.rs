//! The line of the log for each response that the server gives instead of the service: its status, the reason, the peer, and the path.
//!
//! Nothing of it is done for a request that the service answers. Read next: `logging.rs`, which leaves out repetitions.

use std::fmt;

use log::{Level, Record, log_enabled};
use reactor::Context;

use crate::http::Response;

/// Bytes of a path that the log shows.
const PATH_BYTES_MAX: usize = 64;

/// What is known of the target of a rejected request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Requested<'a> {
    /// The target itself.
    Target(&'a str),
    /// The beginning of the head, valid or not.
    Head(&'a [u8]),
    /// Nothing any more: the head was taken from the input, and a copy of it would cost every request.
    Unknown,
}

/// Logs a response that the server gives instead of the service. At level `warn` the log writes a line a second for each reason, with the number of
/// those that it left out (`logging.rs`). Where `debug` is asked for, each rejection is a line.
///
/// The address is asked for, and the target escaped, only for a line that is written. Test: `each_reason_of_a_rejection_is_a_line_a_second_and_the_others_are_counted`.
#[cold]
pub(crate) fn log_rejection(response: &Response, requested: Requested<'_>, cx: &Context<'_>) {
    let level = if log_enabled!(Level::Debug) { Level::Debug } else { Level::Warn };
    let reason = std::str::from_utf8(response.body_bytes()).unwrap_or_default().trim_end();
    log::logger().log(
        &Record::builder()
            .level(level)
            .target(module_path!())
            // The log tells repetitions apart by the place in the code, and here the reason is the place.
            .file(Some(reason))
            .args(format_args!("rejected status={} reason={reason:?} peer={} target={requested}", response.status_code(), Peer(cx)))
            .build(),
    );
}

/// The address of the peer; `-` once the connection has failed.
struct Peer<'a, 'b>(&'a Context<'b>);

impl fmt::Display for Peer<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.peer_addr() {
            Ok(address) => address.fmt(f),
            Err(_) => f.write_str("-"),
        }
    }
}

/// The path in quotes: its first [`PATH_BYTES_MAX`] bytes, with all but printable ASCII escaped. Without the query, which may be a secret.
impl fmt::Display for Requested<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = match self {
            Requested::Target(target) => Some(target.as_bytes()),
            Requested::Head(head) => second_word(head),
            Requested::Unknown => None,
        };
        let Some(target) = target else { return f.write_str("-") };
        let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
        let shown = &path[..path.len().min(PATH_BYTES_MAX)];
        let cut = if shown.len() < path.len() { "…" } else { "" };
        write!(f, "\"{}{cut}\"", shown.escape_ascii())
    }
}

/// What follows the first space of the request line: the target, if the line is one.
fn second_word(head: &[u8]) -> Option<&[u8]> {
    let is_line_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let line = head.split(is_line_end).find(|line| !line.is_empty())?;
    line.split(|byte| *byte == b' ').nth(1).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_shown_without_its_query_escaped_and_cut() {
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(100));
        let cut = format!("\"/{}…\"", "a".repeat(PATH_BYTES_MAX - 1));
        for (head, shown) in [
            (&b"GET /a/b HTTP/1.1\r\nHost: a\r\n"[..], "\"/a/b\""),
            (b"\r\nGET /a HTTP/1.1\r\n", "\"/a\""),
            (b"GET /a?token=secret HTTP/1.1\n", "\"/a\""),
            (b"GET /unfinis", "\"/unfinis\""),
            (b"GET /\"\\\x1b\xc3\xa4\x00 HTTP/1.1\r\n", r#""/\"\\\x1b\xc3\xa4\x00""#),
            (long.as_bytes(), &cut),
            // A TLS client at a port without TLS.
            (b"\x16\x03\x01\x02\x00", "-"),
            (b"GET", "-"),
            (b"GET  HTTP/1.1", "-"),
            (b"\r\n", "-"),
            (b"", "-"),
        ] {
            assert_eq!(Requested::Head(head).to_string(), shown, "{}", head.escape_ascii());
        }
        assert_eq!(Requested::Target("/a?b").to_string(), "\"/a\"");
        assert_eq!(Requested::Unknown.to_string(), "-");
    }
}
