//! What the pool itself costs: a rejection, and an empty job from submit to answer.
//!
//! `cargo run --release -p worker-pool --example cost`

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use worker_pool::{Checkpoint, Config, Job, Outcome, Pool, Terms};

/// Does nothing, or holds its thread until the sender is dropped.
struct Nothing {
    hold: Option<Receiver<()>>,
    done: Sender<()>,
}

impl Job for Nothing {
    type Output = ();
    fn run(&mut self, _: &Checkpoint<'_>) {
        if let Some(hold) = &self.hold {
            let _ = hold.recv();
        }
    }
    fn complete(self, _: Outcome<()>) {
        let _ = self.done.send(());
    }
}

const ROUNDS: u32 = 200_000;

fn main() -> io::Result<()> {
    let pool = Pool::start(Config::with(|config| {
        config.threads = 2;
        config.limits.queue_jobs_max = 1024;
        config.limits.wait_max = Duration::MAX;
    }))?;
    let submitter = pool.submitter();
    let (done, dones) = channel();
    let now = Instant::now();

    let one_by_one = time(ROUNDS / 10, || {
        let job = Nothing { hold: None, done: done.clone() };
        assert!(submitter.try_submit(job, Terms::default(), now).is_ok());
        let _ = dones.recv();
    });
    println!("one empty job at a time, submit to answer: {one_by_one:?}");

    let begun = Instant::now();
    let (mut admitted, mut answered) = (0, 0);
    while answered < ROUNDS {
        let job = Nothing { hold: None, done: done.clone() };
        if admitted < ROUNDS && submitter.try_submit(job, Terms::default(), now).is_ok() {
            admitted += 1;
        }
        answered += u32::try_from(dones.try_iter().count()).unwrap_or(0);
    }
    println!("{ROUNDS} empty jobs through a queue of 1024: {:?} each", begun.elapsed() / ROUNDS);

    let (release, mut holds) = (0..2).map(|_| channel::<()>()).unzip::<_, _, Vec<_>, Vec<_>>();
    while let Some(hold) = holds.pop() {
        let job = Nothing { hold: Some(hold), done: done.clone() };
        assert!(submitter.try_submit(job, Terms::default(), now).is_ok());
    }
    while submitter.try_submit(Nothing { hold: None, done: done.clone() }, Terms::default(), now).is_ok() {}
    let refused = time(ROUNDS, || {
        let job = Nothing { hold: None, done: done.clone() };
        assert!(submitter.try_submit(job, Terms::default(), now).is_err());
    });
    println!("a rejection by a full pool: {refused:?}");
    drop(release);
    pool.shutdown(Duration::from_secs(10));
    Ok(())
}

fn time(rounds: u32, mut each: impl FnMut()) -> Duration {
    let begun = Instant::now();
    (0..rounds).for_each(|_| each());
    begun.elapsed() / rounds
}
