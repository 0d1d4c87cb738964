//! The calls that no library of ours offers. The only `unsafe` of this crate.
#![allow(unsafe_code)]

use std::time::Duration;

/// CPU time that the calling thread has used (`CLOCK_THREAD_CPUTIME_ID`).
pub(crate) fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime(2) writes one timespec; with this clock it cannot fail.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0, "CLOCK_THREAD_CPUTIME_ID exists on every Linux");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
