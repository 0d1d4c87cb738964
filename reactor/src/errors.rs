//! Why a configuration cannot work: [`ConfigError`] for the limits of a loop, [`DescriptorsError`] for the descriptor limit of the process.

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
