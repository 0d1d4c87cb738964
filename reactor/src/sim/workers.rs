//! Simulated workers: each job is an actor that ends at its time, early or late, and then sends mail or drops the room it had.

use std::fmt::Write as _;

use super::os::SimStream;
use super::world::World;
use crate::Reserved;

/// What a worker sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mail {
    /// For which connection of the service: never the same number twice.
    pub(crate) conn: u32,
    /// For which of its exchanges.
    pub(crate) exchange: u32,
}

/// A job at work.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) room: Option<Reserved<Mail, SimStream>>,
    pub(crate) mail: Mail,
    /// Whose job it is.
    pub(crate) of_loop: usize,
    /// It ends without a word.
    pub(crate) is_lost: bool,
}

impl World {
    pub(crate) fn job_ends(&mut self, job: u32) {
        let job = &mut self.jobs[job as usize];
        let (mail, is_lost, of_loop) = (job.mail, job.is_lost, job.of_loop);
        let Some(room) = job.room.take() else { return };
        self.note(|line, _| {
            let _ = write!(line, "    a worker {} for connection {}", if is_lost { "gives up" } else { "sends mail" }, mail.conn);
        });
        if is_lost {
            return drop(room);
        }
        // Whatever wake-up has failed before, this one wakes the loop or fails itself.
        self.kernel.epolls[of_loop].waker.forgive();
        if room.send(mail).is_ok() {
            self.loops[of_loop].mail_sent += 1;
        }
    }
}
