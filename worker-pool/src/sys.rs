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

#[cfg(test)]
mod tests {
    use super::add_nice_to_this_thread;

    /// Field 19 of proc_pid_stat(5), the 17th after the name.
    fn nice_of_this_thread() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("this is Linux");
        let (_, after_name) = stat.rsplit_once(')').expect("the name is in brackets");
        let field = after_name.split_whitespace().nth(16).expect("there are 52 fields");
        field.parse().expect("a number")
    }

    #[test]
    fn increments_add_up_and_end_at_nineteen() {
        // On a thread of its own: a thread cannot take its niceness back without a privilege.
        let seen = std::thread::spawn(|| {
            let begin = nice_of_this_thread();
            let after = [3, 4, 19].map(|increment| {
                add_nice_to_this_thread(increment).expect("becoming nicer needs no privilege");
                nice_of_this_thread()
            });
            (begin, after)
        });
        let (begin, after) = seen.join().expect("no panic");
        assert_eq!(after, [(begin + 3).min(19), (begin + 7).min(19), 19]);
    }
}
