//! Reasons: why a configuration cannot work ([`ConfigError`], [`DescriptorsError`]), why accept(2) failed ([`AcceptError`]), and why a connection closed
//! ([`CloseReason`]).

use std::error::Error;
use std::fmt;
use std::io;

/// A number in a [`Config`](crate::Config) that cannot work. The message names the field, its value and what is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A count of which the loop needs at least 1 is 0.
    Zero {
        /// The field of [`Limits`](crate::Limits).
        field: &'static str,
    },
    /// `connections_max` and `refusals_max` together need more slots than fit a token.
    Slots {
        /// The value.
        connections_max: u32,
        /// The value.
        refusals_max: u32,
        /// The most that both together may be.
        sum_max: u32,
    },
    /// `buffer_bytes_max` is outside of its range.
    BufferBytesMax {
        /// The value.
        buffer_bytes_max: u32,
        /// The least that is allowed.
        allowed_min: u32,
        /// The most that is allowed.
        allowed_max: u32,
    },
    /// `buffer_bytes_min` is too small, or larger than `buffer_bytes_max`.
    BufferBytesMin {
        /// The value.
        buffer_bytes_min: u32,
        /// The least that is allowed.
        allowed_min: u32,
        /// The most that is allowed.
        buffer_bytes_max: u32,
    },
    /// `output_high_water_bytes` is above `buffer_bytes_max`, or `output_low_water_bytes` is not below `output_high_water_bytes`.
    WaterMarks {
        /// The value.
        output_low_water_bytes: u32,
        /// The value.
        output_high_water_bytes: u32,
        /// The most that `output_high_water_bytes` may be.
        buffer_bytes_max: u32,
    },
    /// `kernel_unsent_bytes_max` is 0, or does not fit the kernel's int.
    KernelUnsentBytesMax {
        /// The value.
        kernel_unsent_bytes_max: u32,
    },
    /// `buffer_memory_bytes_max` holds fewer than four of the largest buffers.
    BufferMemoryBytesMax {
        /// The value.
        buffer_memory_bytes_max: usize,
        /// The least that is allowed: four times `buffer_bytes_max`.
        allowed_min: usize,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero { field } => write!(f, "{field} is 0; it must be at least 1"),
            Self::Slots { connections_max, refusals_max, sum_max } => {
                write!(f, "connections_max is {connections_max} and refusals_max {refusals_max}; at most {sum_max} together fit a token")
            }
            Self::BufferBytesMax { buffer_bytes_max, allowed_min, allowed_max } => {
                write!(f, "buffer_bytes_max is {buffer_bytes_max}; {allowed_min} to {allowed_max} are allowed")
            }
            Self::BufferBytesMin { buffer_bytes_min, allowed_min, buffer_bytes_max } => {
                write!(f, "buffer_bytes_min is {buffer_bytes_min}; {allowed_min} to buffer_bytes_max ({buffer_bytes_max}) are allowed")
            }
            Self::WaterMarks { output_low_water_bytes, output_high_water_bytes, buffer_bytes_max } => write!(
                f,
                "output_low_water_bytes is {output_low_water_bytes} and output_high_water_bytes {output_high_water_bytes}; \
                 needed: low < high <= buffer_bytes_max ({buffer_bytes_max})"
            ),
            Self::KernelUnsentBytesMax { kernel_unsent_bytes_max } => {
                write!(f, "kernel_unsent_bytes_max is {kernel_unsent_bytes_max}; 1 to {} are allowed, or None", i32::MAX)
            }
            Self::BufferMemoryBytesMax { buffer_memory_bytes_max, allowed_min } => {
                write!(f, "buffer_memory_bytes_max is {buffer_memory_bytes_max}; at least {allowed_min} are needed (4 * buffer_bytes_max)")
            }
        }
    }
}

impl Error for ConfigError {}

impl From<ConfigError> for io::Error {
    fn from(error: ConfigError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, error)
    }
}

/// Why [`fit_connections`](crate::os::descriptors::fit_connections) found no fitting number of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DescriptorsError {
    /// The reserve leaves no descriptor for a connection.
    NoneLeft {
        /// The descriptor limit of the process.
        descriptors_max: u64,
        /// Descriptors reserved for everything but connections.
        reserved: u64,
    },
    /// More connections were asked for than fit below the limit.
    TooMany {
        /// The number of connections that was asked for.
        wanted: u32,
        /// The most that fit.
        fit_max: u32,
        /// The descriptor limit of the process.
        descriptors_max: u64,
        /// Descriptors reserved for everything but connections.
        reserved: u64,
    },
}

impl fmt::Display for DescriptorsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoneLeft { descriptors_max, reserved } => write!(
                f,
                "the descriptor limit is {descriptors_max}, and {reserved} are reserved: none is left for connections (raise it: ulimit -n)"
            ),
            Self::TooMany { wanted, fit_max, descriptors_max, reserved } => write!(
                f,
                "{wanted} connections and {reserved} reserved descriptors need a limit of {}, and it is {descriptors_max} \
                 (at most {fit_max} connections fit, or raise it: ulimit -n)",
                u64::from(wanted) + reserved
            ),
        }
    }
}

impl Error for DescriptorsError {}

// The errors of accept(2): by name, for the counters, and by whether one connection or the listener failed. `listen/accept.rs` handles
// them.

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

// The reasons for which connections close. Each is counted.

/// Why a connection closed. [`crate::Stats::closes`] counts each reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CloseReason {
    /// The handler closed it, and all output was sent.
    #[default]
    Finished,
    /// The peer sent FIN, and nothing was left to send.
    PeerClosed,
    /// The peer reset the connection, or the network failed.
    Reset,
    /// The handler aborted it: reset.
    Aborted,
    /// The peer acknowledged too little of its output over a window ([`crate::Limits::output_rate_min`]): reset.
    WriteStalled,
    /// The handler took nothing from a full buffer: the message is longer than `buffer_bytes_max`.
    MessageTooLong,
    /// The handler asked for more output space than there is. [`Handler::input`](crate::Handler::input) took nothing and called
    /// [`Context::want_writable`](crate::Context::want_writable) with no output pending, so that `output_high_water_bytes` were free (16 KiB while the buffer
    /// memory is short). It did so before and after a call of [`Handler::writable`](crate::Handler::writable) that wrote nothing. Calling it again would
    /// change nothing and keep a core busy. The cause is a bug of the service, or a limit that is too low for its messages.
    OutputSpaceTooSmall,
    /// The buffer memory was full, and this connection's partial input was evicted (`eviction.rs` says how it is chosen).
    InputEvicted,
    /// The buffer memory was full, and this connection's pending output was evicted: reset.
    OutputEvicted,
    /// The handler panicked in one of this connection's callbacks.
    Panicked,
    /// It was rejected: it was beyond `connections_max`, or the handler called [`Context::refuse`](crate::Context::refuse).
    Refused,
    /// Few slots were free, and it was evicted because it had waited for its peer for the longest, or because its peer had not taken its output
    /// for the longest. The latter is a reset.
    Evicted,
    /// epoll_ctl(2) failed to register the socket.
    RegisterFailed,
    /// An outbound connection failed before it was opened.
    ConnectFailed,
    /// The loop ended, and closed the connections that were still open.
    LoopEnded,
}

impl CloseReason {
    /// The number of reasons.
    pub const COUNT: usize = 15;
    /// All reasons, in the order of their discriminants.
    pub const ALL: [CloseReason; Self::COUNT] = [
        CloseReason::Finished,
        CloseReason::PeerClosed,
        CloseReason::Reset,
        CloseReason::Aborted,
        CloseReason::WriteStalled,
        CloseReason::MessageTooLong,
        CloseReason::OutputSpaceTooSmall,
        CloseReason::InputEvicted,
        CloseReason::OutputEvicted,
        CloseReason::Panicked,
        CloseReason::Refused,
        CloseReason::Evicted,
        CloseReason::RegisterFailed,
        CloseReason::ConnectFailed,
        CloseReason::LoopEnded,
    ];

    /// The name in metrics: lower case, underscores.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            CloseReason::Finished => "finished",
            CloseReason::PeerClosed => "peer_closed",
            CloseReason::Reset => "reset",
            CloseReason::Aborted => "aborted",
            CloseReason::WriteStalled => "write_stalled",
            CloseReason::MessageTooLong => "message_too_long",
            CloseReason::OutputSpaceTooSmall => "output_space_too_small",
            CloseReason::InputEvicted => "input_evicted",
            CloseReason::OutputEvicted => "output_evicted",
            CloseReason::Panicked => "panicked",
            CloseReason::Refused => "refused",
            CloseReason::Evicted => "evicted",
            CloseReason::RegisterFailed => "register_failed",
            CloseReason::ConnectFailed => "connect_failed",
            CloseReason::LoopEnded => "loop_ended",
        }
    }
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
