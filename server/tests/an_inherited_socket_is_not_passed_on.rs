//! What is inherited is taken once, and the variables are gone then: no program that this one starts takes the socket for its own.
//!
//! Without the test harness, since that runs tests on threads, and the environment of a program with several threads is left alone.

use std::net::TcpListener;
use std::process::Command;

use server::activation::Inherited;

fn main() {
    if std::env::var_os("LISTEN_PID").is_some() {
        return take();
    }
    let held = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    // Descriptor 3, and the number of the process that takes it, which the shell keeps through exec.
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=http exec \"$0\"";
    let mut again = Command::new("sh");
    again.args(["-c", script]).arg(std::env::current_exe().expect("it runs")).stdin(std::os::fd::OwnedFd::from(held));
    let status = again.status().expect("there is a shell");
    assert!(status.success(), "{status}");
    println!("what is inherited is taken once, and the variables are gone then: ok");
}

/// This program again, as a server begins.
fn take() {
    let inherited = Inherited::take().expect("it is a listening socket");
    assert!(inherited.http.is_some() && inherited.admin.is_none());
    let left: Vec<_> = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LISTEN_")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(Inherited::take().expect("nothing is wrong").http.is_none(), "once");
}
