//! Under a seccomp filter: without openat2 files are served all the same, and nothing outside of the root; a call without which the server cannot
//! run is named.

mod process;
#[path = "process/sys.rs"]
mod sys;

use std::io::Read;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use process::{Server, command, get, run};

/// A root with a file, a symlink that stays in it, and one that leaves it.
fn root() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("there is room for one");
    std::fs::create_dir_all(directory.path().join("root/sub")).expect("mkdir");
    std::fs::write(directory.path().join("root/sub/a.txt"), "from a file").expect("written");
    std::fs::write(directory.path().join("secret"), "secret").expect("written");
    symlink("sub", directory.path().join("root/inside")).expect("linked");
    symlink("../secret", directory.path().join("root/outside")).expect("linked");
    directory
}

#[test]
fn without_openat2_files_are_served_and_none_outside_of_the_root() {
    let directory = root();
    let root = directory.path().join("root");
    for errno in [libc::EPERM, libc::ENOSYS] {
        let mut command = command();
        command.arg("--files-root").arg(&root).env("RUST_LOG", "info").stderr(Stdio::piped());
        sys::forbid(&mut command, libc::SYS_openat2, errno);
        let mut server = Server::spawn(&mut command);
        for path in ["sub/a.txt", "inside/a.txt", "sub/../sub/a.txt"] {
            assert_eq!(get(server.http, &format!("/files/{path}")).body, "from a file", "{path}");
        }
        for path in ["outside", "../secret", "inside/../../secret", "/etc/passwd", "sub"] {
            assert_eq!(get(server.http, &format!("/files/{path}")).status, 403, "{path}");
        }
        assert_eq!(get(server.http, "/files/nothing").status, 404);
        server.signal("TERM");
        let mut log = String::new();
        server.stderr().read_to_string(&mut log).expect("it is text");
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("openat2")).collect();
        assert_eq!(lines.len(), 1, "once: {log}");
        assert!(lines[0].contains(" WARN ") && lines[0].contains("seccomp"), "{log}");
    }
}

#[test]
fn the_limits_say_which_calls_a_sandbox_forbids() {
    let directory = root();
    let mut command = command();
    command.arg("--files-root").arg(directory.path().join("root")).arg("--check");
    sys::forbid(&mut command, libc::SYS_openat2, libc::EPERM);
    let output = run(&mut command);
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{report}");
    let line = report.lines().find(|line| line.contains("openat2")).unwrap_or_else(|| panic!("{report}"));
    assert!(line.contains("component by component"), "{line}");
}

#[test]
fn a_call_without_which_it_cannot_run_is_named() {
    for (name, call) in
        [("epoll_create1", libc::SYS_epoll_create1), ("timerfd_create", libc::SYS_timerfd_create), ("accept4", libc::SYS_accept4)]
    {
        for errno in [libc::EPERM, libc::ENOSYS] {
            let mut command = command();
            sys::forbid(&mut command, call, errno);
            let output = run(&mut command);
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{stderr}");
            assert!(stderr.starts_with(&format!("server: the system call {name} fails with ")) && stderr.contains("seccomp"), "{stderr}");
        }
    }
}
