//! The system calls that the standard library has no safe door to. The only `unsafe` code of the crate.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Has the child killed when the thread that spawns it ends (`PR_SET_PDEATHSIG`, prctl(2)): a generator that is killed leaves no
/// server behind. Spawn from a thread that outlives the child.
pub fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: between fork and exec only async-signal-safe functions may run (fork(2), signal-safety(7)); prctl(2), getppid(2) and
    // _exit(2) are system calls without state in libc, and the closure allocates nothing.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the call: then no signal would ever come.
            if libc::getppid().cast_unsigned() != parent {
                libc::_exit(1);
            }
            Ok(())
        });
    }
}

/// Sends a signal to a child, to be called only before it was waited for: until then its number cannot be another process's.
///
/// # Errors
/// kill(2).
pub fn signal(child: u32, signal: i32) -> io::Result<()> {
    let pid = libc::pid_t::try_from(child).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: kill(2) takes two numbers and touches no memory of ours.
    if unsafe { libc::kill(pid, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether a signal is ignored by this process, as nohup(1) arranges for SIGHUP.
///
/// # Errors
/// sigaction(2): no such signal.
pub fn is_ignored(signal: i32) -> io::Result<bool> {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: sigaction(2) with no new action only writes the present one to the last pointer, valid for one sigaction; all zeroes are a
    // valid sigaction, should it write nothing.
    let (result, action) = unsafe { (libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()), action.assume_init()) };
    if result == 0 { Ok(action.sa_sigaction == libc::SIG_IGN) } else { Err(io::Error::last_os_error()) }
}

/// Lowers the soft limit of open descriptors of another process of ours, as `prlimit --nofile=N: --pid PID` does.
///
/// # Errors
/// prlimit(2).
pub fn limit_descriptors(pid: u32, descriptors_max: u64) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: prlimit(2) writes the present limits to the last pointer, valid for one rlimit, and is given no new ones.
    if unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, std::ptr::null(), &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = descriptors_max;
    // SAFETY: prlimit(2) reads one rlimit and is asked for no old ones.
    let result = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes a write lease on a file (`F_SETLEASE`, fcntl(2)): from now on a process that opens it waits in open(2) until the lease ends. The kernel
/// ends it by itself after `/proc/sys/fs/lease-break-time` (45 s). The file must be ours and open for writing.
///
/// # Errors
/// fcntl(2): `WouldBlock` while another process has the file open, `InvalidInput` where the file system knows no leases.
pub fn take_lease(file: &File) -> io::Result<()> {
    set_lease(file, libc::F_WRLCK)?;
    // Who asks for the file makes a SIGIO for the owner, and that ends a process that does not expect it. Without an owner there is none;
    // `lease_is_wanted` is asked instead.
    // SAFETY: fcntl(2) with F_SETOWN takes a number; 0 is no process.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETOWN, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether a process waits for the lease to end.
///
/// # Errors
/// fcntl(2).
pub fn lease_is_wanted(file: &File) -> io::Result<bool> {
    // SAFETY: fcntl(2) with F_GETLEASE takes nothing; it returns what the lease has to become.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLEASE) } {
        -1 => Err(io::Error::last_os_error()),
        kind => Ok(kind != libc::F_WRLCK),
    }
}

/// Ends a lease: a process that waits for it gets the file.
///
/// # Errors
/// fcntl(2).
pub fn end_lease(file: &File) -> io::Result<()> {
    set_lease(file, libc::F_UNLCK)
}

fn set_lease(file: &File, kind: i32) -> io::Result<()> {
    // SAFETY: fcntl(2) with F_SETLEASE takes a number and concerns the descriptor only, which stays open while `file` lives.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_opens_a_leased_file_waits_until_the_lease_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("leased");
        let file = File::create_new(&path).unwrap();
        take_lease(&file).unwrap();
        assert!(!lease_is_wanted(&file).unwrap());
        let (opened_in, opened_out) = std::sync::mpsc::channel();
        let opener = std::thread::spawn(move || opened_in.send(File::open(path).map(|_| ())).unwrap());
        while !lease_is_wanted(&file).unwrap() {
            std::thread::yield_now();
        }
        assert!(opened_out.try_recv().is_err(), "it waits");
        end_lease(&file).unwrap();
        opened_out.recv().unwrap().unwrap();
        opener.join().unwrap();
    }
}
