//! The routes of the program that `docs/deploy.md` installs: `/`, `/healthz` and `/files/`, one file each.
//!
//! A service sees a request and gives an answer; it never sees a socket. The demonstration routes, which a client can make burn CPU, block workers or
//! panic, are a feature of their own: `demo/`. Read in this order: `root.rs`, `healthz.rs`, `files.rs`.

mod conditional;
mod files;
mod healthz;
mod root;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use crate::answer::Answer;
use crate::http::{Method, Request, Response};
use crate::service::Service;

/// The routes, and those that are added to them. By default without files.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    files_root: Option<Arc<Path>>,
    more: &'static [Route],
}

impl Routes {
    /// With the files beneath this directory at `/files/`, if one is given.
    #[must_use]
    pub fn new(files_root: Option<PathBuf>) -> Routes {
        Routes { files_root: files_root.map(Arc::from), more: &[] }
    }

    /// With these routes as well. A path that [`Routes`] has itself is not replaced.
    #[must_use]
    pub fn with(self, more: &'static [Route]) -> Routes {
        Routes { more, ..self }
    }
}

/// The program that `docs/deploy.md` installs: these routes and no others, on what the command line says. See [`crate::run::program`].
pub fn cli(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    crate::run::program(args, |config| {
        let files_root = config.files_root.clone();
        move || Routes::new(files_root.clone())
    })
}

/// A route: its path, the methods it takes, and what it answers.
pub type Route = (&'static str, &'static [Method], fn(&Request<'_>, Instant) -> Answer);

/// HEAD is answered as GET, without the body (RFC 9110 section 9.3.2): the encoder sees to that.
pub const GET: &[Method] = &[Method::Get, Method::Head];
/// For routes that take a body.
pub const POST: &[Method] = &[Method::Post];

const ROUTES: &[Route] = &[("/", GET, root::call), ("/healthz", GET, healthz::call)];

/// The one route that is a prefix.
const FILES: &str = "/files/";

impl Service for Routes {
    #[inline]
    fn call(&mut self, request: &Request<'_>, now: Instant) -> Answer {
        // In the order of use: a handful of comparisons costs less than a hash. The other table is in another function: its address is not known
        // when this is compiled, and the calls of these routes are inlined.
        for route in ROUTES {
            if route.0 == request.path {
                return answer(route, request, now);
            }
        }
        self.more(request, now)
    }
}

#[inline]
fn answer((_, methods, call): &Route, request: &Request<'_>, now: Instant) -> Answer {
    if methods.contains(&request.method) { call(request, now) } else { not_allowed(request.method, methods) }
}

impl Routes {
    #[inline(never)]
    fn more(&self, request: &Request<'_>, now: Instant) -> Answer {
        match self.more.iter().find(|(path, ..)| *path == request.path) {
            Some(route) => answer(route, request, now),
            None => self.elsewhere(request),
        }
    }

    fn elsewhere(&self, request: &Request<'_>) -> Answer {
        match request.path.strip_prefix(FILES) {
            Some(path) if GET.contains(&request.method) => files::call(self.files_root.as_ref(), path, request),
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
