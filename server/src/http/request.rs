//! A request head as the service sees it: borrowed from the input, nothing copied, headers read lazily.
//!
//! Read next: `head.rs`, which makes it.

use std::borrow::Cow;

use super::percent::{InvalidPercent, percent_decode};

/// The methods of RFC 9110 section 9.3, and PATCH (RFC 5789). Names are case-sensitive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// GET
    Get,
    /// HEAD: answered as GET, without the body.
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// DELETE
    Delete,
    /// CONNECT: refused before a service sees it.
    Connect,
    /// OPTIONS: the only one that may have the target `*`.
    Options,
    /// TRACE
    Trace,
    /// PATCH
    Patch,
    /// Any other token; [`Request::method_text`] has its name. A router answers 501.
    Other,
}

impl Method {
    #[inline]
    pub(super) fn from_token(token: &[u8]) -> Self {
        match token {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"CONNECT" => Self::Connect,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }
}

/// The protocol version of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0: no chunks, and the connection closes unless both sides say `keep-alive`.
    Http10,
    /// HTTP/1.1, and any later minor version, which is read as the highest that we know (RFC 9110 section 2.5).
    Http11,
}

/// How the body of a request is delimited. RFC 9112 section 6.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// No body, or one of length zero: no [`super::Step::Body`] follows.
    None,
    /// This many bytes, at least one.
    Length(u64),
    /// Chunks until the last one.
    Chunked,
}

/// One request head. Copying it is cheap; the text belongs to the input buffer.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: Method,
    /// The version.
    pub version: Version,
    /// How the body is delimited.
    pub body: BodyKind,
    /// Whether the peer wants the connection to persist. RFC 9112 section 9.3.
    pub keep_alive: bool,
    /// Whether the peer waits for `100 Continue` before it sends the body. RFC 9110 section 10.1.1.
    pub expect_continue: bool,
    /// The target as it was sent, all bytes within 0x21 to 0x7e and none of them `#`.
    pub target: &'a str,
    /// The path, percent-encoded as sent: begins with `/`, or is `*`.
    pub path: &'a str,
    /// What follows the `?`, without it.
    pub query: Option<&'a str>,
    /// The method's own text.
    pub method_text: &'a str,
    /// The header section: all lines after the request line, with the blank line.
    pub head: &'a [u8],
    /// Checked, so it is ASCII. [`Request::host`] converts it to text.
    pub(super) host: &'a [u8],
}

impl<'a> Request<'a> {
    /// The authority of an absolute target, else Host; empty only in HTTP/1.0, which need not have one.
    #[must_use]
    pub fn host(&self) -> &'a str {
        std::str::from_utf8(self.host).unwrap_or_default()
    }

    /// The header lines in order, repeated ones repeated.
    #[must_use]
    pub fn headers(&self) -> Headers<'a> {
        Headers { rest: self.head }
    }

    /// The value of the first header of this name, in any case. O(length of the head).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// As [`Request::header`], when the value is UTF-8.
    #[must_use]
    pub fn header_text(&self, name: &str) -> Option<&'a str> {
        self.header(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The value of `name` in a query of the form `a=1&b=2`, as sent: percent-encoding is left alone.
    ///
    /// The first one counts. A name without `=` has the empty value.
    #[must_use]
    pub fn query_value(&self, name: &str) -> Option<&'a str> {
        self.query?.split('&').find_map(|pair| {
            let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
            (found == name).then_some(value)
        })
    }

    /// As [`Request::query_value`], decoded as a form would have encoded it: `+` is a space, `%XX` a byte (WHATWG URL, section 5.1).
    ///
    /// # Errors
    /// [`InvalidPercent`] for a broken escape, NUL, or bytes that are not UTF-8: the client's error, so 400.
    pub fn query_text(&self, name: &str) -> Result<Option<Cow<'a, str>>, InvalidPercent> {
        match self.query_value(name) {
            None => Ok(None),
            Some(value) if value.contains('+') => percent_decode(&value.replace('+', " ")).map(|text| Some(Cow::Owned(text.into_owned()))),
            Some(value) => percent_decode(value).map(Some),
        }
    }
}

/// Iterates over the header lines of a head that was found valid: (name, value without outer space).
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        // Every CR of a valid head is one half of a line end.
        let end = self.rest.iter().position(|&byte| byte == b'\r')?;
        let (line, after) = self.rest.split_at(end);
        self.rest = after.get(2..)?;
        let colon = line.iter().position(|&byte| byte == b':')?;
        let name = std::str::from_utf8(&line[..colon]).ok()?;
        Some((name, line[colon + 1..].trim_ascii()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{HttpLimits, Machine, Step};
    use super::*;

    fn with_request(head: &str, check: impl Fn(&Request<'_>)) {
        let (_, step) = Machine::new().step(&HttpLimits::default(), head.as_bytes());
        let Step::Request(request) = step else {
            panic!("{step:?}");
        };
        check(&request);
    }

    #[test]
    fn query_values_are_found_by_their_whole_name() {
        let head = "GET /p?msx=1&ms=20&ms=3&flag&empty=&a=b=c HTTP/1.1\r\nHost: a\r\n\r\n";
        with_request(head, |request| {
            for (name, value) in [
                ("ms", Some("20")),
                ("msx", Some("1")),
                ("m", None),
                ("flag", Some("")),
                ("empty", Some("")),
                ("a", Some("b=c")),
                ("b", None),
            ] {
                assert_eq!(request.query_value(name), value, "{name}");
            }
        });
        with_request("GET /ms=1 HTTP/1.1\r\nHost: a\r\n\r\n", |request| {
            assert_eq!(request.query_value("ms"), None);
        });
    }

    #[test]
    fn query_texts_are_decoded_as_a_form_encodes_them() {
        let head = "GET /p?q=a+b%2Bc%20d&plain=ab&bad=%zz&empty= HTTP/1.1\r\nHost: a\r\n\r\n";
        with_request(head, |request| {
            for (name, text) in [
                ("q", Ok(Some("a b+c d"))),
                ("plain", Ok(Some("ab"))),
                ("empty", Ok(Some(""))),
                ("none", Ok(None)),
                ("bad", Err(InvalidPercent)),
            ] {
                assert_eq!(request.query_text(name).as_ref().map(Option::as_deref).map_err(|e| *e), text, "{name}");
            }
        });
    }

    #[test]
    fn headers_are_found_in_any_case_and_the_first_one_counts() {
        let head = "GET / HTTP/1.1\r\nhost: a\r\nX-One: 1\r\nx-one: 2\r\nEmpty:\r\nBad: \u{e4}\r\n\r\n";
        with_request(head, |request| {
            assert_eq!(request.header("x-ONE"), Some(&b"1"[..]));
            assert_eq!(request.header_text("X-One"), Some("1"));
            assert_eq!(request.header("Empty"), Some(&b""[..]));
            assert_eq!(request.header("X-On"), None);
            assert_eq!(request.headers().count(), 5);
            assert_eq!(request.host(), "a");
        });
    }
}
