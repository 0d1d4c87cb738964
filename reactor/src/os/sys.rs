//! The system calls that neither mio nor socket2 offer. This is the only file of this crate with `unsafe` code.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Creates a timer on the monotonic clock. It is non-blocking and closed on exec.
///
/// # Errors
/// timerfd_create(2): EMFILE, ENFILE, ENOMEM.
pub(crate) fn timer_create() -> io::Result<OwnedFd> {
    // SAFETY: timerfd_create(2) takes two integers and returns a new descriptor or -1.
    let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: timerfd_create(2) has just returned the descriptor: it is open, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets the timer to expire once, `after` from now. Zero would disarm it, so it becomes one nanosecond. A time longer than the kernel can count
/// becomes the longest that it can (292 years: `KTIME_MAX`).
///
/// # Errors
/// timerfd_settime(2); EINVAL cannot happen with these arguments.
pub(crate) fn timer_set(timer: BorrowedFd<'_>, after: Duration) -> io::Result<()> {
    let after = after.max(Duration::from_nanos(1));
    let value = libc::itimerspec {
        it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: libc::timespec {
            tv_sec: libc::time_t::try_from(after.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(after.subsec_nanos() as i32),
        },
    };
    // SAFETY: timerfd_settime(2) reads one itimerspec and, given a null pointer, writes none.
    match unsafe { libc::timerfd_settime(timer.as_raw_fd(), 0, &value, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Adds a listener with `EPOLLEXCLUSIVE`, so that an event wakes at least one waiter and not all. The flags are `IN | ET | EXCLUSIVE`: with RDHUP
/// the call fails with EINVAL. The entry cannot be modified afterwards (epoll_ctl(2)), so a pause deletes it and adds it again.
///
/// # Errors
/// epoll_ctl(2): EEXIST, ENOMEM, ENOSPC; EINVAL before Linux 4.5.
pub(crate) fn epoll_add_exclusive(epoll: RawFd, listener: RawFd, data: u64) -> io::Result<()> {
    let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET | libc::EPOLLEXCLUSIVE) as u32, u64: data };
    // SAFETY: epoll_ctl(2) reads one epoll_event. Both descriptors are open, because the caller borrows their owners.
    match unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, listener, &mut event) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The soft and the hard limit of open descriptors.
///
/// # Errors
/// getrlimit(2).
pub(crate) fn descriptor_limits() -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit(2) writes one rlimit.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } {
        0 => Ok((limit.rlim_cur, limit.rlim_max)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets the soft limit of open descriptors.
///
/// # Errors
/// setrlimit(2): EINVAL or EPERM above the hard limit.
pub(crate) fn set_soft_descriptor_limit(soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: setrlimit(2) reads one rlimit.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Grows the kernel's table of this process's descriptors to hold `descriptor`, by opening it and closing it again.
///
/// # Errors
/// fcntl(2), F_DUPFD_CLOEXEC: EINVAL at or above the soft limit, EMFILE, ENOMEM.
pub(crate) fn grow_descriptor_table(any: BorrowedFd<'_>, descriptor: libc::c_int) -> io::Result<()> {
    // SAFETY: fcntl(2) with F_DUPFD_CLOEXEC takes two integers and returns a new descriptor or -1.
    match unsafe { libc::fcntl(any.as_raw_fd(), libc::F_DUPFD_CLOEXEC, descriptor) } {
        -1 => Err(io::Error::last_os_error()),
        new => {
            // SAFETY: fcntl(2) has just returned the descriptor, so nothing else owns it. Dropping it closes it.
            drop(unsafe { OwnedFd::from_raw_fd(new) });
            Ok(())
        }
    }
}

/// The release of the running kernel, as `uname -r` prints it.
///
/// # Errors
/// uname(2): only EFAULT, which cannot happen with this pointer.
pub(crate) fn kernel_release() -> io::Result<String> {
    // SAFETY: utsname consists of arrays of bytes, for which zero is a valid value. uname(2) writes one utsname and ends each array with a NUL.
    let name = unsafe {
        let mut name: libc::utsname = std::mem::zeroed();
        if libc::uname(&mut name) != 0 {
            return Err(io::Error::last_os_error());
        }
        name
    };
    let release = name.release.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte as u8));
    Ok(release.collect())
}

/// Leaves the choice of the source port to connect(2) (`IP_BIND_ADDRESS_NO_PORT`, ip(7)).
///
/// # Errors
/// setsockopt(2).
pub(crate) fn set_bind_address_no_port(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: setsockopt(2) reads an int of the length given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            std::ptr::from_ref(&on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The bytes written to a TCP socket that its peer has not acknowledged (`SIOCOUTQ`, tcp(7); the number of `TIOCOUTQ`, ioctl_tty(2)).
///
/// # Errors
/// ioctl(2): EINVAL for a listening socket.
pub(crate) fn unacknowledged_bytes(socket: &impl AsRawFd) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: ioctl(2) with SIOCOUTQ writes one int to the pointer (tcp(7)). The descriptor is open, because the caller borrows its owner.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) } {
        0 => Ok(u64::try_from(bytes).unwrap_or(0)),
        _ => Err(io::Error::last_os_error()),
    }
}
