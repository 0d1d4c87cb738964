//! `Handle::wait`: a thread that orders the end of a loop learns when it has come, and gives up after its timeout if it has not.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reactor::{CloseReason, Config, Context, EventLoop, Handler, LoopContext, Origin, Pressure};
use support::{PATIENCE, start};

/// Keeps its connections open while the loop drains, and takes its time over the last callback.
struct Stays {
    closed: Arc<AtomicBool>,
}

impl Handler for Stays {
    type Conn = ();
    type Mail = ();

    fn opened(&mut self, _: Origin, cx: &mut Context<'_>) {
        cx.write(b"!");
    }

    fn input(&mut self, (): &mut (), input: &[u8], _: &mut Context<'_>) -> usize {
        input.len()
    }

    fn mail(&mut self, (): &mut (), (): (), _: &mut Context<'_>) {}

    fn pressed(&mut self, (): &mut (), _: Pressure, _: &mut Context<'_>) {}

    fn closed(&mut self, (): (), reason: CloseReason, _: &mut LoopContext<'_>) {
        std::thread::yield_now();
        self.closed.store(reason == CloseReason::LoopEnded, Ordering::SeqCst);
    }
}

#[test]
fn a_wait_ends_after_the_last_callback_or_after_its_timeout() {
    let closed = Arc::new(AtomicBool::new(false));
    let server = start(Config::default(), Stays { closed: Arc::clone(&closed) });
    let mut client = server.connect();
    client.read_exact(&mut [0]).unwrap();
    let handle = server.handle.clone();
    handle.shut_down(Duration::MAX);
    assert!(!handle.wait(Duration::from_millis(5)), "a connection is open, and the grace has no end");
    assert!(!handle.has_finished());
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            std::thread::spawn({
                let (handle, closed) = (handle.clone(), Arc::clone(&closed));
                move || (handle.wait(Duration::MAX), closed.load(Ordering::SeqCst))
            })
        })
        .collect();
    handle.stop();
    assert!(handle.wait(PATIENCE));
    assert!(closed.load(Ordering::SeqCst), "the last callback has returned");
    assert!(handle.has_finished() && handle.wait(Duration::ZERO), "it stays finished");
    for waiter in waiters {
        assert_eq!(waiter.join().unwrap(), (true, true));
    }
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "the connection is closed");
}

#[test]
fn a_loop_that_never_ran_has_finished_when_it_is_dropped() {
    let event_loop = EventLoop::new(Config::default(), Stays { closed: Arc::default() }).unwrap();
    let handle = event_loop.handle();
    assert!(!handle.has_finished());
    drop(event_loop);
    assert!(handle.wait(Duration::ZERO));
}
