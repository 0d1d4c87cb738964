//! HTTP/1.1 and 1.0 without sockets or threads: bytes in, one [`Step`] out; a [`Response`] in, bytes out. The times are the caller's.
//!
//! Read next, in this order: `machine.rs` (the step and its states), `head.rs` (where a head ends, and
//! what it means), `framing.rs` (how long the body is: the part that request smuggling lives on),
//! `chunked.rs` (the chunk decoder), `target.rs` (target and host), then `response.rs` and `encode.rs`
//! for responses. Every reason for a refusal is one line in `refusal.rs`, every limit is in `limits.rs`.

mod byte_search;
mod chunked;
mod date;
mod encode;
mod framing;
mod head;
mod limits;
mod machine;
mod percent;
mod refusal;
mod request;
mod response;
mod scan;
mod target;

pub use date::{DateLine, HttpDate, http_date, parse_http_date};
pub use encode::{CHUNK_END, CHUNK_HEADER_BYTES, CONTINUE, LAST_CHUNK, ResponsePlan, StreamFraming, chunk_header};
pub use limits::{HEADERS_CAPACITY, HttpLimits};
pub use machine::{AtEnd, Machine, Step};
pub use percent::{InvalidPercent, percent_decode};
pub use refusal::Refusal;
pub use request::{BodyKind, Headers, Method, Request, Version};
pub use response::{InvalidHeader, Response, ResponseBody, StreamHead};
