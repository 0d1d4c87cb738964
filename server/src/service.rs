//! The one trait that a builder implements: a request comes, an answer goes.
//!
//! Read next: `answer.rs`, for what can be answered; `routes/` and `demo/`, for small examples.

use std::time::Instant;

use crate::answer::Answer;
use crate::http::Request;

/// What the server is for. One value for each loop, on that loop's thread: no lock, no sharing.
///
/// ```
/// use std::time::Instant;
/// use server::answer::Answer;
/// use server::http::{Method, Request, Response};
/// use server::service::Service;
///
/// struct Hello;
///
/// impl Service for Hello {
///     fn call(&mut self, request: &Request<'_>, _now: Instant) -> Answer {
///         match (request.method, request.path) {
///             (Method::Get | Method::Head, "/hello") => Response::text("hello").into(),
///             (_, "/hello") => Answer::not_allowed(request.method, "GET, HEAD, OPTIONS"),
///             _ => Response::not_found().into(),
///         }
///     }
/// }
/// ```
pub trait Service {
    /// Answers one request head. Must not block and must not burn CPU: while it runs, every other connection of the loop waits. What
    /// does either goes into [`Answer::Job`]. `now` is the time of the loop's turn.
    fn call(&mut self, request: &Request<'_>, now: Instant) -> Answer;
}
