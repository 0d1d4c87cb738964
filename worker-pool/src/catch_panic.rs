//! Calls code that belongs to a job, and keeps a panic in it from unwinding the caller.
//!
//! All code that a job brings goes through [`catch_panic`]: `run`, `complete`, and the `Drop` of the job, of its output and of whatever a
//! panic carried. The caller is a worker, or the thread that submits or shuts down, and updates permits, gauges and slow slots after the
//! call. A panic that skips this loses a thread or a permit for good (tests: `a_panic_in_a_job_costs_no_worker.rs`).

use std::any::Any;
use std::mem;
use std::panic::{self, AssertUnwindSafe};

/// Code that was called has panicked. The panic hook has reported it already.
#[derive(Debug)]
pub(crate) struct Panicked;

/// Calls `code`. A panic in it becomes an error; the value that the panic carried is dropped here.
///
/// A panic during the unwinding of another one cannot be contained: Rust aborts the process.
///
/// # Errors
/// `Panicked` when `code` panicked.
pub(crate) fn catch_panic<T>(code: impl FnOnce() -> T) -> Result<T, Panicked> {
    // A job that has panicked is used once more: by its own `complete`, whose author expects that.
    panic::catch_unwind(AssertUnwindSafe(code)).map_err(|payload| {
        drop_payload(payload);
        Panicked
    })
}

/// Drops what a panic carried. Its `Drop` may panic as well, outside the `catch_unwind` that caught the first panic. What that second
/// panic carries is leaked, since its `Drop` may panic again.
fn drop_payload(payload: Box<dyn Any + Send>) {
    if let Err(second) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(second);
    }
}
