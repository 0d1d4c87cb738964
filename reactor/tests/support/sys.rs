//! What tests need of the system and no library offers. The only `unsafe` of the tests, with the allocator that counts.
#![allow(unsafe_code)]

use std::io;

/// Sets the soft limit of open descriptors of this process; the hard one stays.
///
/// # Errors
/// getrlimit(2), setrlimit(2).
pub fn set_descriptor_limit(soft: u64) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit(2) writes one rlimit.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = soft;
    // SAFETY: setrlimit(2) reads one rlimit.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A descriptor of this process by its number, as `/proc/self/fd` names it.
pub fn borrow(fd: std::os::fd::RawFd) -> std::os::fd::BorrowedFd<'static> {
    // SAFETY: open(2) descriptors are process-wide; the caller has just found this one open. If another thread closes it meanwhile, the
    // calls made on it fail with EBADF or concern another socket, which the caller checks.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) }
}
