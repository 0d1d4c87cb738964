//! Calls code that belongs to a job, and keeps a panic in it from unwinding the caller.
//!
//! All code that a job brings goes through [`contain`]: `run`, `complete`, and the `Drop` of the job, of its output and of whatever a
//! panic carried. The caller is a worker, or the thread that submits or shuts down, and has books to keep: permits, gauges, a slow
//! thread's share. A panic that skips those is a thread or a permit lost for good.

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
pub(crate) fn contain<T>(code: impl FnOnce() -> T) -> Result<T, Panicked> {
    // A job that has panicked is only given to `complete`, and that is what its author wrote `complete` for.
    panic::catch_unwind(AssertUnwindSafe(code)).map_err(|payload| {
        drop_payload(payload);
        Panicked
    })
}

/// Drops what a panic carried. Its `Drop` may panic as well, outside the `catch_unwind` that caught the first panic. What that second
/// panic carries is leaked: it could go on for ever.
fn drop_payload(payload: Box<dyn Any + Send>) {
    if let Err(second) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(second);
    }
}
