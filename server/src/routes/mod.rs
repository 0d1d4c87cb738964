//! The demonstration service: one file a route. Copy one to start your own, and delete the rest.
//!
//! A service sees a request and gives an answer; it never sees a socket. Read in this order: `root.rs`, `sleep.rs`, `spin.rs`,
//! `block.rs`, `panic.rs`, `digest.rs`, `resolve.rs`, `bytes.rs`, `echo.rs`, `files.rs`.

mod block;
mod bytes;
mod digest;
mod echo;
mod files;
mod healthz;
mod panic;
mod resolve;
mod root;
mod sleep;
mod spin;

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use crate::answer::Answer;
use crate::http::{Method, Request, Response};
use crate::service::Service;

/// All demonstration routes. By default without files.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    files_root: Option<Arc<Path>>,
}

impl Routes {
    /// With the files beneath this directory at `/files/`, if one is given.
    #[must_use]
    pub fn new(files_root: Option<PathBuf>) -> Routes {
        Routes { files_root: files_root.map(Arc::from) }
    }
}

/// The program of the demonstration: all routes, on what the command line says. See [`crate::run::program`].
pub fn cli(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    crate::run::program(args, |config| {
        let files_root = config.files_root.clone();
        move || Routes::new(files_root.clone())
    })
}

/// A route: the methods it takes, and what it answers.
type Route = (&'static str, &'static [Method], fn(&Request<'_>, Instant) -> Answer);

/// HEAD is answered as GET, without the body (RFC 9110 section 9.3.2): the encoder sees to that.
const GET: &[Method] = &[Method::Get, Method::Head];
const POST: &[Method] = &[Method::Post];

/// In the order of use: a handful of comparisons costs less than a hash.
const ROUTES: &[Route] = &[
    ("/", GET, root::call),
    ("/healthz", GET, healthz::call),
    ("/spin", GET, spin::call),
    ("/sleep", GET, sleep::call),
    ("/bytes", GET, bytes::call),
    ("/echo", POST, echo::call),
    ("/digest", POST, digest::call),
    ("/resolve", GET, resolve::call),
    ("/block", GET, block::call),
    ("/panic", GET, panic::call),
];

/// The one route that is a prefix.
const FILES: &str = "/files/";

impl Service for Routes {
    #[inline]
    fn call(&mut self, request: &Request<'_>, now: Instant) -> Answer {
        match ROUTES.iter().find(|(path, ..)| *path == request.path) {
            Some((_, methods, call)) if methods.contains(&request.method) => call(request, now),
            Some((_, methods, _)) => not_allowed(request.method, methods),
            None => self.elsewhere(request),
        }
    }
}

impl Routes {
    fn elsewhere(&self, request: &Request<'_>) -> Answer {
        match request.path.strip_prefix(FILES) {
            Some(path) if GET.contains(&request.method) => files::call(self.files_root.as_ref(), path),
            Some(_) => not_allowed(request.method, GET),
            None if request.path == "*" || request.method == Method::Other => Answer::not_allowed(request.method, ALL),
            None => Response::not_found().into(),
        }
    }
}

const ALL: &str = "GET, HEAD, POST, OPTIONS";

#[cold]
fn not_allowed(method: Method, allowed: &'static [Method]) -> Answer {
    Answer::not_allowed(method, if allowed == POST { "POST, OPTIONS" } else { "GET, HEAD, OPTIONS" })
}

/// A number from the query: `?name=7`. A missing or wrong one is the client's mistake, and the answer says what is allowed.
fn number(request: &Request<'_>, name: &'static str, allowed: RangeInclusive<u64>) -> Result<u64, Box<Answer>> {
    let value = request.query_value(name).unwrap_or_default();
    // By digits: `parse` alone would take a sign.
    match value.parse::<u64>() {
        Ok(number) if allowed.contains(&number) && value.bytes().all(|byte| byte.is_ascii_digit()) => Ok(number),
        _ => {
            let needed = format!("?{name}=N with N from {} to {} is needed\n", allowed.start(), allowed.end());
            Err(Box::new(Answer::Now(Response::text(needed).status(400))))
        }
    }
}
