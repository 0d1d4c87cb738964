//! The one line with which a program that cannot go on says why.
//!
//! Read next: `run.rs`, which decides on it.

use std::io::{self, Write};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Writes one line to stderr. Neither a closed stderr nor a full pipe keeps a process that is ending: the write waits for at most
/// [`COMPLAINT_TIMEOUT`]. It needs no thread, because the complaint may be that no thread can be started. Tests:
/// `a_limit_of_threads_is_named_with_the_thread_that_did_not_start`, `a_complaint_to_a_full_pipe_does_not_keep_the_process`.
pub(crate) fn complain(program: &str, complaint: &str) {
    let line = format!("{program}: {complaint}\n");
    let stderr = io::stderr();
    // poll(2) reports a pipe as writable when a write of PIPE_BUF (4096) bytes would not block, so each write is at most this long.
    for piece in line.as_bytes().chunks(4096) {
        let mut ready = [PollFd::new(&stderr, PollFlags::OUT)];
        if poll(&mut ready, Some(&COMPLAINT_TIMEOUT)) != Ok(1) || (&stderr).write_all(piece).is_err() {
            return;
        }
    }
}

/// How long a complaint may wait for a pipe that nobody reads.
const COMPLAINT_TIMEOUT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
