//! The primitives that loom must see, under one name: std's in a build, loom's in a model check.
//!
//! Counters on which no decision depends (`stats.rs`) use std's atomics in both: to model them would only multiply the interleavings.

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
};

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
};

#[cfg(not(loom))]
pub(crate) use parker::Parker;

#[cfg(loom)]
pub(crate) use model::Parker;

#[cfg(not(loom))]
mod parker {
    use std::sync::OnceLock;
    use std::thread::{self, Thread};
    use std::time::Duration;

    /// Lets one thread sleep until another wakes it. A wake-up that comes first is kept.
    #[derive(Debug, Default)]
    pub(crate) struct Parker(OnceLock<Thread>);

    impl Parker {
        /// The calling thread is the one that sleeps. A wake-up before this call has no effect.
        pub(crate) fn attach_this_thread(&self) {
            // Fails only for a second thread, which the pool does not start.
            let _ = self.0.set(thread::current());
        }

        /// Never blocks.
        pub(crate) fn unpark(&self) {
            if let Some(thread) = self.0.get() {
                thread.unpark();
            }
        }

        /// Sleeps until it is woken. May return without reason, as std's.
        pub(crate) fn park(&self) {
            thread::park();
        }

        /// The same, with a limit.
        pub(crate) fn park_timeout(&self, limit: Duration) {
            thread::park_timeout(limit);
        }
    }
}

/// Loom 0.7 has `park`, but its `unpark` also wakes a thread that waits for a mutex, and the model then fails.
#[cfg(loom)]
#[allow(clippy::unwrap_used)] // A poisoned lock in a model check is a failed check.
mod model {
    use loom::sync::{Condvar, Mutex};
    use std::time::Duration;

    #[derive(Debug)]
    pub(crate) struct Parker {
        woken: Mutex<bool>,
        changed: Condvar,
    }

    impl Default for Parker {
        fn default() -> Self {
            Self { woken: Mutex::new(false), changed: Condvar::new() }
        }
    }

    impl Parker {
        pub(crate) fn attach_this_thread(&self) {}

        pub(crate) fn unpark(&self) {
            *self.woken.lock().unwrap() = true;
            self.changed.notify_one();
        }

        pub(crate) fn park(&self) {
            let mut woken = self.woken.lock().unwrap();
            while !*woken {
                woken = self.changed.wait(woken).unwrap();
            }
            *woken = false;
        }

        /// Loom has no clock: only another thread ends this. The deadlines of a model lie in the past.
        pub(crate) fn park_timeout(&self, _: Duration) {
            self.park();
        }
    }
}
