//! A pool of jobs that do what the test decides and report their outcome.

#![allow(dead_code, unreachable_pub)] // Each test file uses a part.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use worker_pool::{Checkpoint, Config, Job, Outcome, Pool, Submitter, Terms};

/// The time after which a test counts as hung, and fails.
pub const HANG_TIMEOUT: Duration = Duration::from_secs(30);

/// What a job does on its thread.
pub type Action = Box<dyn FnMut(&Checkpoint<'_>) -> u32 + Send>;

/// The id and the outcome of a job: one for each call of `complete`.
pub type Answer = (u32, Outcome<u32>);

pub struct TestJob {
    pub id: u32,
    pub action: Action,
    pub answers: Sender<Answer>,
    /// What `complete` does after it has reported.
    pub after: Option<Box<dyn FnOnce() + Send>>,
}

impl Job for TestJob {
    type Output = u32;

    fn run(&mut self, checkpoint: &Checkpoint<'_>) -> u32 {
        (self.action)(checkpoint)
    }

    fn complete(self, outcome: Outcome<u32>) {
        // The receiver may be gone when a test has failed already.
        let _ = self.answers.send((self.id, outcome));
        if let Some(after) = self.after {
            after();
        }
    }
}

/// A pool, and the channel on which its jobs report.
pub struct TestPool {
    pub pool: Pool<TestJob>,
    pub submitter: Submitter<TestJob>,
    pub answers: Sender<Answer>,
    pub ended: Receiver<Answer>,
}

/// Holds a thread until the test opens it.
pub struct Gate {
    open: Sender<()>,
    entered: Receiver<()>,
}

impl Gate {
    /// Blocks the test until a thread is held.
    pub fn wait_entered(&self) {
        self.entered.recv_timeout(HANG_TIMEOUT).expect("no thread entered the gate");
    }

    pub fn open(&self) {
        let _ = self.open.send(());
    }
}

pub fn gate() -> (Gate, Action) {
    let (open, opened) = channel::<()>();
    let (entering, entered) = channel();
    let action = Box::new(move |_: &Checkpoint<'_>| {
        let _ = entering.send(());
        // Also ends when the test drops the gate, so that a failing test does not hang.
        let _ = opened.recv();
        0
    });
    (Gate { open, entered }, action)
}

/// Two threads, a queue of eight jobs, and no limit on the wait: for tests that do not depend on the run time.
pub fn config() -> Config {
    Config::with(|config| {
        config.threads = 2;
        config.limits.queue_jobs_max = 8;
        config.limits.wait_max = Duration::MAX;
    })
}

/// The same with some values changed.
pub fn config_with(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = config();
    change(&mut config);
    config
}

impl TestPool {
    pub fn new(config: Config) -> Self {
        let pool = Pool::start(config).expect("the pool starts");
        let submitter = pool.submitter();
        let (answers, ended) = channel();
        Self { pool, submitter, answers, ended }
    }

    pub fn job(&self, id: u32, action: Action) -> TestJob {
        TestJob { id, action, answers: self.answers.clone(), after: None }
    }

    /// A job that returns its id.
    pub fn plain(&self, id: u32) -> TestJob {
        self.job(id, Box::new(move |_| id))
    }

    pub fn submit(&self, job: TestJob, terms: Terms) -> Result<(), worker_pool::Rejected<TestJob>> {
        self.submitter.try_submit(job, terms, Instant::now())
    }

    /// Submits a job that must be admitted.
    pub fn admit(&self, job: TestJob, terms: Terms) {
        if let Err(refused) = self.submit(job, terms) {
            panic!("job {} was refused: {:?}", refused.job.id, refused.reason);
        }
    }

    /// Holds this many threads, so that the next jobs must wait.
    pub fn hold_threads(&self, threads: u32) -> Vec<Gate> {
        let gates: Vec<Gate> = (0..threads)
            .map(|i| {
                let (gate, action) = gate();
                self.admit(self.job(HOLDER + i, action), Terms::default());
                gate
            })
            .collect();
        gates.iter().for_each(Gate::wait_entered);
        gates
    }

    /// The next `n` answers, by id, without those of jobs that only hold threads.
    pub fn next_answers(&self, n: usize) -> Vec<Answer> {
        let mut answers: Vec<Answer> =
            std::iter::from_fn(|| Some(self.ended.recv_timeout(HANG_TIMEOUT).expect("a job was never answered")))
                .filter(|(id, _)| *id < HOLDER)
                .take(n)
                .collect();
        answers.sort_by_key(|(id, _)| *id);
        answers
    }

    /// Every answer that has not been read, after the pool is gone, when no answer can follow.
    pub fn rest(self) -> Vec<Answer> {
        let Self { pool, submitter, answers, ended } = self;
        drop((pool, submitter, answers));
        std::iter::from_fn(|| ended.recv_timeout(HANG_TIMEOUT).ok()).collect()
    }
}

/// Ids of the jobs that only hold threads start here.
pub const HOLDER: u32 = 1_000_000;
