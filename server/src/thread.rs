//! Threads: starting one, the CPU time of the calling one, and the slices that the scheduler gives it.
//!
//! The load generator asks here too. Read next: `run.rs`, which starts the loops.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::{cgroup, process};

pub use crate::sys::ask_for_slices;

/// Starts a thread with a name, which `ps -T` and the log show. At most 15 bytes of it (prctl(2), `PR_SET_NAME`).
///
/// # Errors
/// pthread_create(3), as [`cannot_start`] describes it.
pub(crate) fn start(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(body);
    started.map(drop).map_err(|e| cannot_start(name, &e))
}

/// Describes the failure to start a thread: its name, what the system says, and the limit that is the likely reason. The system says only
/// "Resource temporarily unavailable" (`EAGAIN`) for all of these limits. Test: `a_limit_of_threads_is_named_with_the_thread_that_did_not_start`.
pub(crate) fn cannot_start(name: &str, error: &io::Error) -> io::Error {
    let reason = if error.kind() == io::ErrorKind::WouldBlock { likely_limit(Path::new(cgroup::SYSTEM)) } else { String::new() };
    io::Error::new(error.kind(), format!("cannot start the thread {name}: {error}{reason}"))
}

/// The limits of clone(2), `EAGAIN`, the nearest one first: the control group's, the user's, the machine's.
fn likely_limit(system: &Path) -> String {
    if let Some((limit, now)) = cgroup::threads_max(system).filter(|(limit, now)| *now >= limit.value) {
        return format!("; the control group {} has {now} of {} threads (pids.max)", limit.group.display(), limit.value);
    }
    match process::user_threads_max(system) {
        Some(threads_max) => format!("; the likely limit: this user may have {threads_max} threads and processes (ulimit -u)"),
        None => "; likely limits: kernel.threads-max, kernel.pid_max, or memory for the stack".to_owned(),
    }
}

/// CPU time that the calling thread has used, in user mode and in the kernel (`CLOCK_THREAD_CPUTIME_ID`, clock_gettime(2)).
#[must_use]
pub fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.try_into().unwrap_or_default() // The clock begins at zero with the thread.
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_works_uses_cpu_time_and_one_that_waits_does_not() {
        let before = cpu_time();
        let mut rounds = 0_u64;
        while cpu_time() < before + Duration::from_millis(2) {
            rounds = std::hint::black_box(rounds + 1);
        }
        assert!(rounds > 0);
        let waited = std::thread::spawn(|| {
            let before = cpu_time();
            std::thread::park_timeout(Duration::from_millis(50));
            cpu_time() - before
        });
        assert!(waited.join().expect("no panic") < Duration::from_millis(50), "the wait is not among it");
    }

    #[test]
    fn the_likely_limit_of_threads_is_the_group_s_if_it_is_full_and_else_the_user_s() {
        let system = tempfile::tempdir().expect("a directory");
        let write = |path: &str, content: &str| {
            let path = system.path().join(path);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("mkdir");
            std::fs::write(path, content).expect("written");
        };
        assert!(likely_limit(system.path()).contains("kernel.threads-max"));
        write(
            "proc/self/limits",
            "Limit   Soft Limit   Hard Limit   Units\nMax processes             12                   20                   processes\n",
        );
        assert!(likely_limit(system.path()).contains("12 threads and processes (ulimit -u)"));
        write("proc/self/cgroup", "0::/app\n");
        write("proc/self/mountinfo", "25 20 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        write("sys/fs/cgroup/app/pids.max", "9\n");
        write("sys/fs/cgroup/app/pids.current", "8\n");
        assert!(likely_limit(system.path()).contains("ulimit -u"), "one more fits the group");
        write("sys/fs/cgroup/app/pids.current", "9\n");
        assert!(likely_limit(system.path()).contains("/app has 9 of 9 threads (pids.max)"), "{}", likely_limit(system.path()));
    }
}
