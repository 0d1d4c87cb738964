//! A system call that neither the standard library nor the crate has a door to.
#![allow(unsafe_code)]

use std::io;

/// Lets the calling thread run on one CPU only.
///
/// # Errors
/// sched_setaffinity(2): EINVAL when there is no such CPU.
pub(crate) fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    // SAFETY: a cpu_set_t is plain bits, and all zero is the empty set (CPU_SET(3)).
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: CPU_SET(3) writes within the set, since 1 < CPU_SETSIZE.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: sched_setaffinity(2) reads as many bytes as it is told from the set; 0 is the calling thread.
    let result = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
