//! The limits on what a peer can make the HTTP machine buffer or do.
//!
//! Read next: `refusal.rs`, the response that each limit leads to.

/// The most header lines that one head can have, whatever [`HttpLimits::headers_max`] says.
///
/// It is the length of an array of 32-byte entries on the stack of the loop: 3.5 KiB, never initialised. Less than a page: the code that
/// enters a larger stack frame touches each of its pages.
pub const HEADERS_CAPACITY: usize = 112;

/// The limits of one listener, shared by reference by all its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Bytes of one head, from the method to the blank line. More: 431 (RFC 6585 section 5).
    ///
    /// A head must fit one leased buffer, since it is parsed in one piece. 16 KiB as Node's
    /// `--max-http-header-size` (doc/api/cli.md); nginx `large_client_header_buffers` allows 4 of 8 KiB.
    pub head_bytes_max: u32,
    /// Header lines of one head, at most [`HEADERS_CAPACITY`]. More: 431.
    ///
    /// 112: Apache's `LimitRequestFields` is 100 and HAProxy's `tune.http.maxhdr` 101, and a proxy in front adds a few of its own. Browsers
    /// send about 20. Test: `a_head_may_have_a_hundred_fields`.
    pub headers_max: usize,
    /// Bytes of the request target. More: 414.
    ///
    /// RFC 9112 section 3 recommends that request lines of 8000 octets be supported: 8 KiB.
    pub target_bytes_max: u32,
    /// Bytes of a method name. More: 501 (RFC 9112 section 3).
    ///
    /// The longest registered one has 17 (`UPDATEREDIRECTREF`, IANA HTTP Method Registry): 32.
    pub method_bytes_max: u32,
    /// Bytes of one request body, after chunks have been decoded. More: 413.
    ///
    /// 1 MiB as nginx `client_max_body_size`. A body is streamed, so this bounds time and not memory.
    pub body_bytes_max: u64,
    /// Bytes of chunk extensions in one body, all chunks together. More: 400.
    ///
    /// Without it, a peer wraps each byte of data in kilobytes of extension (Go, CVE-2023-39326).
    /// 16 KiB as the excess that Go allows (`net/http/internal/chunked.go`).
    pub chunk_extension_bytes_max: u32,
    /// Bytes of the trailer section of one body. More: 431.
    ///
    /// Trailers are checked and dropped, byte by byte, so this bounds work only. 4 KiB: a few digests.
    pub trailer_bytes_max: u32,
    /// Empty lines ignored before one request line. More: 400.
    ///
    /// RFC 9112 section 2.2 asks for at least one, since old clients send one after a POST.
    pub leading_newlines_max: u8,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            head_bytes_max: 16 * 1024,
            headers_max: HEADERS_CAPACITY,
            target_bytes_max: 8 * 1024,
            method_bytes_max: 32,
            body_bytes_max: 1024 * 1024,
            chunk_extension_bytes_max: 16 * 1024,
            trailer_bytes_max: 4 * 1024,
            leading_newlines_max: 1,
        }
    }
}

impl HttpLimits {
    /// The longest request line without its CRLF: method, space, target, space, `HTTP/1.1`.
    pub(super) fn request_line_bytes_max(&self) -> usize {
        self.method_bytes_max as usize + 1 + self.target_bytes_max as usize + 1 + 8
    }
}
