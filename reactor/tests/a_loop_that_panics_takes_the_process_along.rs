//! A panic that belongs to no connection ends the process: a dead loop must never keep a listening socket, and clients in a queue that nobody
//! empties.
#![allow(clippy::unwrap_used)] // In helpers too: what fails here fails the test.

mod support;

use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::time::Instant;

use reactor::{Config, Context, Handler, LoopContext, Origin};
use support::child::{is_server, start_server, wait_for_the_end};
use support::prepare;

/// Panics in `woke` once somebody has connected.
struct Broken {
    at: Option<Instant>,
}

impl Handler for Broken {
    type Conn = ();
    type Mail = ();

    fn opened(&mut self, _: Origin, cx: &mut Context<'_>) {
        self.at = Some(cx.now());
    }

    fn input(&mut self, (): &mut (), input: &[u8], _: &mut Context<'_>) -> usize {
        input.len()
    }

    fn mail(&mut self, (): &mut (), (): (), _: &mut Context<'_>) {}

    fn next_wake(&self) -> Option<Instant> {
        self.at
    }

    fn woke(&mut self, _: &mut LoopContext<'_>) {
        // No message and no backtrace: the panic is wanted.
        std::panic::resume_unwind(Box::new("wanted"));
    }
}

#[test]
fn after_a_panic_of_the_loop_itself_no_process_listens_without_serving() {
    if is_server() {
        let server = prepare(Config::default(), Broken { at: None }).run();
        println!("\nlistening {}", server.address);
        return wait_for_the_end();
    }
    let server = start_server("after_a_panic_of_the_loop_itself_no_process_listens_without_serving");
    drop(TcpStream::connect(server.address).unwrap());
    // Its stdin is open, and its other threads know of nothing: only the panic can have ended it.
    assert_eq!(server.ended_by_itself().signal(), Some(6), "abort(3) ends with SIGABRT");
}
