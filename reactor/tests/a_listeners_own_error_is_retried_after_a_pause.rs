//! An error of accept(2) that comes again at once pauses the listener. A close ends the pause where it can help: after a want of descriptors or
//! memory, and not after EINVAL (another process has shut the socket down) or EACCES (a security module refuses). What such errors log
//! stays bounded, however long they last.
#![allow(clippy::unwrap_used)] // In helpers too: what fails here fails the test.

mod support;

use std::cell::RefCell;
use std::time::Duration;

use reactor::{CloseReason, Config, EventLoop};
use support::lines::Lines;
use support::scripted::{Scripted, scripted};

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Keeps what a test's own thread logs.
struct Kept;

impl log::Log for Kept {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LINES.with_borrow_mut(|lines| lines.push(record.args().to_string()));
    }

    fn flush(&self) {}
}

fn keep_logs() {
    // Another test of this process may have set it: it is the same one.
    let _ = log::set_logger(&Kept);
    log::set_max_level(log::LevelFilter::Warn);
}

fn logged() -> Vec<String> {
    LINES.with_borrow(Clone::clone)
}

/// A loop with one open connection, whose listener has just failed with `errno`; another client waits.
fn paused_by(errno: i32) -> (EventLoop<Lines, Scripted>, u32) {
    let (mut event_loop, index) = scripted(Config::default(), Lines::silent());
    let peer = event_loop.os_mut().kernel().peer_connects(index).unwrap();
    event_loop.turn().unwrap();
    event_loop.os_mut().kernel().peer_connects(index).unwrap();
    // The spare descriptor does not help either.
    event_loop.os_mut().accept_errors.extend([errno, errno]);
    event_loop.turn().unwrap();
    assert_eq!(event_loop.stats().accepts.get(), 1);
    (event_loop, peer)
}

#[test]
fn a_close_ends_a_pause_for_descriptors_and_no_other() {
    for (errno, ends_at_close) in [
        (libc::EMFILE, true),
        (libc::ENFILE, true),
        (libc::ENOBUFS, true),
        (libc::ENOMEM, true),
        (libc::EINVAL, false),
        (libc::EACCES, false),
        (libc::EPERM, false),
    ] {
        let (mut event_loop, peer) = paused_by(errno);
        event_loop.os_mut().accept_errors.clear();
        let calls = event_loop.os_mut().accepts;
        event_loop.os_mut().kernel().peer_ends(peer);
        for _ in 0..3 {
            // The time of the pause does not pass.
            event_loop.os_mut().events = vec![Scripted::timer_event()];
            event_loop.turn().unwrap();
        }
        assert_eq!(event_loop.stats().closes(CloseReason::PeerClosed).get(), 1);
        assert_eq!(event_loop.os_mut().accepts > calls, ends_at_close, "errno {errno}");
        event_loop.os_mut().ahead += Config::default().limits.accept_pause;
        event_loop.turn().unwrap();
        assert_eq!(event_loop.stats().accepts.get(), 2, "errno {errno}");
    }
}

#[test]
fn an_error_that_lasts_is_logged_every_ten_seconds() {
    keep_logs();
    let (mut event_loop, _) = paused_by(libc::EINVAL);
    for _ in 0..1000 {
        event_loop.os_mut().accept_errors.extend([libc::EINVAL]);
        event_loop.os_mut().ahead += Duration::from_millis(100);
        event_loop.turn().unwrap();
    }
    assert!(event_loop.os_mut().accepts > 900, "it was tried again after each pause");
    let lines = logged();
    assert!((10..=11).contains(&lines.len()), "{lines:#?}");
    assert!(lines[1].contains("99 more since the last line"), "{lines:#?}");
}

#[test]
fn connections_that_cannot_be_registered_are_logged_once_in_a_while() {
    keep_logs();
    let (mut event_loop, index) = scripted(Config::default(), Lines::silent());
    for _ in 0..100 {
        event_loop.os_mut().register_errors.push_back(libc::ENOSPC);
        event_loop.os_mut().kernel().peer_connects(index).unwrap();
    }
    for _ in 0..20 {
        event_loop.turn().unwrap();
    }
    assert_eq!(event_loop.stats().closes(CloseReason::RegisterFailed).get(), 100);
    assert_eq!(logged().len(), 1);
}
