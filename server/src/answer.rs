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
    /// What a worker finds out. A refused job becomes 503 with Retry-After.
    Job(Work<Answer>),
    /// The body first, then what the sink says.
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
    /// Takes from the front of `piece` and returns how many bytes. All of the pieces together are at most `body_bytes_max`.
    fn take(&mut self, piece: &[u8]) -> usize;

    /// The body is complete.
    fn end(self: Box<Self>) -> Answer;
}

/// Makes the body of a response, piece by piece as it is sent.
pub trait StreamSource: Send {
    /// Writes the next bytes into `room`, and returns how many, and what is next. Called only when there is room: a slow reader makes it
    /// rare, and that is the backpressure.
    fn pull(&mut self, room: &mut [u8], now: Instant) -> (usize, Pulled);

    /// A piece of the request's body, while the response is already streaming. Returns how many bytes were taken from its front; after
    /// less than all, no more comes before the next [`StreamSource::pull`]. By default the body is read and forgotten.
    fn body(&mut self, piece: &[u8], last: bool) -> usize {
        let _ = last;
        piece.len()
    }

    /// How many bytes of body [`StreamSource::body`] would take now.
    fn body_room_bytes(&self) -> usize {
        usize::MAX
    }
}

/// What follows a [`StreamSource::pull`].
pub enum Pulled {
    /// There is more: pull again when there is room.
    More,
    /// These bytes come next, from a worker; then pull again.
    Job(Work<Vec<u8>>),
    /// Pull again at that time.
    At(Instant),
    /// Pull again when body has arrived, or when the connection was woken.
    Wait,
    /// That was all.
    End,
    /// There should be more and will not be. The connection closes short, so that the peer can tell.
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
