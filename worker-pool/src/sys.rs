//! The system calls that std does not have. The only unsafe code of this crate.
#![allow(unsafe_code)]

use std::io;

/// Adds to the nice value of the calling thread, cut at 19. On Linux a nice value belongs to a thread,
/// not to the process (setpriority(2), "C library/kernel differences").
///
/// # Errors
/// What getpriority(2) or setpriority(2) says. Making a thread nicer needs no privilege.
pub(crate) fn add_nice_to_this_thread(increment: i32) -> io::Result<()> {
    // SAFETY: gettid(2) takes nothing, touches no memory of ours and cannot fail.
    let tid = unsafe { libc::gettid() }.unsigned_abs();
    // -1 is also a legal answer, so errno decides (getpriority(2), "Return value").
    // SAFETY: __errno_location(3) gives a valid pointer to this thread's errno.
    unsafe { *libc::__errno_location() = 0 };
    // SAFETY: getpriority(2) takes two numbers and touches no memory of ours.
    let now = unsafe { libc::getpriority(libc::PRIO_PROCESS, tid) };
    if now == -1 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(0) {
            return Err(error);
        }
    }
    // SAFETY: setpriority(2) takes three numbers and touches no memory of ours.
    let set = unsafe { libc::setpriority(libc::PRIO_PROCESS, tid, (now + increment).min(19)) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
