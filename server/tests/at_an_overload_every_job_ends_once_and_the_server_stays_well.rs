//! More work than the pool can do, from clients that give up: counted, not timed. Each admitted job ends once, the queue keeps its bound, and a
//! job whose client left while it waited never runs (`unbounded-queue`, `queue-order`, `departed-clients`, `no-admission`, `blocked-health-check`).

mod support;

use std::io::{ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use reactor::CloseReason;
use server::answer::{Answer, Work};
use server::http::{Request, Response};
use server::service::Service;
use support::{Client, Serve, Server, Setup, get, until};
use worker_pool::{OutcomeKind, Reason};

/// A job holds its worker for so long: it sleeps, so that the capacity does not depend on what else the machine does.
const JOB: Duration = Duration::from_millis(5);
/// Two workers: 400 jobs a second.
const CAPACITY_PER_SECOND: f64 = 400.0;
const LOAD: Duration = Duration::from_millis(1500);
/// How long clients wait, in turn. At an overload first come, first served reaches the patient ones just before they leave; the others leave while
/// they wait.
const PATIENCE: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(30)];
const QUEUE_JOBS_MAX: u32 = 24;
const WORKERS: u32 = 2;
const CLIENTS_MAX: usize = 4096;

/// What the jobs know of their clients, and find out.
struct Shared {
    /// Set when the server has closed the connection of a client that left.
    gone: Vec<AtomicBool>,
    ran_for_the_gone: AtomicU32,
    ran: AtomicU32,
}

fn service(shared: &Arc<Shared>) -> impl Service + Send + 'static {
    let (shared, mut routes) = (Arc::clone(shared), server::demo::routes(None));
    Serve(move |request: &Request<'_>, now: Instant| {
        let Some(n) = request.query_value("n").and_then(|n| n.parse::<usize>().ok()) else {
            return routes.call(request, now);
        };
        let shared = Arc::clone(&shared);
        Answer::Job(Work::fast(move |checkpoint| {
            shared.ran.fetch_add(1, Ordering::Relaxed);
            if shared.gone[n].load(Ordering::SeqCst) {
                shared.ran_for_the_gone.fetch_add(1, Ordering::Relaxed);
            }
            let begun = Instant::now();
            while begun.elapsed() < JOB && !checkpoint.stop_requested() {
                std::thread::sleep(Duration::from_millis(1));
            }
            Answer::Now(Response::text("done"))
        }))
    })
}

/// A client that has asked.
struct Asked {
    n: usize,
    client: Client,
    at: Instant,
    /// Says that it has no more to say, and waits for its answer however long that takes.
    stays: bool,
}

#[derive(Debug, Default)]
struct Seen {
    asked: u64,
    served: u64,
    refused: u64,
    left: u64,
}

impl Asked {
    /// The status of its answer, if all of its head has come.
    fn look(&mut self) -> Option<u16> {
        let mut piece = [0; 1024];
        match self.client.stream.read(&mut piece) {
            Ok(0) => panic!("a client that waits was closed without an answer"),
            Ok(n) => self.client.received.extend_from_slice(&piece[..n]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return None,
            Err(e) => panic!("a client that waits: {e}"),
        }
        let text = String::from_utf8_lossy(&self.client.received);
        text.contains("\r\n\r\n").then(|| text[9..12].parse().expect("a status"))
    }
}

fn overload(times_capacity: f64) {
    let shared = Arc::new(Shared {
        gone: (0..CLIENTS_MAX).map(|_| AtomicBool::new(false)).collect(),
        ran_for_the_gone: AtomicU32::new(0),
        ran: AtomicU32::new(0),
    });
    let mut setup = Setup::default();
    setup.pool.threads = WORKERS;
    setup.pool.limits.queue_jobs_max = QUEUE_JOBS_MAX;
    let server = Server::start(service(&shared), setup);
    let pool = server.pool.stats();
    let over = AtomicBool::new(false);
    let mut seen = Seen::default();
    std::thread::scope(|scope| {
        let health = scope.spawn(|| {
            let (mut client, mut answered) = (server.connect(), 0_u32);
            while !over.load(Ordering::Relaxed) {
                client.send(get("/healthz"));
                assert_eq!(client.response().text(), "ok\n");
                answered += 1;
            }
            answered
        });
        drive(&server, &shared, times_capacity, &mut seen);
        over.store(true, Ordering::Relaxed);
        assert!(health.join().expect("/healthz was answered") > 0);
    });

    until("every job has ended", || pool.in_flight().total() == 0);
    let ended = |kind| pool.outcomes(kind);
    let rejected: u64 = Reason::ALL.iter().map(|reason| pool.rejections(*reason)).sum();
    assert_eq!(pool.admitted(), OutcomeKind::ALL.iter().map(|kind| ended(*kind)).sum::<u64>(), "each ends once");
    assert_eq!(shared.ran_for_the_gone.load(Ordering::Relaxed), 0, "a job ran whose client was gone before");
    assert!(u64::from(shared.ran.load(Ordering::Relaxed)) < pool.admitted(), "the jobs of the gone never ran");
    assert!(seen.served > 0 && seen.left > 0 && ended(OutcomeKind::Cancelled) > 0, "{seen:?}: this was no overload");
    // Who leaves just when its job is done is counted as left; who left before its request was read is in neither count.
    assert!(seen.served <= ended(OutcomeKind::Done) && seen.refused <= rejected, "{seen:?} {pool:?}");
    assert!(pool.admitted() + rejected <= seen.asked, "{seen:?} {pool:?}");
    assert_eq!(seen.asked, seen.served + seen.refused + seen.left, "everybody was answered or left");
    assert_eq!((ended(OutcomeKind::Panicked), ended(OutcomeKind::Dropped), pool.complete_panics()), (0, 0, 0));
    server.serves();
    let mut client = server.connect();
    client.send(get("/spin?ms=1"));
    assert_eq!(client.response().text(), "spun 1 ms\n", "it works on");
    drop(client);
    server.is_at_rest();
}

/// An open loop; what is late comes late, and nothing waits for an answer.
fn drive(server: &Server, shared: &Shared, times_capacity: f64, seen: &mut Seen) {
    let pool = server.pool.stats();
    let (mut waiting, mut leaving): (Vec<Asked>, Vec<usize>) = (Vec::new(), Vec::new());
    let (begun, mut left_before) = (Instant::now(), 0);
    let every = Duration::from_secs_f64(1.0 / CAPACITY_PER_SECOND / times_capacity);
    while begun.elapsed() < LOAD || !waiting.is_empty() {
        while begun.elapsed() < LOAD && begun + every * seen.asked as u32 <= Instant::now() {
            let n = seen.asked as usize;
            let mut client = server.connect();
            client.send(get(&format!("/work?n={n}")));
            let stays = n.is_multiple_of(15);
            if stays {
                client.half_close();
            }
            client.stream.set_nonblocking(true).expect("a flag");
            waiting.push(Asked { n, client, at: Instant::now(), stays });
            seen.asked += 1;
        }
        // Between two jobs a worker is free for a moment, and as many more wait.
        assert!(pool.in_flight().total() <= QUEUE_JOBS_MAX + WORKERS && pool.depth() <= QUEUE_JOBS_MAX + WORKERS, "{pool:?}");
        let mut still = Vec::new();
        for mut asked in waiting {
            match asked.look() {
                Some(200) => seen.served += 1,
                Some(503) => seen.refused += 1,
                Some(status) => panic!("status {status}"),
                None if asked.stays || asked.at.elapsed() < PATIENCE[asked.n % 2] => still.push(asked),
                None => {
                    leaving.push(asked.n);
                    asked.client.reset();
                    seen.left += 1;
                }
            }
        }
        waiting = still;
        // Only when the server has taken note of all who left, they are gone: nobody else resets a connection.
        if server.stats.closes(CloseReason::Reset).get() == seen.left && seen.left > left_before {
            leaving.drain(..).for_each(|n| shared.gone[n].store(true, Ordering::SeqCst));
            left_before = seen.left;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // All the rest, while their jobs may still wait.
    until("the server knows who has left", || server.stats.closes(CloseReason::Reset).get() == seen.left);
    leaving.drain(..).for_each(|n| shared.gone[n].store(true, Ordering::SeqCst));
}

#[test]
fn at_one_and_a_half_times_the_capacity() {
    overload(1.5);
}

#[test]
fn at_three_times_the_capacity() {
    overload(3.0);
}
