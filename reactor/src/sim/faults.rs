//! The N-th call of a kind fails with a chosen errno. (SQLite tests so, each N in turn; here the seed chooses.)

use std::io;

use super::rng::Rng;

/// A kind of system call that can fail on command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Accept,
    Read,
    Write,
    Register,
    Connect,
    Shutdown,
    /// The spare descriptor is given up, and another thread takes it first.
    ReleaseSpare,
    /// epoll_wait(2) fails, and not with EINTR. The loop cannot go on, and has to finish.
    Poll,
    /// timerfd_settime(2).
    SetTimer,
    /// fcntl(2), of a connection that another loop has accepted.
    Adopt,
}

const CALLS: usize = 10;

/// What each call may fail with: the errors that its manual page names and that are not the program's fault.
fn errors(call: Call) -> &'static [i32] {
    match call {
        Call::Accept => {
            &[libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::ECONNABORTED, libc::EPROTO, libc::EINTR, libc::ENETDOWN]
        }
        Call::Read => &[libc::ECONNRESET, libc::ETIMEDOUT, libc::ENOMEM, libc::EINTR],
        Call::Write => &[libc::EPIPE, libc::ECONNRESET, libc::ENOBUFS, libc::ENOMEM, libc::EINTR],
        Call::Register => &[libc::ENOSPC, libc::ENOMEM],
        Call::Connect => &[libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::EADDRNOTAVAIL, libc::ENETUNREACH],
        Call::Shutdown => &[libc::ENOTCONN],
        Call::ReleaseSpare => &[libc::EMFILE],
        Call::Adopt => &[libc::EPERM],
        Call::Poll | Call::SetTimer => &[libc::EBADF, libc::EINVAL],
    }
}

#[derive(Clone, Copy, Debug)]
struct Fault {
    call: Call,
    nth: u32,
    errno: i32,
}

/// The faults of one run.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    planned: Vec<Fault>,
    calls: [u32; CALLS],
}

impl Faults {
    /// Chooses some.
    pub(crate) fn plan(rng: &mut Rng) -> Faults {
        let mut faults = Faults::default();
        let (many, calls_max) = (rng.below(5), 1 << rng.between(1, 6));
        for _ in 0..many {
            let call = rng.pick(&[
                Call::Accept,
                Call::Accept,
                Call::Accept,
                Call::Read,
                Call::Write,
                Call::Register,
                Call::Connect,
                Call::Shutdown,
                Call::ReleaseSpare,
                Call::Adopt,
            ]);
            let errno = rng.pick(errors(call));
            faults.planned.push(Fault { call, nth: rng.between(1, calls_max) as u32, errno });
        }
        // Seldom: each of them ends the run.
        for call in [Call::Poll, Call::SetTimer] {
            if rng.one_in(20) {
                faults.planned.push(Fault { call, nth: rng.between(1, 60) as u32, errno: rng.pick(errors(call)) });
            }
        }
        faults
    }

    /// Whether the next call of a kind is to fail.
    pub(crate) fn is_next(&self, call: Call) -> bool {
        self.planned.iter().any(|fault| fault.call == call && fault.nth == self.calls[call as usize] + 1)
    }

    /// Whether a call of a kind has failed.
    pub(crate) fn has_failed(&self, call: Call) -> bool {
        self.planned.iter().any(|fault| fault.call == call && fault.nth <= self.calls[call as usize])
    }

    /// Counts a call; the error that it is to fail with, if it is.
    pub(crate) fn count(&mut self, call: Call) -> Option<io::Error> {
        if self.planned.is_empty() {
            return None;
        }
        let count = &mut self.calls[call as usize];
        *count += 1;
        let nth = *count;
        self.planned.iter().find(|fault| fault.call == call && fault.nth == nth).map(|fault| io::Error::from_raw_os_error(fault.errno))
    }
}
