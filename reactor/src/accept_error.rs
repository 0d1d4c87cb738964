//! The errors of accept(2): by name, for the counters, and by whether one connection or the listener failed. `listen/accept.rs` handles
//! them.

use std::io;

/// An error of accept(2), as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptError {
    /// The process has no descriptor left (RLIMIT_NOFILE).
    Emfile,
    /// The system has no descriptor left (`fs.file-max`).
    Enfile,
    /// The kernel has no memory for the socket, or its limit is reached.
    Enobufs,
    /// As [`AcceptError::Enobufs`].
    Enomem,
    /// The client has disconnected before it was accepted.
    Econnaborted,
    /// As [`AcceptError::Econnaborted`], on some kernels.
    Eproto,
    /// Any other error. accept(2) also returns network errors of the new connection (accept(2), "Error handling").
    Other,
}

impl AcceptError {
    /// Number of variants.
    pub const COUNT: usize = 7;
    /// The variants, in the order of their discriminants.
    pub const ALL: [AcceptError; Self::COUNT] = [
        AcceptError::Emfile,
        AcceptError::Enfile,
        AcceptError::Enobufs,
        AcceptError::Enomem,
        AcceptError::Econnaborted,
        AcceptError::Eproto,
        AcceptError::Other,
    ];

    /// The variant for an error of the system.
    #[must_use]
    pub fn of(error: &io::Error) -> AcceptError {
        match error.raw_os_error() {
            Some(libc::EMFILE) => AcceptError::Emfile,
            Some(libc::ENFILE) => AcceptError::Enfile,
            Some(libc::ENOBUFS) => AcceptError::Enobufs,
            Some(libc::ENOMEM) => AcceptError::Enomem,
            Some(libc::ECONNABORTED) => AcceptError::Econnaborted,
            Some(libc::EPROTO) => AcceptError::Eproto,
            _ => AcceptError::Other,
        }
    }

    /// The name in metrics: that of errno(3), in lower case.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            AcceptError::Emfile => "emfile",
            AcceptError::Enfile => "enfile",
            AcceptError::Enobufs => "enobufs",
            AcceptError::Enomem => "enomem",
            AcceptError::Econnaborted => "econnaborted",
            AcceptError::Eproto => "eproto",
            AcceptError::Other => "other",
        }
    }
}

/// Whether one connection failed, and not the listener. Such a connection is off the queue, and the next one can be accepted at once.
/// These are the errors that accept(2), "Error handling", says to retry. Other errors do not take a connection from the queue.
#[must_use]
pub(crate) fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
        )
    )
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{AcceptError, is_of_the_connection};

    #[test]
    fn what_befell_one_connection_is_told_from_what_befell_the_listener() {
        for errno in [libc::ECONNABORTED, libc::EPROTO, libc::ENETDOWN, libc::EHOSTUNREACH] {
            assert!(is_of_the_connection(&io::Error::from_raw_os_error(errno)));
        }
        for errno in [libc::EINVAL, libc::EBADF, libc::EACCES, libc::EPERM, libc::EMFILE] {
            assert!(!is_of_the_connection(&io::Error::from_raw_os_error(errno)));
        }
    }

    #[test]
    fn an_accept_error_is_known_by_its_errno() {
        for (errno, error) in [
            (libc::EMFILE, AcceptError::Emfile),
            (libc::ENFILE, AcceptError::Enfile),
            (libc::ENOBUFS, AcceptError::Enobufs),
            (libc::ENOMEM, AcceptError::Enomem),
            (libc::ECONNABORTED, AcceptError::Econnaborted),
            (libc::EPROTO, AcceptError::Eproto),
            (libc::EPERM, AcceptError::Other),
        ] {
            assert_eq!(AcceptError::of(&io::Error::from_raw_os_error(errno)), error);
        }
        assert_eq!(AcceptError::of(&io::Error::other("not from the system")), AcceptError::Other);
    }
}
