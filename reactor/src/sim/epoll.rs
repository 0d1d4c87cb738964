//! What one loop has of the simulated kernel: an epoll with its list of what is ready, an eventfd, a timer, a spare descriptor.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::kernel::{Nanos, Source};
use crate::os::Wake;

/// The eventfd. Any thread may write it, so it is the one part of the simulation that is atomic.
#[derive(Debug, Default)]
pub(crate) struct SimWaker {
    pub(super) is_woken: AtomicBool,
    calls: AtomicU32,
    failing_call: u32,
    /// A write has failed since [`SimWaker::forgive`].
    has_failed: AtomicBool,
}

impl Wake for SimWaker {
    fn wake(&self) -> io::Result<()> {
        if self.calls.fetch_add(1, Ordering::Relaxed) + 1 == self.failing_call {
            self.has_failed.store(true, Ordering::Relaxed);
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.is_woken.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl SimWaker {
    /// Mail is sent now: it wakes the loop, whatever has failed before.
    pub(crate) fn forgive(&self) {
        self.has_failed.store(false, Ordering::Relaxed);
    }

    /// Whether the loop may sleep although mail waits.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }
}

/// What one loop has of the kernel: an epoll, an eventfd, a timer and a spare descriptor.
#[derive(Debug)]
pub(crate) struct Epoll {
    pub(crate) waker: Arc<SimWaker>,
    pub(super) ready: VecDeque<Source>,
    pub(super) timer: Option<Nanos>,
    pub(super) timer_is_listed: bool,
    /// Expirations that no poll has reported. Setting the timer anew forgets them (timerfd_settime(2)).
    pub(super) timer_has_fired: bool,
    pub(crate) spare: bool,
}

impl Epoll {
    pub(super) fn new(failing_wake: u32) -> Epoll {
        Epoll {
            waker: Arc::new(SimWaker { failing_call: failing_wake, ..SimWaker::default() }),
            ready: VecDeque::new(),
            timer: None,
            timer_is_listed: false,
            timer_has_fired: false,
            spare: false,
        }
    }
}
