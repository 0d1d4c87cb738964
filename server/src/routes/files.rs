//! `GET /files/PATH`: a file from beneath the root, whole, in part, or not at all if the client has it (`conditional.rs`).
//!
//! Every call that touches the disk is a job: a loop that reads a file stalls with the disk (`file-stall`), and no readiness event tells when it
//! would not. One piece of each file is in flight, no longer than the output space: a slow reader makes the reads rare.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::conditional::{Conditions, Selected, Validators};
use crate::answer::{Answer, Output, Pulled, StreamSource, Work};
use crate::beneath::open_beneath;
use crate::clock::later;
use crate::http::{Request, Response, percent_decode};

/// Pause before a piece is requested again that the pool had no capacity for. With more downloads than the pool takes slow jobs, they take turns.
const RETRY_AFTER_MIN: Duration = Duration::from_millis(10);

/// `path`: what follows `/files/`, percent-encoded.
pub(super) fn call(root: Option<&Arc<Path>>, path: &str, request: &Request<'_>) -> Answer {
    let Some(root) = root else {
        return Answer::Now(Response::text("no files are served here\n").status(404));
    };
    let Ok(path) = percent_decode(path) else {
        return Answer::Now(Response::text("broken percent-encoding\n").status(400));
    };
    let (root, path, conditions) = (Arc::clone(root), path.into_owned(), Conditions::of(request));
    Answer::Job(Work::slow(move |_| match open(&root, &path) {
        Ok(opened) => answer(opened, &path, &conditions),
        Err(e) => Answer::Now(refusal(&e)),
    }))
}

fn answer(opened: Opened, path: &str, conditions: &Conditions) -> Answer {
    let Opened { file, length_bytes, modified } = opened;
    let validators = Validators::new(modified, length_bytes, SystemTime::now());
    let described = |response: Response| {
        let fields = [("ETag", validators.etag.clone()), ("Last-Modified", validators.last_modified())];
        fields.into_iter().try_fold(response, |response, (name, value)| response.header(name, value))
    };
    let content = |status| {
        let head = Response::empty(status).content_type(content_type(path)).with_header("X-Content-Type-Options", "nosniff");
        described(head.with_header("Accept-Ranges", "bytes"))
    };
    let (head, bytes) = match conditions.select(&validators, length_bytes) {
        Selected::Whole => (content(200), 0..length_bytes),
        Selected::Part(bytes) => {
            let range = format!("bytes {}-{}/{length_bytes}", bytes.start, bytes.end - 1);
            (content(206).and_then(|head| head.header("Content-Range", range)), bytes)
        }
        Selected::Changed => {
            return described(Response::text("the file is another one\n").status(412)).unwrap_or_else(|_| Response::empty(500)).into();
        }
        Selected::NotModified => return described(Response::empty(304)).unwrap_or_else(|_| Response::empty(500)).into(),
        Selected::NotSatisfiable => {
            let response = Response::text("range not satisfiable\n").status(416);
            return response.header("Content-Range", format!("bytes */{length_bytes}")).unwrap_or_else(|_| Response::empty(500)).into();
        }
    };
    match head {
        Ok(head) => {
            let head = head.into_stream(Some(bytes.end - bytes.start));
            Answer::Stream { head, source: Box::new(Pieces::new(file, bytes)) }
        }
        Err(_) => unreachable!("no value here has a control byte"),
    }
}

/// A file, and what fstat(2) said of it.
struct Opened {
    file: File,
    length_bytes: u64,
    modified: SystemTime,
}

/// The root is opened anew each time, so that a deployment which swaps the directory is seen.
fn open(root: &Path, path: &str) -> io::Result<Opened> {
    let path = if path.is_empty() { "." } else { path };
    let file = open_beneath(&File::open(root)?, path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        // A directory, a device, a pipe: reading it would mean something else, or never end.
        return Err(ErrorKind::PermissionDenied.into());
    }
    Ok(Opened { length_bytes: metadata.len(), modified: metadata.modified()?, file })
}

fn refusal(error: &io::Error) -> Response {
    let (status, text) = match (error.kind(), error.raw_os_error()) {
        (ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename, _) => (404, "not found\n"),
        // EXDEV: `..`, an absolute path or a symlink leads out. ELOOP: a magic link, or links in a circle. ENXIO: a socket. openat2(2).
        (ErrorKind::PermissionDenied, _) | (_, Some(libc::EXDEV | libc::ELOOP | libc::ENXIO)) => (403, "forbidden\n"),
        (_, Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EAGAIN)) => {
            return Response::text("busy\n").status(503).with_header("Retry-After", "1");
        }
        _ => {
            log::warn!("cannot open a file error={error:?}");
            (500, "cannot open the file\n")
        }
    };
    Response::text(text).status(status)
}

/// What workers share with the stream, which may close it on the loop: close(2) of a file that was only read writes nothing back. One job at a time has it: the numbers are atomic because the job runs on another thread, and its
/// completion, which comes by mail, orders them.
struct Shared {
    file: File,
    /// Where the next piece begins.
    next_byte: AtomicU64,
    is_broken: AtomicBool,
}

struct Pieces {
    shared: Arc<Shared>,
    end_byte: u64,
}

impl Pieces {
    fn new(file: File, bytes: Range<u64>) -> Pieces {
        let shared = Shared { file, next_byte: AtomicU64::new(bytes.start), is_broken: AtomicBool::new(false) };
        Pieces { shared: Arc::new(shared), end_byte: bytes.end }
    }
}

impl StreamSource for Pieces {
    fn pull(&mut self, output: &mut Output<'_>, _now: Instant) -> Pulled {
        let from = self.shared.next_byte.load(Ordering::Relaxed);
        if self.shared.is_broken.load(Ordering::Relaxed) {
            return Pulled::Broken;
        }
        let left_bytes = usize::try_from(self.end_byte - from).unwrap_or(usize::MAX);
        if left_bytes == 0 {
            return Pulled::End;
        }
        let shared = Arc::clone(&self.shared);
        let piece_bytes = left_bytes.min(output.space());
        Pulled::Job(Work::slow(move |_| shared.read(from, piece_bytes)))
    }

    fn job_refused(&mut self, retry_after: Duration, now: Instant) -> Pulled {
        Pulled::At(later(now, retry_after.max(RETRY_AFTER_MIN)))
    }
}

impl Shared {
    /// At most `piece_bytes` from there. Nothing, and the mark that it is broken, when the file has become shorter than was promised or
    /// cannot be read: the response then ends short of its Content-Length, which is all that can still be said.
    fn read(&self, from: u64, piece_bytes: usize) -> Vec<u8> {
        let mut piece = vec![0; piece_bytes];
        let result = loop {
            match self.file.read_at(&mut piece, from) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        let bytes = result.unwrap_or_else(|e| {
            log::warn!("cannot read a file error={e:?}");
            0
        });
        piece.truncate(bytes);
        self.next_byte.store(from + bytes as u64, Ordering::Relaxed);
        self.is_broken.store(bytes == 0, Ordering::Relaxed);
        piece
    }
}

/// By the ending of the name. What is not listed must not be guessed by the browser either: hence nosniff above.
fn content_type(path: &str) -> &'static str {
    let extension = Path::new(path).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "txt" | "md" | "log" => "text/plain; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "json" => "application/json",
        "xml" => "application/xml",
        "pdf" => "application/pdf",
        "wasm" => "application/wasm",
        "gz" => "application/gzip",
        "zip" => "application/zip",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "ico" => "image/vnd.microsoft.icon",
        "woff2" => "font/woff2",
        "mp4" => "video/mp4",
        _ => "application/octet-stream",
    }
}
