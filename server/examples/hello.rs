//! The smallest service on the skeleton: one loop, one pool, one route, and none of the demonstrations.
//!
//! `cargo run --release -p server --example hello -- 127.0.0.1:8000`, then `curl http://127.0.0.1:8000/hello`.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reactor::listen::sharing::{ListenOptions, listen};
use reactor::{EventLoop, LinuxListener, ListenerWakes};
use server::answer::Answer;
use server::connection::{HttpHandler, HttpSettings};
use server::dispatch::RequestJob;
use server::http::{Method, Request, Response};
use server::http_stats::HttpStats;
use server::service::Service;
use worker_pool::Pool;

struct Hello;

impl Service for Hello {
    fn call(&mut self, request: &Request<'_>, _now: Instant) -> Answer {
        match (request.method, request.path) {
            (Method::Get, "/hello") => Answer::Now(Response::text("Hello, World!")),
            _ => Answer::Now(Response::text("not found\n").status(404)),
        }
    }
}

fn main() -> ExitCode {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8000".to_owned());
    let Ok(address) = address.parse::<SocketAddr>() else {
        eprintln!("{address}: not an address; expected for example 127.0.0.1:8000");
        return ExitCode::from(2);
    };
    match run(address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn run(address: SocketAddr) -> io::Result<()> {
    let pool = Pool::<RequestJob>::start(worker_pool::Config::default())?;
    let settings = HttpSettings { job_deadline: Duration::from_secs(5), ..HttpSettings::default() };
    let handler = HttpHandler::new(Hello, settings, pool.submitter(), Arc::new(HttpStats::default()));
    let mut event_loop = EventLoop::new(reactor::Config::default(), handler)?;
    let mailer = event_loop.mailer();
    event_loop.handler_mut().set_mailer(mailer);
    let socket = listen(address, ListenOptions::default())?;
    println!("listening {}", socket.local_addr()?);
    event_loop.listen_on(LinuxListener::new(socket)?, ListenerWakes::All)?;
    event_loop.run().map(drop)
}
