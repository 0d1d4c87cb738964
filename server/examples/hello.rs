//! A service in under forty lines: two routes, one of them on the worker pool, and everything else a server needs around them.
//!
//! `cargo run --release -p server --example hello -- --listen 127.0.0.1:8000`, then `curl 'http://127.0.0.1:8000/primes?below=1000'`.
//! `--help` shows every limit, the admin port has the metrics, SIGTERM drains. How to go on from here: `docs/fork.md`.

use std::process::ExitCode;
use std::time::Instant;

use server::answer::Answer;
use server::http::{Method, Request, Response};
use server::service::Service;

struct Hello;

impl Service for Hello {
    fn call(&mut self, request: &Request<'_>, _now: Instant) -> Answer {
        match (request.method, request.path) {
            (Method::Get | Method::Head, "/hello") => Response::text("Hello, World!").into(),
            (Method::Get | Method::Head, "/primes") => match request.query_value("below").map(str::parse) {
                // Up to a second of CPU: not for the loop, where everybody would wait for it.
                Some(Ok(below @ 0..=100_000_u32)) => Answer::job(move |_| Response::text(format!("{}\n", primes(below)))),
                _ => Response::text("?below=N with N up to 100000 is needed\n").status(400).into(),
            },
            (_, "/hello" | "/primes") => Answer::not_allowed(request.method, "GET, HEAD, OPTIONS"),
            _ => Response::not_found().into(),
        }
    }
}

fn primes(below: u32) -> usize {
    (2..below).filter(|n| (2..*n).all(|d| !n.is_multiple_of(d))).count()
}

fn main() -> ExitCode {
    server::run::program(std::env::args_os(), |_config| || Hello)
}
