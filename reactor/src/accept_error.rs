//! The errors of accept(2) that are counted, by name. What is done about each is in `listen/accept.rs`.

use std::io;

/// An error of accept(2), by name.
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
    /// The client has left before it was accepted.
    Econnaborted,
    /// As [`AcceptError::Econnaborted`], on some kernels.
    Eproto,
    /// Any other: the network's errors come through accept too (accept(2), "Error handling").
    Other,
}

impl AcceptError {
    /// How many there are.
    pub const COUNT: usize = 7;
    /// All of them, in the order of their numbers.
    pub const ALL: [AcceptError; Self::COUNT] = [
        AcceptError::Emfile,
        AcceptError::Enfile,
        AcceptError::Enobufs,
        AcceptError::Enomem,
        AcceptError::Econnaborted,
        AcceptError::Eproto,
        AcceptError::Other,
    ];

    /// Which one it is.
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

    /// The name in metrics: lower case, as errno(3) has it.
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

/// Whether one connection failed, and not the listener: it is off the queue, and the next one may be sound. The errors that accept(2), "Error
/// handling", says to treat so. All others come again at the next call.
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
