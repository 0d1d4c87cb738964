//! What went wrong with a request, and when: the phase it was in and the errno or kind, with one line on the likely cause.
//!
//! "Socket errors: read 3268" names no cause; `3268  first byte ECONNRESET  the server closed …` does. Read next: `histogram.rs`.

use std::io;
use std::time::Duration;

use reactor::CloseReason;

use crate::units::{as_us, microseconds};

/// How far a request had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// A connection was being made for it, or it waited for one that did not come.
    Connect,
    /// Part of it was written.
    Write,
    /// It was written; no byte of the answer had come.
    FirstByte,
    /// The answer had begun.
    Body,
    /// No request was under way on the connection.
    Idle,
}

impl Phase {
    /// The name in reports.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Phase::Connect => "connect",
            Phase::Write => "write",
            Phase::FirstByte => "first byte",
            Phase::Body => "body",
            Phase::Idle => "idle",
        }
    }
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The system said so: its errno.
    Errno(i32),
    /// It took longer than `--timeout` (or, for a connection, `--connect-timeout`).
    Timeout,
    /// The server closed the connection in order, before a byte of the answer.
    Closed,
    /// The server closed the connection in the middle of an answer.
    ShortBody,
    /// The answer was complete, and not the one expected.
    WrongBody,
    /// The answer was no HTTP: why.
    NotHttp(&'static str),
    /// A status of 400 or above.
    Status(u16),
    /// The generator itself had no place for a connection: old ones have not finished closing.
    NoSlot,
}

/// The errnos that a client meets, by name.
const ERRNO_NAMES: &[(i32, &str)] = &[
    (libc::ECONNREFUSED, "ECONNREFUSED"),
    (libc::ECONNRESET, "ECONNRESET"),
    (libc::ECONNABORTED, "ECONNABORTED"),
    (libc::EPIPE, "EPIPE"),
    (libc::ETIMEDOUT, "ETIMEDOUT"),
    (libc::EADDRNOTAVAIL, "EADDRNOTAVAIL"),
    (libc::EADDRINUSE, "EADDRINUSE"),
    (libc::EMFILE, "EMFILE"),
    (libc::ENFILE, "ENFILE"),
    (libc::ENOBUFS, "ENOBUFS"),
    (libc::ENOMEM, "ENOMEM"),
    (libc::EHOSTUNREACH, "EHOSTUNREACH"),
    (libc::ENETUNREACH, "ENETUNREACH"),
    (libc::EACCES, "EACCES"),
    (libc::EPERM, "EPERM"),
    (libc::EINVAL, "EINVAL"),
];

impl Kind {
    /// The kind of a system error. The reactor's own connect deadline has no errno: it is a timeout.
    #[must_use]
    pub fn of(error: &io::Error) -> Kind {
        match error.raw_os_error() {
            Some(errno) => Kind::Errno(errno),
            None if error.kind() == io::ErrorKind::TimedOut => Kind::Timeout,
            None if error.kind() == io::ErrorKind::ConnectionReset => Kind::Errno(libc::ECONNRESET),
            None => Kind::NoSlot, // The reactor's own refusal: `connections_max`.
        }
    }

    /// The kind of an end of the connection that the loop reports.
    #[must_use]
    pub fn of_close(reason: CloseReason) -> Kind {
        match reason {
            CloseReason::Reset => Kind::Errno(libc::ECONNRESET),
            CloseReason::WriteStalled => Kind::Timeout,
            CloseReason::MessageTooLong => Kind::NotHttp("a head over 64 KiB"),
            CloseReason::InputEvicted | CloseReason::OutputEvicted => Kind::Errno(libc::ENOBUFS),
            _ => Kind::Closed,
        }
    }

    /// The name in reports: `ECONNRESET`, `timeout`, `status 503`.
    #[must_use]
    pub fn label(self) -> String {
        match self {
            Kind::Errno(errno) => match ERRNO_NAMES.iter().find(|(number, _)| *number == errno) {
                Some((_, name)) => (*name).to_owned(),
                None => format!("errno {errno}"),
            },
            Kind::Timeout => "timeout".to_owned(),
            Kind::Closed => "closed".to_owned(),
            Kind::ShortBody => "short body".to_owned(),
            Kind::WrongBody => "wrong body".to_owned(),
            Kind::NotHttp(_) => "not HTTP".to_owned(),
            Kind::Status(status) => format!("status {status}"),
            Kind::NoSlot => "no slot".to_owned(),
        }
    }

    /// The errno, if it is one.
    #[must_use]
    pub const fn errno(self) -> Option<i32> {
        match self {
            Kind::Errno(errno) => Some(errno),
            _ => None,
        }
    }
}

/// One line: the likely cause of this kind of failure in this phase.
#[must_use]
pub fn cause(phase: Phase, kind: Kind) -> String {
    let text = match (phase, kind) {
        (_, Kind::NotHttp(why)) => return format!("the server sent {why}"),
        (_, Kind::Errno(libc::ECONNREFUSED)) => "no server listens there; is the server still running?",
        (Phase::Connect, Kind::Timeout) => "the accept queue is full, or the server does not accept: look at Recv-Q in `ss -lnt`",
        (_, Kind::Errno(libc::EADDRNOTAVAIL)) => "no free port for this source and target: see `sysctl net.ipv4.ip_local_port_range`",
        (_, Kind::Errno(libc::EMFILE)) => "the generator has no descriptor left: raise `ulimit -n`",
        (_, Kind::Errno(libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)) => "the whole system is out of descriptors or memory",
        (_, Kind::NoSlot) => "the generator's old connections are still closing: the server does not close its side",
        (Phase::Connect, _) => "the connection could not be made",
        (Phase::Write, Kind::Timeout) => "the server does not read: its receive buffer is full",
        (Phase::FirstByte, Kind::Timeout) => "no answer came: the server is stalled or overloaded",
        (_, Kind::Timeout) => "the answer began and did not end in time",
        (Phase::FirstByte | Phase::Write, Kind::Errno(libc::ECONNRESET | libc::EPIPE) | Kind::Closed) => {
            "the server closed the connection instead of answering: idle timeout, crash or limit"
        }
        (Phase::Idle, _) => "the server ended a connection on which nothing was under way",
        (_, Kind::Errno(libc::ECONNRESET | libc::EPIPE)) => "the server reset the connection in the middle of an answer",
        (_, Kind::Closed | Kind::ShortBody) => "the server closed before the end of the answer",
        (_, Kind::WrongBody) => "the answer is not what was asked for: corrupted or another request's",
        (_, Kind::Status(503)) => "the server refused work it could not do in time",
        (_, Kind::Status(429)) => "the server limits this client's rate",
        (_, Kind::Status(500..=599)) => "the server failed",
        (_, Kind::Status(_)) => "the server refused this request: check method, path and headers",
        (_, Kind::Errno(_)) => "see errno(3)",
    };
    text.to_owned()
}

/// The part of the time-out for which a request must have been sent, if the server is to be named as the cause of its time-out.
const OUT_SHARE_MIN: f64 = 0.8;

/// The likely cause of those failures, for requests with that time-out. A time-out names the server only if the requests had been sent long
/// enough before it. Test: `the_cause_of_a_time_out_depends_on_how_long_the_request_had_been_sent`.
#[must_use]
pub fn hint(phase: Phase, kind: Kind, error: &ErrorCount, timeout: Duration) -> String {
    match (phase, kind, error.out) {
        (Phase::FirstByte | Phase::Body, Kind::Timeout, Some((short, long))) => {
            let text = |time: Duration| microseconds(as_us(time));
            let times = if text(short) == text(long) { text(long) } else { format!("{} to {}", text(short), text(long)) };
            if short.as_secs_f64() >= timeout.as_secs_f64() * OUT_SHARE_MIN {
                format!("{}, {times} after it was sent", cause(phase, kind))
            } else {
                format!("sent only {times} before the time-out, after a wait for a connection: see the verdict")
            }
        }
        _ => cause(phase, kind),
    }
}

/// How often one kind of failure happened in one phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCount {
    /// How often.
    pub count: u64,
    /// When first, since the start of the run.
    pub first_at: Duration,
    /// The shortest and the longest time for which these requests had been sent when they failed; `None` if none had been.
    pub out: Option<(Duration, Duration)>,
}

impl ErrorCount {
    /// Adds failures of the same phase and kind.
    pub fn add(&mut self, other: &ErrorCount) {
        self.count += other.count;
        self.first_at = self.first_at.min(other.first_at);
        self.out = match (self.out, other.out) {
            (Some((low, high)), Some((other_low, other_high))) => Some((low.min(other_low), high.max(other_high))),
            (mine, theirs) => mine.or(theirs),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_named_by_its_errno() {
        assert_eq!(Kind::of(&io::Error::from_raw_os_error(libc::ECONNRESET)).label(), "ECONNRESET");
        assert_eq!(Kind::of(&io::Error::from_raw_os_error(77)).label(), "errno 77");
        assert_eq!(Kind::of(&io::Error::from(io::ErrorKind::TimedOut)), Kind::Timeout);
        assert_eq!(Kind::Status(503).label(), "status 503");
    }

    #[test]
    fn every_phase_and_kind_has_a_cause_of_one_line() {
        let kinds = [
            Kind::NoSlot,
            Kind::Timeout,
            Kind::Closed,
            Kind::ShortBody,
            Kind::WrongBody,
            Kind::NotHttp("a head over 32 KiB"),
            Kind::Status(404),
            Kind::Status(500),
        ];
        let errnos = ERRNO_NAMES.iter().map(|(errno, _)| Kind::Errno(*errno));
        for kind in kinds.into_iter().chain(errnos) {
            for phase in [Phase::Connect, Phase::Write, Phase::FirstByte, Phase::Body, Phase::Idle] {
                let cause = cause(phase, kind);
                assert!(!cause.is_empty() && !cause.contains('\n') && cause.len() < 110, "{phase:?} {kind:?}: {cause}");
            }
        }
    }

    #[test]
    fn the_cause_of_a_time_out_depends_on_how_long_the_request_had_been_sent() {
        let seconds = Duration::from_secs;
        let hint = |short, long| {
            let error = ErrorCount { count: 1, first_at: Duration::ZERO, out: Some((seconds(short), seconds(long))) };
            super::hint(Phase::FirstByte, Kind::Timeout, &error, seconds(5))
        };
        assert_eq!(hint(5, 5), "no answer came: the server is stalled or overloaded, 5.00s after it was sent");
        assert_eq!(hint(1, 5), "sent only 1.00s to 5.00s before the time-out, after a wait for a connection: see the verdict");
    }
}
