//! The demonstration: routes that a client can make burn CPU, block workers, panic or ask the name server, and the deliberate mistakes. One file a route.
//!
//! Behind the features `demo` and `mistakes`, which are on by default. What `docs/deploy.md` installs has neither
//! (`--no-default-features`; test: `what_is_installed_has_no_demonstration_routes`). Read in this order: `sleep.rs`, `spin.rs`, `block.rs`, `panic.rs`,
//! `digest.rs`, `resolve.rs`, `bytes.rs`, `echo.rs`, then `mistakes.rs`.

mod block;
mod bytes;
mod digest;
mod echo;
#[cfg(feature = "mistakes")]
pub mod mistakes;
mod panic;
mod resolve;
mod sleep;
mod spin;

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::answer::Answer;
use crate::http::{Request, Response};
use crate::routes::{GET, POST, Route, Routes};

/// The demonstration routes.
pub const ROUTES: &[Route] = &[
    ("/spin", GET, spin::call),
    ("/sleep", GET, sleep::call),
    ("/bytes", GET, bytes::call),
    ("/echo", POST, echo::call),
    ("/digest", POST, digest::call),
    ("/resolve", GET, resolve::call),
    ("/block", GET, block::call),
    ("/panic", GET, panic::call),
];

/// All routes: those of the installed program and the demonstration's. With the files beneath `files_root`, if one is given.
#[must_use]
pub fn routes(files_root: Option<PathBuf>) -> Routes {
    Routes::new(files_root).with(ROUTES)
}

/// The program of the demonstration: all routes, on what the command line says. See [`crate::run::program`].
pub fn cli(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    crate::run::program(args, |config| {
        let files_root = config.files_root.clone();
        move || routes(files_root.clone())
    })
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
