//! A panic in service code: the client is told, the log has it in one line, and the server goes on.
//!
//! The server is a service of this test's own, in a process of its own: this test program, started again.

mod process;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use process::{Server, get, sample};
use server::answer::{Answer, Work};
use server::config::Config;
use server::http::{Request, Response};
use server::service::Service;

struct Panics;

impl Service for Panics {
    fn call(&mut self, request: &Request<'_>, _now: Instant) -> Answer {
        match request.path {
            "/loop" => panic!("on the loop, path={}", request.path),
            "/worker" => Answer::Job(Work::fast(|_| panic!("on a worker"))),
            _ => Answer::Now(Response::text("fine")),
        }
    }
}

const CHILD: &str = "PANICS_SERVER";

#[test]
fn a_panic_is_answered_logged_in_one_line_and_survived() {
    if std::env::var_os(CHILD).is_some() {
        let any: std::net::SocketAddr = "127.0.0.1:0".parse().expect("it is an address");
        let config = Config { listen: vec![any.into()], admin: any, loops: 1, ..Config::default() };
        return server::run::serve(&config, || Panics).expect("it serves until it is told to end");
    }
    let mut command = Command::new(std::env::current_exe().expect("this program has a file"));
    command.args(["--exact", "a_panic_is_answered_logged_in_one_line_and_survived", "--nocapture"]).env(CHILD, "1").stderr(Stdio::piped());
    let mut server = Server::spawn(&mut command);
    let mut log = BufReader::new(server.stderr()).lines().map(|line| line.expect("it is text"));

    assert_eq!(get(server.http, "/loop").status, 500);
    let line = log.find(|line| line.contains(" ERROR ")).expect("it is logged");
    assert!(line.contains(" loop-0 panic panicked: on the loop, path=/loop at="), "{line}");
    assert!(line.contains("logging_panics.rs:"), "{line}");
    assert_eq!(sample(server.admin, "reactor_panics_total{loop=\"loop-0\"}"), 1.0);

    assert_eq!(get(server.http, "/worker").status, 500);
    let line = log.find(|line| line.contains(" ERROR ")).expect("it is logged");
    assert!(line.contains(" worker-") && line.contains(" panic panicked: on a worker at="), "{line}");
    assert_eq!(sample(server.admin, "pool_jobs_ended_total{outcome=\"panicked\"}"), 1.0);

    assert_eq!(get(server.http, "/").body, "fine");
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    assert!(log.all(|line| !line.contains("stack backtrace")), "nothing else writes to stderr");
}
