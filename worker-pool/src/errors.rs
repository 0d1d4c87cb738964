//! Why a pool cannot be started.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

/// A value in a configuration that cannot work. The message names the value and what is allowed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ConfigError {
    /// No worker threads, or more than allowed.
    Threads {
        /// The value.
        threads: u32,
        /// The most that is allowed.
        threads_max: u32,
    },
    /// No slot in the queue, or more than allowed.
    QueueJobsMax {
        /// The value.
        queue_jobs_max: u32,
        /// The most that is allowed.
        allowed_max: u32,
    },
    /// Not an increment that setpriority(2) knows: 0 to 19.
    NiceIncrement {
        /// The value.
        nice_increment: i32,
    },
    /// A sample of none or of all is not a sample: 1 to 99.
    SampleKeepPercent {
        /// The value.
        keep_percent: u8,
    },
    /// CoDel's target is zero, or is not below its interval.
    CoDel {
        /// The target.
        target: Duration,
        /// The interval.
        interval: Duration,
    },
    /// Not above 0 and at most 1.
    GradientSmoothing {
        /// The value.
        smoothing: f64,
    },
    /// Not a number of at least 1.
    GradientRttTolerance {
        /// The value.
        rtt_tolerance: f64,
    },
    /// A window without samples, or a long mean without windows.
    GradientWindows {
        /// Windows in the long mean.
        long_windows: u32,
        /// Samples in a window.
        window_samples_min: u32,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Threads { threads, threads_max } => write!(f, "worker threads: {threads} is not in 1..={threads_max}"),
            Self::QueueJobsMax { queue_jobs_max, allowed_max } => write!(f, "queue_jobs_max: {queue_jobs_max} is not in 1..={allowed_max}"),
            Self::NiceIncrement { nice_increment } => write!(f, "nice_increment: {nice_increment} is not in 0..=19"),
            Self::SampleKeepPercent { keep_percent } => write!(f, "keep_percent: {keep_percent} is not in 1..=99"),
            Self::CoDel { target, interval } => write!(f, "CoDel: target {target:?} must be above zero and below interval {interval:?}"),
            Self::GradientSmoothing { smoothing } => write!(f, "gradient smoothing: {smoothing} is not above 0 and at most 1"),
            Self::GradientRttTolerance { rtt_tolerance } => {
                write!(f, "gradient rtt_tolerance: {rtt_tolerance} is not a number of at least 1")
            }
            Self::GradientWindows { long_windows, window_samples_min } => {
                write!(f, "gradient: long_windows {long_windows} and window_samples_min {window_samples_min} must be at least 1")
            }
        }
    }
}

impl Error for ConfigError {}

impl From<ConfigError> for io::Error {
    fn from(error: ConfigError) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

/// Why [`Pool::start`](crate::Pool::start) failed. No thread of the pool is left.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration cannot work.
    Config(ConfigError),
    /// The system did not start a thread: pthread_create(3), `EAGAIN`.
    Thread {
        /// The thread's name.
        name: String,
        /// What the system says.
        source: io::Error,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Thread { name, source } => write!(f, "starting thread {name}: {source}"),
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Config(_) => None, // Its message is this error's message.
            Self::Thread { source, .. } => Some(source),
        }
    }
}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<StartError> for io::Error {
    fn from(error: StartError) -> Self {
        let kind = match &error {
            StartError::Config(_) => io::ErrorKind::InvalidInput,
            StartError::Thread { source, .. } => source.kind(),
        };
        Self::new(kind, error)
    }
}
