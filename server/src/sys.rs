//! The calls that no library of ours offers. The only `unsafe` of this crate.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Asks the scheduler for slices of this length for the calling thread; its policy and its niceness stay. A thread that wakes with a shorter
/// slice than the one that runs is served first (`PREEMPT_SHORT` in Linux kernel/sched/features.h, since 6.12; `sched_runtime`,
/// sched_setattr(2)); older kernels ignore it. The kernel allows 0.1 ms to 100 ms. Nothing is done for a thread of another policy than
/// `SCHED_OTHER`: whoever chose that chose its order.
///
/// # Errors
/// sched_getattr(2), sched_setattr(2): ENOSYS or EPERM where a sandbox forbids them.
pub fn ask_for_slices(slice: Duration) -> io::Result<()> {
    // SAFETY: a sched_attr is numbers, for which zero is a value.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = std::mem::size_of::<libc::sched_attr>();
    // SAFETY: sched_getattr(2) writes at most `size` bytes to the pointer; 0 is the calling thread. libc has no wrapper for it.
    if unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if attributes.sched_policy != libc::SCHED_OTHER as u32 {
        return Ok(());
    }
    attributes.sched_runtime = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: sched_setattr(2) reads as many bytes as the `size` field says, which sched_getattr(2) has set; 0 is the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw mut attributes, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes the allocator return large blocks to the system when they are freed, so that the resident memory follows the ledger (`ledger.rs`).
///
/// glibc maps a block of [`MAPPED_BYTES_MIN`] or more by itself (mallopt(3), `M_MMAP_THRESHOLD`) and unmaps it when it is freed. By default the threshold
/// follows the largest block that was freed, up to 32 MiB. Then bodies of a megabyte come from the heap, and a small block behind a freed one keeps it
/// resident. Where the address space is limited, all threads share one heap (`M_ARENA_MAX`), because each further one reserves 64 MiB of it. Another C
/// library is left as it is.
pub(crate) fn set_up_allocator(is_address_space_limited: bool) {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) takes two numbers. It is thread-safe but for its first call, which may race with an allocation of another thread; this is called
    // before the process has started threads that allocate.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN);
        if is_address_space_limited {
            libc::mallopt(libc::M_ARENA_MAX, 1);
        }
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = is_address_space_limited;
}

/// The smallest block that has a mapping of its own. A mapping costs two system calls and a fault for each page, about 1 µs for 16 KiB.
#[cfg(target_env = "gnu")]
const MAPPED_BYTES_MIN: libc::c_int = 16 << 10;

/// Makes a descriptor ours that this process was started with, and has it closed on exec(3). Only for one that nobody else in the process
/// has: asked for twice, the second owner would close what the first one uses.
///
/// # Errors
/// fcntl(2): EBADF when there is none of that number.
pub(crate) fn take_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(2) with F_SETFD takes two numbers, and fails on a descriptor that is not open.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, as fcntl(2) has just said, and was passed to this process to be its own (sd_listen_fds(3)); the only caller asks
    // once for each number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Removes a variable from the environment. Only while the process has a single thread.
pub(crate) fn remove_variable(name: &str) {
    // SAFETY: the caller has seen that there is no other thread that could read the environment meanwhile (unsetenv(3), MT-Unsafe).
    unsafe { std::env::remove_var(name) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::beneath::open_beneath;
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::sync::mpsc::channel;

    /// Field 19 of proc_pid_stat(5), the 17th after the name.
    fn nice_of_this_thread() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("this is Linux");
        let (_, after_name) = stat.rsplit_once(')').expect("the name is in brackets");
        after_name.split_whitespace().nth(16).and_then(|field| field.parse().ok()).expect("there are 52 fields")
    }

    #[test]
    fn a_thread_with_short_slices_keeps_its_niceness() {
        let seen = std::thread::spawn(|| {
            // SAFETY: setpriority(2) takes three numbers; for PRIO_PROCESS, 0 is the calling thread.
            assert_eq!(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 7) }, 0);
            // A sandbox may forbid the call; then nothing changes either.
            let _ = ask_for_slices(Duration::from_micros(100));
            nice_of_this_thread()
        });
        assert_eq!(seen.join().expect("no panic"), 7);
    }

    fn lease(file: &File, kind: i32) {
        // SAFETY: fcntl(2) with F_SETLEASE and F_SETOWN takes a number each and concerns the descriptor only. Owner 0: a lease that is
        // broken sends a SIGIO to nobody, which would end this process.
        let results = unsafe { (libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind), libc::fcntl(file.as_raw_fd(), libc::F_SETOWN, 0)) };
        assert_eq!(results, (0, 0), "{}", io::Error::last_os_error());
    }

    #[test]
    fn a_file_that_somebody_holds_a_lease_on_is_opened_when_he_lets_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let held = File::create_new(directory.path().join("held")).expect("a file");
        std::fs::write(directory.path().join("held"), "content").expect("written");
        lease(&held, libc::F_WRLCK);
        let root = File::open(directory.path()).expect("it exists");
        let (opened_in, opened_out) = channel();
        let opener = std::thread::spawn(move || opened_in.send(open_beneath(&root, "held")));
        // SAFETY: fcntl(2) with F_GETLEASE takes nothing.
        while unsafe { libc::fcntl(held.as_raw_fd(), libc::F_GETLEASE) } == libc::F_WRLCK {
            std::thread::yield_now();
        }
        assert!(opened_out.try_recv().is_err(), "neither refused nor opened: it waits");
        lease(&held, libc::F_UNLCK);
        let mut content = String::new();
        let mut file = opened_out.recv().expect("the thread lives").expect("it is opened");
        file.read_to_string(&mut content).expect("it is read");
        assert_eq!(content, "content");
        opener.join().expect("it has not panicked").expect("somebody listened");
    }
}
