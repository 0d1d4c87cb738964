//! Every reason for which the machine refuses a request, with its status, its label and its source.
//!
//! Read next: `head.rs` and `chunked.rs`, which decide on them.

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $status:literal $label:literal,)*) => {
        /// Why the machine refuses a request. The connection closes after the answer: what follows in
        /// the stream cannot be separated from the request that was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Refusal { $($(#[$doc])* $name,)* }

        impl Refusal {
            /// All of them in order of [`Refusal::index`], for a table of counters.
            pub const ALL: [Self; [$(Self::$name),*].len()] = [$(Self::$name),*];

            /// The status code to answer with.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// A short name for metrics and logs: fixed text, nothing of the peer's.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

refusals! {
    /// LF without CR before it in head or trailers. RFC 9112 section 2.2 lets us accept it; a proxy in
    /// front that does not would see another message.
    BareLf = 400 "bare_lf",
    /// CR without LF after it. RFC 9112 section 2.2.
    BareCr = 400 "bare_cr",
    /// NUL or another control byte. RFC 9110 section 5.5.
    ControlByte = 400 "control_byte",
    /// More empty lines before the request line than `leading_newlines_max`. RFC 9112 section 2.2.
    LeadingNewlines = 400 "leading_newlines",
    /// The request line does not follow the grammar. RFC 9112 section 3.
    RequestLine = 400 "request_line",
    /// A version that is not `HTTP/` digit `.` digit. RFC 9112 section 2.3.
    VersionSyntax = 400 "version_syntax",
    /// A field name that is not a token, has a space before its colon, is folded or lacks the colon.
    /// RFC 9112 sections 5.1 and 5.2.
    HeaderName = 400 "header_name",
    /// A field value with a byte that may not be there. RFC 9110 section 5.5.
    HeaderValue = 400 "header_value",
    /// A target in none of the forms, or with a byte outside 0x21 to 0x7e, or with `#`. RFC 9112 section 3.2.
    Target = 400 "target",
    /// HTTP/1.1 without Host. RFC 9112 section 3.2.
    HostMissing = 400 "host_missing",
    /// More than one Host line. RFC 9112 section 3.2.
    HostRepeated = 400 "host_repeated",
    /// Host is not a host with an optional port, or is empty. RFC 9112 section 3.2, RFC 9110 section 4.2.1.
    HostInvalid = 400 "host_invalid",
    /// Content-Length is not digits only (a sign, a list, a space, nothing), or more than 64 bits can hold.
    /// RFC 9110 section 8.6.
    ContentLength = 400 "content_length",
    /// More than one Content-Length line, even with equal values. RFC 9112 section 6.3 point 5.
    ContentLengthRepeated = 400 "content_length_repeated",
    /// Content-Length next to Transfer-Encoding: the mark of request smuggling. RFC 9112 section 6.1.
    LengthAndEncoding = 400 "length_and_encoding",
    /// Transfer-Encoding in HTTP/1.0: faulty framing by definition. RFC 9112 section 6.1.
    EncodingInOldVersion = 400 "encoding_in_1_0",
    /// Transfer-Encoding malformed, or `chunked` repeated, or not last. RFC 9112 sections 6.1 and 6.3 point 4.
    TransferEncoding = 400 "transfer_encoding",
    /// A chunk-size line that breaks the grammar. RFC 9112 section 7.1.
    ChunkSize = 400 "chunk_size",
    /// A chunk extension that breaks the grammar. RFC 9112 section 7.1.1.
    ChunkExtension = 400 "chunk_extension",
    /// More than `chunk_extension_bytes_max` of extensions. RFC 9112 section 7.1.1.
    ChunkExtensionTooLong = 400 "chunk_extension_too_long",
    /// Chunk data is not followed by CRLF. RFC 9112 section 7.1.
    ChunkEnd = 400 "chunk_end",
    /// A trailer line that breaks the grammar. RFC 9112 section 7.1.2.
    Trailer = 400 "trailer",
    /// The body is announced as, or grows, longer than `body_bytes_max`. RFC 9110 section 15.5.14.
    BodyTooLong = 413 "body_too_long",
    /// The target is longer than `target_bytes_max`. RFC 9110 section 15.5.15.
    TargetTooLong = 414 "target_too_long",
    /// An expectation other than `100-continue`. RFC 9110 section 10.1.1.
    Expectation = 417 "expectation",
    /// The head is longer than `head_bytes_max`. RFC 6585 section 5.
    HeadTooLong = 431 "head_too_long",
    /// More header lines than `headers_max`. RFC 6585 section 5.
    TooManyHeaders = 431 "too_many_headers",
    /// The trailer section is longer than `trailer_bytes_max`. RFC 6585 section 5.
    TrailersTooLong = 431 "trailers_too_long",
    /// The method is longer than any that exists. RFC 9112 section 3.
    MethodTooLong = 501 "method_too_long",
    /// CONNECT: an origin server is not a tunnel. RFC 9110 section 9.3.6.
    Connect = 501 "connect",
    /// A transfer coding other than `chunked` before it. RFC 9112 section 6.1.
    UnknownCoding = 501 "unknown_coding",
    /// A well-formed version whose major number is not 1. RFC 9110 section 15.6.6.
    Version = 505 "version",
}

impl Refusal {
    /// Its place in [`Refusal::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}
