//! What the kernel reports about a process, this one or a server under test: memory, descriptors, CPU time, and each thread's name and state. The
//! source is proc(5).
//!
//! The kernel generates these files, so reading them does not wait for a disk. Read next: `budget.rs` and `metrics.rs`, which use them.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::cgroup;

/// A thread of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its id, as in `ps -T`.
    pub tid: u32,
    /// Its name, at most 15 bytes (prctl(2), `PR_SET_NAME`).
    pub name: String,
    /// R running, S sleeping, D in uninterruptible sleep, Z zombie. Others are in proc(5).
    pub state: char,
    /// CPU time that it has used.
    pub cpu: Duration,
    /// Voluntary context switches: times that it blocked. Many of them for little work are a thundering herd.
    pub voluntary_switches: u64,
    /// Involuntary context switches: times that the scheduler preempted it.
    pub involuntary_switches: u64,
}

/// Memory and CPU time, from `/proc/PID/stat` and `/proc/PID/status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// Peak of the resident memory, bytes.
    pub resident_bytes_peak: u64,
    /// Address space, bytes.
    pub virtual_bytes: u64,
    /// CPU time in user mode and in the kernel.
    pub cpu: Duration,
}

/// Clock ticks of one second in `/proc/*/stat`: `USER_HZ`, fixed at 100 for user space whatever the kernel's own rate
/// (include/asm-generic/param.h; only alpha has another).
const TICKS_PER_SECOND: u64 = 100;

/// This process. Not by its number: in a container, /proc may be mounted from another PID namespace (pid_namespaces(7)).
const SELF: &str = "/proc/self";

fn of(pid: u32) -> String {
    format!("/proc/{pid}")
}

/// Memory and CPU time now. None if no descriptor is free to read them: a zero would look like a measurement.
#[must_use]
pub fn usage() -> Option<Usage> {
    usage_in(SELF).ok()
}

/// Memory and CPU time of a process now.
///
/// # Errors
/// The process has exited (a zombie has no memory), or no descriptor is free.
pub fn usage_of(pid: u32) -> io::Result<Usage> {
    usage_in(&of(pid))
}

fn usage_in(process: &str) -> io::Result<Usage> {
    let status = fs::read_to_string(format!("{process}/status"))?;
    let stat = fs::read_to_string(format!("{process}/stat"))?;
    if !status.contains("VmRSS:") {
        return Err(io::Error::other(format!("no VmRSS in {process}/status: the process has exited")));
    }
    Ok(Usage {
        resident_bytes: kib_field(&status, "VmRSS:"),
        resident_bytes_peak: kib_field(&status, "VmHWM:"),
        virtual_bytes: kib_field(&status, "VmSize:"),
        cpu: cpu_of_stat(&stat),
    })
}

/// Open descriptors of this process. None if the kernel is older than 6.2 and no descriptor is free to count them with.
#[must_use]
pub fn open_descriptors() -> Option<u64> {
    // Listing the directory opens a descriptor, and the list includes it.
    let (open, is_exact) = open_descriptors_in(SELF).ok()?;
    Some(if is_exact { open } else { open.saturating_sub(1) })
}

/// Open descriptors of a process.
///
/// # Errors
/// The process has exited, or the kernel is older than 6.2 and no descriptor is free to count them with.
pub fn open_descriptors_of(pid: u32) -> io::Result<u64> {
    open_descriptors_in(&of(pid)).map(|(open, _)| open)
}

/// The number of open descriptors, and whether counting them opened none.
fn open_descriptors_in(process: &str) -> io::Result<(u64, bool)> {
    let directory = format!("{process}/fd");
    // Since Linux 6.2 the number is the size of the directory (proc_pid_fd(5)). Reading it opens no descriptor, so it also works when none is free,
    // which is when the number matters most.
    let size = fs::metadata(&directory)?.len();
    if size > 0 {
        return Ok((size, true));
    }
    // O(descriptors): about 2 ms for 10,000. In the server only the admin loop and the dump on SIGUSR1 call this.
    Ok((fs::read_dir(directory)?.count() as u64, false))
}

/// The threads of this process, by id. Empty if no descriptor is free to read the directory.
#[must_use]
pub fn threads() -> Vec<Thread> {
    threads_in(SELF).unwrap_or_default()
}

/// The threads of a process, by id.
///
/// # Errors
/// The process has exited, or no descriptor is free.
pub fn threads_of(pid: u32) -> io::Result<Vec<Thread>> {
    threads_in(&of(pid))
}

fn threads_in(process: &str) -> io::Result<Vec<Thread>> {
    let entries = fs::read_dir(format!("{process}/task"))?;
    // A thread may end after the directory was read.
    let mut threads: Vec<Thread> = entries.flatten().filter_map(|entry| thread(&entry.path()).ok()).collect();
    threads.sort_by_key(|thread| thread.tid);
    // A directory that changes while it is read may list an entry twice (readdir(3)).
    threads.dedup_by_key(|thread| thread.tid);
    Ok(threads)
}

/// One thread of a process.
///
/// # Errors
/// The thread has ended, or no descriptor is free.
pub fn thread_of(pid: u32, tid: u32) -> io::Result<Thread> {
    thread(Path::new(&format!("/proc/{pid}/task/{tid}")))
}

/// The calling thread's id.
#[must_use]
pub fn this_thread() -> Option<u32> {
    // The link is "4711/task/4712" (proc(5), /proc/thread-self). Reading it needs no system call in `sys.rs`.
    fs::read_link("/proc/thread-self").ok()?.file_name()?.to_str()?.parse().ok()
}

/// What a thread is doing in the kernel, for a log line: its state, and the kernel function that it waits in, if the kernel shows it.
#[must_use]
pub fn doing(tid: u32) -> String {
    let task = Path::new("/proc/self/task").join(tid.to_string());
    let state = fs::read_to_string(task.join("stat")).ok().and_then(|stat| state_of_stat(&stat)).unwrap_or('?');
    // "0" if the thread runs or the kernel hides the function (proc(5), /proc/pid/wchan).
    let wchan = fs::read_to_string(task.join("wchan")).unwrap_or_default();
    let waits_in = if wchan.is_empty() || wchan == "0" { "-" } else { wchan.trim() };
    format!("state={state} wchan={waits_in}")
}

/// The memory that this process can have, in bytes, and the limit that decides. It is the least of the machine's memory, the control groups' limits
/// and `RLIMIT_AS`.
#[must_use]
pub fn memory_limit() -> (u64, &'static str) {
    memory_limit_in(Path::new(cgroup::SYSTEM))
}

/// The memory limit of the system in this directory, which contains `proc` and `sys`.
fn memory_limit_in(system: &Path) -> (u64, &'static str) {
    let read = |file: &str| fs::read_to_string(system.join(file)).unwrap_or_default();
    let machine = Some((kib_field(&read("proc/meminfo"), "MemTotal:"), "MemTotal")).filter(|(bytes, _)| *bytes > 0);
    let group = cgroup::memory_max(system).map(|limit| (limit.value, limit.source));
    let address_space = soft_limit(&read("proc/self/limits"), "Max address space").map(|bytes| (bytes, "RLIMIT_AS"));
    machine.into_iter().chain(group).chain(address_space).min_by_key(|(bytes, _)| *bytes).unwrap_or((u64::MAX, "unknown"))
}

/// `RLIMIT_NPROC`: how many threads and processes the user of this process may have, in all. Not checked for root (getrlimit(2)).
pub(crate) fn user_threads_max(system: &Path) -> Option<u64> {
    soft_limit(&fs::read_to_string(system.join("proc/self/limits")).ok()?, "Max processes")
}

/// A soft limit of `/proc/self/limits`. None if it is unlimited.
fn soft_limit(limits: &str, name: &str) -> Option<u64> {
    limits.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

fn thread(task: &Path) -> io::Result<Thread> {
    let stat = fs::read_to_string(task.join("stat"))?;
    let status = fs::read_to_string(task.join("status"))?;
    let described = || {
        Some(Thread {
            tid: task.file_name()?.to_str()?.parse().ok()?,
            name: stat.get(stat.find('(')? + 1..stat.rfind(')')?)?.to_owned(),
            state: state_of_stat(&stat)?,
            cpu: cpu_of_stat(&stat),
            voluntary_switches: field(&status, "voluntary_ctxt_switches:"),
            involuntary_switches: field(&status, "nonvoluntary_ctxt_switches:"),
        })
    };
    described().ok_or_else(|| io::Error::other(format!("{} is not as proc_pid_stat(5) says", task.join("stat").display())))
}

/// The third field. The second is the name in parentheses, which may itself contain parentheses.
fn state_of_stat(stat: &str) -> Option<char> {
    stat.get(stat.rfind(')')? + 1..)?.trim_start().chars().next()
}

/// utime + stime, the 14th and 15th fields.
fn cpu_of_stat(stat: &str) -> Duration {
    let after_name = stat.rfind(')').and_then(|end| stat.get(end + 1..)).unwrap_or_default();
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

fn field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn kib_field(text: &str, name: &str) -> u64 {
    field(text, name) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_thread_is_among_the_threads_under_its_name_and_runs() {
        let tid = std::thread::Builder::new()
            .name("a (strange) na".to_owned())
            .spawn(|| {
                let tid = this_thread().expect("proc is mounted");
                let found = threads().into_iter().find(|thread| thread.tid == tid).expect("it lives");
                assert_eq!(found.name, "a (strange) na");
                assert_eq!(found.state, 'R');
                assert!(doing(tid).starts_with("state=R"));
                tid
            })
            .expect("a thread can be started")
            .join()
            .expect("its assertions hold");
        assert_ne!(Some(tid), this_thread());
    }

    #[test]
    fn memory_descriptors_and_time_are_read() {
        let usage = usage().expect("proc is mounted");
        assert!(usage.resident_bytes > 0 && usage.resident_bytes <= usage.resident_bytes_peak);
        assert!(usage.virtual_bytes > usage.resident_bytes);
        // Other tests of this process open and close files meanwhile, so only the order of magnitude is sure.
        assert!(open_descriptors().is_some_and(|open| (3..1000).contains(&open)));
        assert!(memory_limit().0 > 1 << 20);
    }

    #[test]
    fn the_least_of_machine_group_and_address_space_is_the_memory_limit() {
        let system = tempfile::tempdir().expect("a directory");
        let write = |path: &str, content: &str| {
            let path = system.path().join(path);
            fs::create_dir_all(path.parent().expect("it has one")).expect("mkdir");
            fs::write(path, content).expect("written");
        };
        let limit = || memory_limit_in(system.path());
        assert_eq!(limit(), (u64::MAX, "unknown"));
        write("proc/meminfo", "MemTotal:       25165824 kB\nMemFree: 1 kB\n");
        assert_eq!(limit(), (24 << 30, "MemTotal"));
        write("proc/self/cgroup", "4:memory:/app\n");
        write("proc/self/mountinfo", "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
        write("sys/fs/cgroup/memory/app/memory.limit_in_bytes", "67108864\n");
        assert_eq!(limit(), (64 << 20, "memory.limit_in_bytes, cgroup v1"));
        write("proc/self/limits", "Max address space         33554432             unlimited            bytes\n");
        assert_eq!(limit(), (32 << 20, "RLIMIT_AS"));
        write("proc/self/limits", "Max address space         unlimited            unlimited            bytes\n");
        assert_eq!(limit().0, 64 << 20);
    }

    #[test]
    fn a_thread_s_sleeps_are_counted_and_one_that_has_ended_is_an_error() {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("proc-test) S".to_owned()).spawn(move || wait.iter().count()).expect("it starts");
        let pid = std::process::id();
        // A thread names itself when it first runs.
        let tid = loop {
            match threads_of(pid).expect("proc is mounted").iter().find(|thread| thread.name == "proc-test) S") {
                None => std::thread::yield_now(),
                Some(thread) => break thread.tid,
            }
        };
        let now = || thread_of(pid, tid).expect("it lives");
        while now().state != 'S' {
            std::thread::yield_now();
        }
        let before = now().voluntary_switches;
        go.send(()).expect("it listens");
        while now().voluntary_switches == before {
            std::thread::yield_now();
        }
        drop(go);
        assert_eq!(thread.join().expect("no panic"), 1);
        assert!(thread_of(pid, tid).is_err());
    }

    #[test]
    fn memory_that_was_touched_is_resident_and_open_files_are_counted() {
        let pid = std::process::id();
        let resident_bytes = || usage_of(pid).expect("proc is mounted").resident_bytes;
        let before = resident_bytes();
        let held = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(resident_bytes() > before + held.len() as u64 / 2);
        let few = open_descriptors_of(pid).expect("proc is mounted");
        let files: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").expect("it exists")).collect();
        // Other tests of this process open and close some of their own.
        assert!(open_descriptors_of(pid).expect("proc is mounted") + 25 > few + files.len() as u64);
    }

    #[test]
    fn a_process_that_has_exited_has_no_memory_and_is_an_error() {
        let mut child = std::process::Command::new("true").spawn().expect("true(1) starts");
        // Not waited for yet: a zombie, which has a status without VmRSS (proc_pid_status(5)).
        while thread_of(child.id(), child.id()).expect("a zombie is listed").state != 'Z' {
            std::thread::yield_now();
        }
        assert!(usage_of(child.id()).is_err());
        assert!(child.wait().expect("it is ours").success());
        assert!(threads_of(child.id()).is_err() && open_descriptors_of(child.id()).is_err());
    }

    #[test]
    fn times_are_the_fourteenth_and_fifteenth_field() {
        let stat = "1 (a) b) S 0 1 1 0 -1 4194560 2 3 4 5 250 150 9 9 20 0 1 0 7 8";
        assert_eq!(cpu_of_stat(stat), Duration::from_secs(4));
        assert_eq!(state_of_stat(stat), Some('S'));
    }
}
