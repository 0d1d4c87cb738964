//! The descriptor limit: raising it, and fitting `connections_max` below it with a reserve.
//!
//! A server that accepts as many connections as it has descriptors fails in accept(2), in open(2) and in its log at the same time
//! (`fd-exhaustion`). So the limit is raised first, and `connections_max` is fitted below it.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::errors::DescriptorsError;
use crate::os::sys;

/// Descriptors reserved for everything but client connections: standard streams; epoll, timer, waker and spare of each loop; listeners, log, files
/// that the pool has open. Redis reserves 32 (`CONFIG_MIN_RESERVED_FDS`, src/server.h). Files and several loops need more.
pub const DESCRIPTORS_RESERVED: u64 = 64;

/// Raises the soft limit of open descriptors to the hard limit, and returns the soft limit that is in force.
///
/// # Errors
/// getrlimit(2). A failure to raise the limit is not an error: the old soft limit is returned.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let (soft, hard) = sys::descriptor_limits()?;
    if soft < hard && sys::set_soft_descriptor_limit(hard, hard).is_ok() {
        return Ok(hard);
    }
    Ok(soft)
}

/// The soft limit of open descriptors, at which accept(2) fails.
///
/// # Errors
/// getrlimit(2).
pub fn descriptor_limit() -> io::Result<u64> {
    sys::descriptor_limits().map(|(soft, _)| soft)
}

/// The number of descriptors that all loops of the process may need together: one [`TableShare`] for each loop, and the reserve.
static WANTED: AtomicU64 = AtomicU64::new(DESCRIPTORS_RESERVED);

/// A loop's part of [`WANTED`]. Dropping it gives the part back, so that the next loop uses the same entries of the table. Test:
/// `loops_that_have_ended_leave_their_place_in_the_descriptor_table`.
#[derive(Debug)]
pub(crate) struct TableShare {
    descriptors: u64,
}

impl Drop for TableShare {
    fn drop(&mut self) {
        WANTED.fetch_sub(self.descriptors, Ordering::Relaxed);
    }
}

/// Makes the kernel grow the process's descriptor table by `descriptors` entries now, and not while connections are accepted.
///
/// The table doubles when it is full. In a process with several threads, the kernel then waits until no CPU can still read the old table
/// (`expand_fdtable` and its `synchronize_rcu`, fs/file.c). A single accept(2) of the loop took 5 to 54 ms at 256, 512, 1,024, 2,048 and
/// 4,096 connections (docs/numbers.md). The kernel does not shrink the table. It costs 8 bytes per entry, rounded up to a power of two entries.
#[must_use]
pub(crate) fn grow_table(any: BorrowedFd<'_>, descriptors: u64) -> TableShare {
    let wanted = WANTED.fetch_add(descriptors, Ordering::Relaxed) + descriptors;
    let share = TableShare { descriptors };
    let Ok((soft, _)) = sys::descriptor_limits() else { return share };
    let last = libc::c_int::try_from(wanted.min(soft.saturating_sub(1))).unwrap_or(libc::c_int::MAX);
    if let Err(e) = sys::grow_descriptor_table(any, last) {
        log::debug!("the table of descriptors grows later: {e}");
    }
    share
}

/// How many connections fit below a descriptor limit when `reserved` descriptors are kept for everything else. With `wanted`, checks that this many
/// fit.
///
/// # Errors
/// The numbers when `wanted` does not fit, or when no descriptor is left for connections.
pub fn fit_connections(wanted: Option<u32>, descriptors_max: u64, reserved: u64) -> Result<u32, DescriptorsError> {
    let fit_max = u32::try_from(descriptors_max.saturating_sub(reserved)).unwrap_or(u32::MAX);
    match wanted {
        _ if fit_max == 0 => Err(DescriptorsError::NoneLeft { descriptors_max, reserved }),
        Some(wanted) if wanted > fit_max => Err(DescriptorsError::TooMany { wanted, fit_max, descriptors_max, reserved }),
        Some(wanted) => Ok(wanted),
        None => Ok(fit_max),
    }
}

#[cfg(test)]
mod tests {
    use super::fit_connections;

    #[test]
    fn connections_fit_under_the_limit_with_the_reserve() {
        assert_eq!(fit_connections(None, 1024, 64), Ok(960));
        assert_eq!(fit_connections(Some(960), 1024, 64), Ok(960));
        assert!(fit_connections(Some(961), 1024, 64).unwrap_err().to_string().contains("1025"));
        assert!(fit_connections(None, 64, 64).is_err());
    }
}
