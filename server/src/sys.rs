//! The calls that no library of ours offers. The only `unsafe` of this crate.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// CPU time that the calling thread has used (`CLOCK_THREAD_CPUTIME_ID`).
pub(crate) fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime(2) writes one timespec; with this clock it cannot fail.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0, "CLOCK_THREAD_CPUTIME_ID exists on every Linux");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Opens a file for reading that lies beneath `directory`, however `path` and the symlinks on its way go: where it leads out, the error is
/// EXDEV. Checking the text of the path could not do that, since a link may change between the check and the open. Linux 5.6, openat2(2).
///
/// # Errors
/// What openat2(2) says; `InvalidInput` for a path with NUL in it.
pub(crate) fn open_beneath(directory: &File, path: &str) -> io::Result<File> {
    let path = CString::new(path)?;
    // SAFETY: open_how of openat2(2) is three integers, for which zero is a value; zero is also what its future fields must hold.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    // O_NONBLOCK: opening a pipe that nobody writes to would hold the worker for good. open(2).
    how.flags = (libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY) as u64;
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;
    let size = std::mem::size_of_val(&how);
    // EAGAIN: a rename or a mount elsewhere got between, and the kernel cannot prove that we stayed beneath. Again, a few times.
    for _ in 0..8 {
        // SAFETY: openat2(2) reads the path up to its NUL and `size` bytes of `how`; both live longer than the call.
        let result = unsafe { libc::syscall(libc::SYS_openat2, directory.as_raw_fd(), path.as_ptr(), &raw const how, size) };
        if result >= 0 {
            // SAFETY: a descriptor that openat2(2) has just made, and that nobody else knows.
            return Ok(File::from(unsafe { OwnedFd::from_raw_fd(result as i32) }));
        }
        let error = io::Error::last_os_error();
        if !matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) {
            return Err(error);
        }
    }
    Err(io::Error::from_raw_os_error(libc::EAGAIN))
}
