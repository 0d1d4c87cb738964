//! A seccomp filter for a child process. The only `unsafe` of these tests.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Makes the command run under a filter that answers this system call with this error, as container runtimes and systemd's
/// `SystemCallFilter=` do, and allows all others (seccomp(2), `SECCOMP_SET_MODE_FILTER`).
pub(crate) fn forbid(command: &mut Command, call: libc::c_long, errno: i32) {
    let instruction = |code: u32, k: u32, jump_if, jump_else| libc::sock_filter { code: code as u16, jt: jump_if, jf: jump_else, k };
    let filter = [
        // The number of the call is the first word of seccomp_data.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call as u32, 0, 1),
        instruction(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32, 0, 0),
        instruction(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let install = move || {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // SAFETY: prctl(2) with PR_SET_NO_NEW_PRIVS takes numbers; with PR_SET_SECCOMP it reads the program, which lives until the call returns.
        let done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0) == 0
        };
        if done { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing (signal-safety(7)).
    unsafe { command.pre_exec(install) };
}
