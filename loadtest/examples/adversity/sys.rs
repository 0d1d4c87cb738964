//! Two system calls that neither the standard library nor the crate has a door to.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

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

/// Has the port chosen by connect(2), for the destination, and not by bind(2), for all of them (`IP_BIND_ADDRESS_NO_PORT`, ip(7)): ports
/// whose last connection went to another server can be used again at once.
///
/// # Errors
/// setsockopt(2).
pub(crate) fn choose_port_at_connect(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    let bytes = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: setsockopt(2) reads an int of the length given.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, std::ptr::from_ref(&on).cast(), bytes)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
