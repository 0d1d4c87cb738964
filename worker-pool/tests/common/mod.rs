//! A job whose every move the test decides, and which reports how it ended.

#![allow(dead_code, unreachable_pub)] // Each test file uses a part.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use worker_pool::{Checkpoint, Config, Job, Limits, Outcome, Pool, Submitter, Terms};

/// Longer than anything here takes. Only a hang gets that far, and then the test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What a job does on its thread.
pub type Action = Box<dyn FnMut(&Checkpoint<'_>) -> u32 + Send>;

/// How job `id` ended, told once for each call of `complete`.
pub type Ending = (u32, Outcome<u32>);

pub struct TestJob {
    pub id: u32,
    pub action: Action,
    pub endings: Sender<Ending>,
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
        let _ = self.endings.send((self.id, outcome));
        if let Some(after) = self.after {
            after();
        }
    }
}

/// A pool and the place where its jobs report.
pub struct Bench {
    pub pool: Pool<TestJob>,
    pub submitter: Submitter<TestJob>,
    pub endings: Sender<Ending>,
    pub ended: Receiver<Ending>,
}

/// Holds a thread until it is told to go on.
pub struct Gate {
    open: Sender<()>,
    entered: Receiver<()>,
}

impl Gate {
    /// Blocks the test until a thread stands in the gate.
    pub fn wait_entered(&self) {
        self.entered.recv_timeout(PATIENCE).expect("no thread entered the gate");
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

/// Two threads, eight places, and no judging by time: for tests of everything else.
pub fn config() -> Config {
    let limits = Limits { queue_jobs_max: 8, wait_max: Duration::MAX, ..Limits::default() };
    Config { threads: 2, limits, ..Config::default() }
}

impl Bench {
    pub fn new(config: Config) -> Self {
        let pool = Pool::start(config).expect("the pool starts");
        let submitter = pool.submitter();
        let (endings, ended) = channel();
        Self { pool, submitter, endings, ended }
    }

    pub fn job(&self, id: u32, action: Action) -> TestJob {
        TestJob { id, action, endings: self.endings.clone(), after: None }
    }

    /// A job that returns its id.
    pub fn plain(&self, id: u32) -> TestJob {
        self.job(id, Box::new(move |_| id))
    }

    pub fn submit(&self, job: TestJob, terms: Terms) -> Result<(), worker_pool::Rejected<TestJob>> {
        self.submitter.try_submit(job, terms, Instant::now())
    }

    /// Submits what must be admitted.
    pub fn admit(&self, job: TestJob, terms: Terms) {
        if let Err(refused) = self.submit(job, terms) {
            panic!("job {} was refused: {:?}", refused.job.id, refused.reason);
        }
    }

    /// Holds every thread, so that what is submitted next must wait.
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

    /// The next `n` endings, by id; the holders' left out.
    pub fn next_endings(&self, n: usize) -> Vec<Ending> {
        let mut endings: Vec<Ending> = std::iter::from_fn(|| Some(self.ended.recv_timeout(PATIENCE).expect("a job was never answered")))
            .filter(|(id, _)| *id < HOLDER)
            .take(n)
            .collect();
        endings.sort_by_key(|(id, _)| *id);
        endings
    }

    /// Every ending that has not been read, after all of the pool is gone: nothing can follow.
    pub fn rest(self) -> Vec<Ending> {
        let Self { pool, submitter, endings, ended } = self;
        drop((pool, submitter, endings));
        std::iter::from_fn(|| ended.recv_timeout(PATIENCE).ok()).collect()
    }
}

/// Ids of the jobs that only hold threads start here.
pub const HOLDER: u32 = 1_000_000;
