//! A response: status, a few headers, and a body that is the response's own, shared, or part of the program.
//!
//! Read next: `encode.rs`, which makes bytes of it.

use super::chunked::{is_text_byte, is_token_byte};
use std::borrow::Cow;
use std::sync::Arc;

/// A whole response. Without extra headers and with a fixed body it allocates nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub(super) status: u16,
    pub(super) content_type: Option<&'static str>,
    pub(super) headers: Vec<(&'static str, Cow<'static, str>)>,
    pub(super) body: ResponseBody,
    pub(super) close: bool,
}

/// The bytes of a response body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseBody {
    /// Part of the program.
    Static(&'static [u8]),
    /// This response's own.
    Owned(Vec<u8>),
    /// A value that many responses share. It lives until the last of them is sent, and with it what it carries next to the bytes, such as a
    /// [`crate::ledger::Charge`].
    Shared(SharedValue),
}

/// Any shared value that has bytes.
#[derive(Clone)]
pub struct SharedValue(Arc<dyn AsRef<[u8]> + Send + Sync>);

impl std::fmt::Debug for SharedValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedValue({} bytes)", (*self.0).as_ref().len())
    }
}

impl PartialEq for SharedValue {
    fn eq(&self, other: &SharedValue) -> bool {
        (*self.0).as_ref() == (*other.0).as_ref()
    }
}

impl Eq for SharedValue {}

impl ResponseBody {
    /// The bytes themselves.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Static(bytes) => bytes,
            Self::Owned(bytes) => bytes,
            Self::Shared(value) => (*value.0).as_ref(),
        }
    }

    /// Bytes of memory that this response holds alone.
    #[must_use]
    pub fn owned_bytes(&self) -> usize {
        match self {
            Self::Owned(bytes) => bytes.capacity(),
            Self::Static(_) | Self::Shared(_) => 0,
        }
    }
}

impl From<&'static str> for ResponseBody {
    fn from(text: &'static str) -> Self {
        Self::Static(text.as_bytes())
    }
}

impl From<&'static [u8]> for ResponseBody {
    fn from(bytes: &'static [u8]) -> Self {
        Self::Static(bytes)
    }
}

impl From<String> for ResponseBody {
    fn from(text: String) -> Self {
        Self::Owned(text.into_bytes())
    }
}

impl From<Vec<u8>> for ResponseBody {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Owned(bytes)
    }
}

impl From<Arc<[u8]>> for ResponseBody {
    fn from(bytes: Arc<[u8]>) -> Self {
        // One more box: a slice is not a sized value.
        Self::Shared(SharedValue(Arc::new(bytes)))
    }
}

impl<T: AsRef<[u8]> + Send + Sync + 'static> From<Arc<T>> for ResponseBody {
    fn from(value: Arc<T>) -> Self {
        Self::Shared(SharedValue(value))
    }
}

/// A header value with CR, LF, NUL or another control byte in it.
///
/// In a response, it would end its line early, and a client that chose the value could add headers of its own (response splitting,
/// CWE-113).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidHeader;

impl std::fmt::Display for InvalidHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("control byte in a header value")
    }
}

impl std::error::Error for InvalidHeader {}

impl Response {
    /// A response with this status, no content type and no body.
    ///
    /// # Panics
    /// If `status` is not a final one, 200 to 599.
    #[must_use]
    #[inline]
    pub fn empty(status: u16) -> Self {
        assert!((200..=599).contains(&status), "not a final status: {status}");
        Self { status, content_type: None, headers: Vec::new(), body: ResponseBody::Static(b""), close: false }
    }

    /// 200 with text, as `text/plain`.
    #[must_use]
    #[inline]
    pub fn text(body: impl Into<ResponseBody>) -> Self {
        Self { content_type: Some("text/plain"), ..Self::empty(200) }.body(body)
    }

    /// 200 with bytes, as `application/octet-stream`.
    #[must_use]
    pub fn bytes(body: impl Into<ResponseBody>) -> Self {
        Self { content_type: Some("application/octet-stream"), ..Self::empty(200) }.body(body)
    }

    /// 404, with a line that says so.
    #[must_use]
    pub fn not_found() -> Self {
        Self::text("not found\n").status(404)
    }

    /// 503 with Retry-After, for a request that the server has no memory for now.
    #[must_use]
    pub fn out_of_memory() -> Self {
        Self::text("out of memory\n").status(503).with_header("Retry-After", "1")
    }

    /// Bytes of memory that its body holds and no other response shares.
    #[must_use]
    pub fn owned_bytes(&self) -> usize {
        self.body.owned_bytes()
    }

    /// Changes the status.
    ///
    /// # Panics
    /// If it is not a final one, 200 to 599.
    #[must_use]
    #[inline]
    pub fn status(mut self, status: u16) -> Self {
        assert!((200..=599).contains(&status), "not a final status: {status}");
        self.status = status;
        self
    }

    /// Changes the body.
    #[must_use]
    #[inline]
    pub fn body(mut self, body: impl Into<ResponseBody>) -> Self {
        self.body = body.into();
        self
    }

    /// Changes the content type.
    ///
    /// # Panics
    /// If it has a control byte.
    #[must_use]
    pub fn content_type(mut self, content_type: &'static str) -> Self {
        assert!(is_value(content_type), "control byte in a content type");
        self.content_type = Some(content_type);
        self
    }

    /// Adds a header whose value may come from outside.
    ///
    /// # Errors
    /// [`InvalidHeader`] when the value has a control byte.
    ///
    /// # Panics
    /// If the name is not a token, or is one that the encoder writes itself: Connection, Content-Length,
    /// Content-Type, Date, Transfer-Encoding.
    pub fn header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Result<Self, InvalidHeader> {
        let is_token = !name.is_empty() && name.bytes().all(is_token_byte);
        assert!(is_token, "not a header name: {name}");
        let is_ours = OURS.iter().any(|ours| ours.eq_ignore_ascii_case(name));
        assert!(!is_ours, "written by the encoder: {name}");
        let value = value.into();
        if !is_value(&value) {
            return Err(InvalidHeader);
        }
        self.headers.push((name, value));
        Ok(self)
    }

    /// Adds a header that is part of the program.
    ///
    /// # Panics
    /// As [`Response::header`], and if the value has a control byte.
    #[must_use]
    pub fn with_header(self, name: &'static str, value: &'static str) -> Self {
        self.header(name, value).expect("a fixed header value without control bytes")
    }

    /// Says `Connection: close` and means it: the connection closes after this response.
    #[must_use]
    pub fn close(mut self) -> Self {
        self.close = true;
        self
    }

    /// Whether the connection must close after it: tell the machine before asking for its plan.
    #[must_use]
    #[inline]
    pub fn closes(&self) -> bool {
        self.close
    }

    /// The status code.
    #[must_use]
    #[inline]
    pub fn status_code(&self) -> u16 {
        self.status
    }

    /// The body, before HEAD and the bodiless statuses are looked at: see [`Response::body_to_send`].
    #[must_use]
    pub fn body_bytes(&self) -> &[u8] {
        self.body.bytes()
    }

    /// Turns it into the head of a streamed response; its own body is dropped.
    ///
    /// `length_bytes`: the exact length if it is known; else the body goes in chunks.
    #[must_use]
    pub fn into_stream(self, length_bytes: Option<u64>) -> StreamHead {
        StreamHead { response: self.body(""), length_bytes }
    }
}

/// The head of a response whose body comes later, in pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamHead {
    pub(super) response: Response,
    pub(super) length_bytes: Option<u64>,
}

impl StreamHead {
    /// The status code.
    #[must_use]
    pub fn status_code(&self) -> u16 {
        self.response.status
    }

    /// Whether the connection must close after it: tell the machine before asking for its plan.
    #[must_use]
    pub fn closes(&self) -> bool {
        self.response.close
    }

    /// The announced length, if it is known.
    #[must_use]
    pub fn length_bytes(&self) -> Option<u64> {
        self.length_bytes
    }
}

/// What the encoder writes itself; a second one from a service would contradict it.
const OURS: [&str; 5] = ["Connection", "Content-Length", "Content-Type", "Date", "Transfer-Encoding"];

fn is_value(value: &str) -> bool {
    value.bytes().all(is_text_byte)
}
