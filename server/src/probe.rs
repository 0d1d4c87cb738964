//! Asks at the start whether this system answers the calls that the server needs.
//!
//! A seccomp filter (of a container runtime, of systemd's `SystemCallFilter=`) answers a call that it does not know with EPERM or ENOSYS. Found out
//! in the middle of the work, that looks like a missing right: the call is named here instead. Read next: `run.rs` and `check.rs`, which ask.

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

use crate::beneath::openat2_error;

/// What the server does without a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// It does not start.
    CannotStart,
    /// It does this instead.
    Instead(&'static str),
}

/// A system call, and how this system answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Its name, as a seccomp filter has it.
    pub call: &'static str,
    /// EPERM or ENOSYS, if it is answered so whatever is asked.
    pub error: Option<Errno>,
    /// What is done then.
    pub without: Without,
}

impl Probe {
    /// One sentence about a call that is not answered. None if it is.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        let error = std::io::Error::from(self.error?);
        let without = match self.without {
            Without::CannotStart => "the server cannot run without it",
            Without::Instead(instead) => instead,
        };
        Some(format!("the system call {} fails with \"{error}\": a sandbox (seccomp) or an old kernel; {without}", self.call))
    }
}

/// Asks for each call. Opens descriptors and closes them again.
#[must_use]
pub fn probes(serves_files: bool) -> Vec<Probe> {
    // accept(2) of something that is not a socket fails with ENOTSOCK, if the kernel is asked at all.
    let accept = || epoll::create(epoll::CreateFlags::CLOEXEC).and_then(|epoll| accept_with(epoll, SocketFlags::CLOEXEC)).map(drop);
    let needed = [
        ("epoll_create1", refusal(epoll::create(epoll::CreateFlags::CLOEXEC).map(drop))),
        ("eventfd2", refusal(eventfd(0, EventfdFlags::CLOEXEC).map(drop))),
        ("timerfd_create", refusal(timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC).map(drop))),
        ("accept4", refusal(accept())),
    ];
    let mut probes: Vec<Probe> = needed.map(|(call, error)| Probe { call, error, without: Without::CannotStart }).into();
    if serves_files {
        let without = Without::Instead("files are opened component by component instead, which is slower");
        probes.push(Probe { call: "openat2", error: openat2_error(), without });
    }
    probes
}

fn refusal(result: Result<(), Errno>) -> Option<Errno> {
    result.err().filter(|error| [Errno::PERM, Errno::NOSYS].contains(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_is_not_answered_is_named_with_what_follows() {
        assert!(probes(true).iter().filter(|probe| probe.call != "openat2").all(|probe| probe.complaint().is_none()), "{:?}", probes(true));
        let probe = Probe { call: "accept4", error: Some(Errno::PERM), without: Without::CannotStart };
        let complaint = probe.complaint().expect("it is not answered");
        assert!(["accept4", "Operation not permitted", "seccomp", "cannot run"].iter().all(|part| complaint.contains(part)), "{complaint}");
        assert_eq!(refusal(Err(Errno::NOTSOCK)), None, "an answer");
    }
}
