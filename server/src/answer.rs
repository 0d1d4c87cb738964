//! What a service may answer: now, later, from a worker, after the body, or piece by piece.
//!
//! Read next: `exchange.rs`, which carries each of them out.

use std::time::{Duration, Instant};

use worker_pool::{Checkpoint, Class};

use crate::http::{Response, StreamHead};

/// The answer to one request.
pub enum Answer {
    /// This response, at once.
    Now(Response),
    /// This response at that time, or at the request timeout if that is earlier. No thread waits for it.
    At(Instant, Response),
    /// What a worker finds out. A refused job becomes 503 with Retry-After, one that panics 500, and one whose deadline passes 504.
    Job(Work<Answer>),
    /// The body first, then what the sink says. Where there is none, or it has been read already, the sink is asked at once.
    Read(Box<dyn BodySink>),
    /// A response that is made while it is sent, pulled when there is room.
    Stream {
        /// Status and headers; with the length, if it is known.
        head: StreamHead,
        /// Where the bytes come from.
        source: Box<dyn StreamSource>,
    },
}

/// Takes a request body, piece by piece as it arrives.
pub trait BodySink: Send {
    /// Takes a piece and returns how many bytes of it. All of the pieces together are at most `body_bytes_max`. Less than the whole piece
    /// means: enough. Then [`BodySink::end`] follows at once, and the connection closes after its answer.
    fn take(&mut self, piece: &[u8]) -> usize;

    /// The body is complete, or it was enough, or there was none.
    fn end(self: Box<Self>) -> Answer;
}

/// Makes the body of a response, piece by piece as it is sent.
pub trait StreamSource: Send {
    /// Writes the next bytes into `room`, and returns how many, and what is next. Called only when there is room: a slow reader makes it
    /// rare, and that is the backpressure.
    fn pull(&mut self, room: &mut [u8], now: Instant) -> (usize, Pulled);

    /// The pool did not take the job of a [`Pulled::Job`], or gave it up in the queue; it was dropped and has not run. The pool expects room
    /// after `retry_after`. What is next? By default the stream breaks: its head has gone out, and it is too late for 503.
    fn job_refused(&mut self, retry_after: Duration, now: Instant) -> Pulled {
        let _ = (retry_after, now);
        Pulled::Broken
    }

    /// Whether the request's body goes to [`StreamSource::body`], while the response is already streaming. If not, it is read and dropped
    /// before the response when it is small, and given up when it is not. Asked once, at the beginning.
    fn wants_body(&self) -> bool {
        false
    }

    /// A piece of the request's body. Returns how many bytes were taken from its front. Called only when there is room for at least one;
    /// a last piece may be empty.
    fn body(&mut self, piece: &[u8], last: bool) -> usize {
        let _ = last;
        piece.len()
    }

    /// How many bytes of body [`StreamSource::body`] would take now. At 0 the body stays in the kernel until a [`StreamSource::pull`] has
    /// made room.
    fn body_room_bytes(&self) -> usize {
        usize::MAX
    }
}

/// What follows a [`StreamSource::pull`].
pub enum Pulled {
    /// There is more: pull again when there is room. Said with no bytes given: when there is more room than this.
    More,
    /// These bytes come next, from a worker; then pull again. See [`StreamSource::job_refused`].
    Job(Work<Vec<u8>>),
    /// Pull again at that time.
    At(Instant),
    /// Pull again when body has arrived, or when the connection was woken.
    Wait,
    /// That was all.
    End,
    /// There should be more and will not be. The connection closes short: the peer can tell by the length or by the last chunk that is
    /// missing. (An HTTP/1.0 peer that was promised no length cannot.)
    Broken,
}

/// Work for the pool.
pub struct Work<T> {
    /// Which threads it may use: [`Class::Slow`] for what waits (disk, DNS).
    pub class: Class,
    /// How long the client has use for it; the server's `job_deadline` if none.
    pub deadline: Option<Duration>,
    /// The work itself. Long work asks the checkpoint now and then whether to go on.
    pub run: Run<T>,
}

/// What runs on a worker thread.
pub type Run<T> = Box<dyn FnOnce(&Checkpoint<'_>) -> T + Send>;

impl<T> Work<T> {
    /// Work that burns CPU for a bounded time.
    pub fn fast(run: impl FnOnce(&Checkpoint<'_>) -> T + Send + 'static) -> Work<T> {
        Work { class: Class::Fast, deadline: None, run: Box::new(run) }
    }

    /// Work that waits for something outside: it may hold only a part of the threads.
    pub fn slow(run: impl FnOnce(&Checkpoint<'_>) -> T + Send + 'static) -> Work<T> {
        Work { class: Class::Slow, deadline: None, run: Box::new(run) }
    }

    /// With a deadline of its own.
    #[must_use]
    pub fn within(self, deadline: Duration) -> Work<T> {
        Work { deadline: Some(deadline), ..self }
    }
}
