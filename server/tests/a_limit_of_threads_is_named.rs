//! An error about a missing resource does not need that resource: a server that may start too few threads says which one it could not start.

mod process;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use process::{command, run};

/// The threads in the order in which they start. The process's first thread is its main one. `--loops 1 --workers 2`.
const THREADS: [&str; 9] = ["main", "signals", "log", "worker-0", "worker-1", "pool-deadlines", "loop-0", "watchdog", "admin"];

/// A user that has no other process, so that the count of its threads (`RLIMIT_NPROC`, getrlimit(2)) is the server's own.
fn user() -> u32 {
    0x4000_0000 + std::process::id()
}

/// The server's program where that user may read it.
fn program(directory: &Path) -> PathBuf {
    let program = directory.join("server");
    std::fs::copy(env!("CARGO_BIN_EXE_server"), &program).expect("it can be copied");
    for path in [directory, &program] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    program
}

/// Runs the server as a user that may have this many threads. None where that cannot be done.
fn with_threads(program: &Path, threads_max: u32, flags: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    let user = user();
    command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]);
    command.args(["prlimit", &format!("--nproc={threads_max}:{threads_max}")]).arg(program).args(flags);
    command.args(["--loops", "1", "--workers", "2", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SERVER_")) {
        command.env_remove(name);
    }
    command.env("RUST_LOG", "warn");
    command
}

fn can_change_user() -> bool {
    let probe = Command::new("setpriv").args([&format!("--reuid={}", user()), "--clear-groups", "prlimit", "--version"]).output();
    let can = probe.is_ok_and(|output| output.status.success());
    if !can {
        assert!(std::env::var_os("REQUIRE_TOOLS").is_none(), "setpriv and prlimit as root are needed");
        eprintln!("skipped: setpriv and prlimit as root are needed");
    }
    can
}

#[test]
fn a_limit_of_threads_is_named_with_the_thread_that_did_not_start() {
    if !can_change_user() {
        return;
    }
    let directory = tempfile::tempdir().expect("there is room for one");
    let program = program(directory.path());
    for (threads_max, missing) in (1..).zip(&THREADS[1..]) {
        let output = run(&mut with_threads(&program, threads_max, &[]));
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{threads_max}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{threads_max}: {stderr}");
        assert!(stderr.starts_with(&format!("server: cannot start the thread {missing}: ")), "{threads_max}: {stderr}");
        assert!(stderr.contains(&format!("this user may have {threads_max} threads and processes (ulimit -u)")), "{stderr}");
        assert_eq!(output.stdout, b"", "{threads_max}");
    }
    // With one more it serves.
    let mut server = process::Server::spawn(with_threads(&program, THREADS.len() as u32, &[]).stderr(Stdio::null()));
    assert_eq!(process::get(server.http, "/").status, 200);
    assert_eq!(process::get(server.admin, "/readyz").status, 200);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn without_a_thread_to_spare_a_wrong_flag_is_named_and_the_limits_are_printed() {
    if !can_change_user() {
        return;
    }
    let directory = tempfile::tempdir().expect("there is room for one");
    let program = program(directory.path());
    let wrong = run(&mut with_threads(&program, 1, &["--idle-timeout", "5"]));
    let stderr = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert_eq!(wrong.status.code(), Some(2), "{stderr}");
    assert!(stderr.starts_with("server: ") && stderr.contains("--idle-timeout"), "{stderr}");
    for flag in ["--check", "--help", "--version"] {
        let output = run(&mut with_threads(&program, 1, &[flag]));
        assert_eq!(output.status.code(), Some(0), "{flag}");
        assert!(!output.stdout.is_empty(), "{flag}");
    }
}

#[test]
fn a_complaint_to_a_full_pipe_does_not_keep_the_process() {
    // The shell holds both ends of the pipe and fills its 64 KiB (pipe(7)).
    let script = "mkfifo \"$0\"; exec 3<>\"$0\"; dd if=/dev/zero bs=65536 count=1 >&3 2>/dev/null; exec \"$1\" --no-such-flag 2>&3";
    let directory = tempfile::tempdir().expect("there is room for one");
    let server = command();
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(directory.path().join("pipe")).arg(server.get_program());
    assert_eq!(run(&mut shell).status.code(), Some(2));
}
