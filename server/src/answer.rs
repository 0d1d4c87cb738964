//! What a service may answer: now, later, from a worker, after the body, or piece by piece.
//!
//! Read next: `exchange.rs`, which carries each of them out.

use std::time::{Duration, Instant};

use crate::collected::CollectedBody;
use crate::http::{Method, Response, StreamHead};

pub use crate::exchange_limits::AnswerLimits;
pub use reactor::Output;
pub use worker_pool::{Checkpoint, Class};

/// The answer to one request.
///
/// ```
/// use std::time::{Duration, Instant};
/// use server::answer::{Answer, Work};
/// use server::http::{Method, Request, Response};
///
/// fn call(request: &Request<'_>, now: Instant) -> Answer {
///     match (request.method, request.path) {
///         // At once.
///         (Method::Get, "/") => Response::text("hello\n").into(),
///         // In a second. No thread waits for it.
///         (Method::Get, "/later") => Answer::At(now + Duration::from_secs(1), Response::text("hello\n")),
///         // From a worker: what burns CPU, and in the slow class what waits for a disk or a name server.
///         (Method::Get, "/sum") => Answer::job(|_| Response::text((0..1_000_000_u64).sum::<u64>().to_string())),
///         (Method::Get, "/host") => Answer::Job(Work::slow(|_| match std::fs::read_to_string("/etc/hostname") {
///             Ok(name) => Response::text(name).into(),
///             Err(_) => Response::empty(500).into(),
///         })),
///         // After its body of at most 1 KiB; a longer one is answered 413.
///         (Method::Post, "/upper") => Answer::body(1024, |body| Response::bytes(body.to_ascii_uppercase()).into()),
///         _ => Response::not_found().into(),
///     }
/// }
/// ```
pub enum Answer {
    /// This response, at once.
    Now(Response),
    /// This response at that time, or at the exchange's deadline if it has one that is earlier. No thread waits for it.
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
    /// An answer with limits of its own, see [`Answer::with_limits`].
    Limited(Box<Limited>),
}

/// An answer with limits of its own.
pub struct Limited {
    /// The limits.
    pub limits: AnswerLimits,
    /// The answer. If it has limits too, they hold where these set none.
    pub answer: Answer,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Answer {
        Answer::Now(response)
    }
}

impl Answer {
    /// What a worker makes, for work that burns CPU for a bounded time. Work that waits, or has a deadline of its own: [`Answer::Job`].
    pub fn job<A: Into<Answer>>(run: impl FnOnce(&Checkpoint<'_>) -> A + Send + 'static) -> Answer {
        Answer::Job(Work::fast(|checkpoint| run(checkpoint).into()))
    }

    /// The answer to a whole body of at most `bytes_max`; a longer one is answered 413. `then` runs on the loop: what takes time in it goes
    /// into a job of its own. For a body that need not be held as a whole there is [`Answer::Read`].
    pub fn body(bytes_max: usize, then: impl FnOnce(Vec<u8>) -> Answer + Send + 'static) -> Answer {
        Answer::Read(Box::new(Collected { body: CollectedBody::default(), bytes_max, no_memory: false, then }))
    }

    /// The same answer with limits that differ from the server's. An answer that fits the output space at once is finished with the request's
    /// head, so only one without a body keeps none of them.
    #[must_use]
    pub fn with_limits(self, limits: AnswerLimits) -> Answer {
        Answer::Limited(Box::new(Limited { limits, answer: self }))
    }

    /// A response that is made while it is sent. With `length_bytes` if that is known; else it goes in chunks.
    pub fn stream(response: Response, length_bytes: Option<u64>, source: impl StreamSource + 'static) -> Answer {
        Answer::Stream { head: response.into_stream(length_bytes), source: Box::new(source) }
    }

    /// For a path that exists, asked with a method that it does not take: 405 with Allow (RFC 9110 section 15.5.6), 501 for a method that
    /// nobody knows (section 15.6.2), and OPTIONS answered with Allow (section 9.3.7).
    ///
    /// # Panics
    /// If `allow`, the methods that there are (`GET, HEAD, OPTIONS`), has a control byte.
    #[must_use]
    pub fn not_allowed(method: Method, allow: &'static str) -> Answer {
        Answer::Now(match method {
            Method::Options => Response::empty(204).with_header("Allow", allow),
            Method::Other => Response::text("unknown method\n").status(501),
            _ => Response::text("method not allowed\n").status(405).with_header("Allow", allow),
        })
    }
}

/// A whole body in memory, and the function that makes an answer of it.
struct Collected<F> {
    body: CollectedBody,
    bytes_max: usize,
    /// The system had no memory for a piece, and the body is given up.
    no_memory: bool,
    then: F,
}

impl<F: FnOnce(Vec<u8>) -> Answer + Send> BodySink for Collected<F> {
    fn take(&mut self, piece: &[u8]) -> usize {
        self.no_memory = !self.body.append(piece);
        if self.no_memory { 0 } else { piece.len() }
    }

    fn end(self: Box<Self>) -> Answer {
        if self.no_memory { Response::out_of_memory().into() } else { (self.then)(self.body.into_bytes()) }
    }

    fn expect(&mut self, length_bytes: u64) {
        self.body.expect(length_bytes);
    }

    fn memory_bytes(&self, more: usize) -> usize {
        self.body.memory_bytes(more)
    }

    fn bytes_max(&self) -> u64 {
        self.bytes_max as u64
    }
}

/// 413: the body is longer than the service takes.
pub(crate) fn too_long() -> Response {
    Response::text("body too long\n").status(413)
}

/// Takes a request body, piece by piece as it arrives.
pub trait BodySink: Send {
    /// Takes a piece and returns how many bytes of it. All of the pieces together are at most `body_bytes_max`. Less than the whole piece
    /// means: enough. Then [`BodySink::end`] follows at once, and the connection closes after its answer.
    fn take(&mut self, piece: &[u8]) -> usize;

    /// The body is complete, or it was enough, or there was none.
    fn end(self: Box<Self>) -> Answer;

    /// How many bytes of body it takes at most. Asked once. A body that announces more is not asked for (`100 Continue`) and not given to the sink:
    /// [`BodySink::too_long`] is the answer. So it is when a body without a length becomes longer. By default there is no limit but `--body-bytes-max`.
    fn bytes_max(&self) -> u64 {
        u64::MAX
    }

    /// The answer to a body that is longer than [`BodySink::bytes_max`], or than the limits of the answer allow. 413 by default.
    fn too_long(self: Box<Self>) -> Answer {
        too_long().into()
    }

    /// The length of the body, before its first piece, if the request announces one. A body that is sent in chunks has none.
    fn expect(&mut self, length_bytes: u64) {
        let _ = length_bytes;
    }

    /// Bytes of memory that the sink holds after it has taken `more` bytes. The server charges them to the budget of bodies
    /// ([`crate::ledger`]) before it calls [`BodySink::take`], and answers 503 if the budget is spent. The charge stays until the answer of
    /// [`BodySink::end`] no longer needs the body: after the job, if it is one. The default, 0, is for a sink that keeps nothing, or that has a budget of its own.
    fn memory_bytes(&self, more: usize) -> usize {
        let _ = more;
        0
    }
}

/// Makes the body of a response, piece by piece as it is sent.
pub trait StreamSource: Send {
    /// Writes the next bytes to `output`, and returns what is next. Called only when there is output space: a slow reader makes it rare, and
    /// that is the backpressure. `output` counts what is written, so a source cannot send bytes that it has not written.
    fn pull(&mut self, output: &mut Output<'_>, now: Instant) -> Pulled;

    /// The pool did not take the job of a [`Pulled::Job`], or gave it up in the queue; it was dropped and has not run. The pool expects room
    /// after `retry_after`. What is next? By default the stream breaks: its head has gone out, and it is too late for 503.
    fn job_refused(&mut self, retry_after: Duration, now: Instant) -> Pulled {
        let _ = (retry_after, now);
        Pulled::Broken
    }

    /// Whether the request's body goes to [`StreamSource::body`], while the response is already streaming. If not, it is read and dropped
    /// before the response when it is small, and given up when it is not. Asked once, at the beginning.
    ///
    /// If it does, the response begins when the first piece of the body has arrived (or at once, if [`StreamSource::body_room_bytes`] is 0):
    /// a request whose body turns out to be malformed before that gets its 400 (test:
    /// `a_malformed_body_is_answered_400_if_no_byte_of_the_response_was_sent`).
    fn wants_body(&self) -> bool {
        false
    }

    /// A piece of the request's body. Returns how many bytes were taken from its front. Called only when there is room for at least one;
    /// a last piece may be empty.
    fn body(&mut self, piece: &[u8], last: bool) -> usize {
        let _ = last;
        piece.len()
    }

    /// Bytes of memory that the source may hold at most. Charged to the budget of bodies ([`crate::ledger`]) while the stream lasts. If the
    /// budget is spent, the client gets 503 instead of the stream.
    fn memory_bytes_max(&self) -> usize {
        0
    }

    /// How many bytes of body [`StreamSource::body`] would take now. At 0 the body stays in the kernel until a [`StreamSource::pull`] has
    /// made room.
    fn body_room_bytes(&self) -> usize {
        usize::MAX
    }
}

/// What follows a [`StreamSource::pull`].
pub enum Pulled {
    /// There is more: pull again when there is room. If nothing was written: when there is more space than this.
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
    /// missing. (An HTTP/1.0 peer that was promised no length cannot: it gets a reset.)
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
