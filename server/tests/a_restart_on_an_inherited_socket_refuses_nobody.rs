//! A parent holds the listening socket and starts servers on it one after another: whoever connects, before, between or after, is served.

mod process;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use process::{PATIENCE, Server, get, receive, run, send, wait_for};

/// The server with descriptor 3, and 4 if there are two, as sd_listen_fds(3) promises them. `LISTEN_PID` must be the number of the process that
/// serves, which nobody knows before it is there: the shell knows its own, and keeps it through exec.
fn inheriting(sockets: Vec<OwnedFd>, names: Option<&str>, flags: &[&str]) -> Command {
    let count = sockets.len();
    let mut sockets = sockets.into_iter();
    let mut command = Command::new("sh");
    // Standard streams are what a Command can pass on; the shell puts them where they belong.
    let second = if count == 2 { "4<&2 2>/dev/null" } else { "" };
    let script = format!("exec 3<&0 </dev/null {second}; LISTEN_PID=$$ LISTEN_FDS={count} exec \"$0\" \"$@\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_server"), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).args(flags);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SERVER_")) {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG").stdin(sockets.next().map_or_else(Stdio::null, Stdio::from)).stdout(Stdio::piped());
    command.stderr(sockets.next().map_or_else(Stdio::null, Stdio::from));
    if let Some(names) = names {
        command.env("LISTEN_FDNAMES", names);
    }
    command
}

fn duplicate(socket: &TcpListener) -> OwnedFd {
    socket.try_clone().expect("a descriptor is left").into()
}

fn socket() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = socket.local_addr().expect("it is bound");
    (socket, address)
}

/// One client after another, each with a connection of its own, until told to stop. Returns how many were served; panics when one was not.
fn newcomers(to: SocketAddr, stop: &AtomicBool, served: &AtomicU64) {
    while !stop.load(Ordering::Relaxed) {
        let answer = send(to, "GET", "/").and_then(receive).expect("each one that comes is served");
        assert_eq!((answer.status, answer.body.as_str()), (200, "Hello, World!"));
        served.fetch_add(1, Ordering::Relaxed);
    }
}

/// A client that keeps its connection as long as the server does.
fn regular(to: SocketAddr, stop: &AtomicBool, served: &AtomicU64) {
    while !stop.load(Ordering::Relaxed) {
        let mut stream = TcpStream::connect(to).expect("it is never refused");
        stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
        while !stop.load(Ordering::Relaxed) && !is_closed(&stream) {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").expect("it reads");
            let mut response = Vec::new();
            while !response.ends_with(b"Hello, World!") {
                let mut piece = [0; 512];
                let n = stream.read(&mut piece).expect("each request on a kept connection is answered");
                assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(&response));
                response.extend_from_slice(&piece[..n]);
            }
            served.fetch_add(1, Ordering::Relaxed);
            if String::from_utf8_lossy(&response).contains("Connection: close") {
                break;
            }
        }
    }
}

/// Whether the server has ended a connection on which nothing is under way: it said nothing of it, so a client looks before it sends.
fn is_closed(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("it is a socket");
    let seen = stream.peek(&mut [0]);
    stream.set_nonblocking(false).expect("it is a socket");
    !matches!(seen, Err(e) if e.kind() == ErrorKind::WouldBlock)
}

fn clients_see_nothing_of_restarts(flags: &[&str]) {
    let (held, address) = socket();
    let start = || {
        let mut command = inheriting(vec![duplicate(&held)], None, flags);
        let server = Server::spawn_as_it_is(&mut command);
        assert_eq!(server.http, address);
        server
    };
    let (stop, served) = (AtomicBool::new(false), AtomicU64::new(0));
    let some_more = || {
        let until = served.load(Ordering::Relaxed) + 200;
        wait_for("200 more that are served", || (served.load(Ordering::Relaxed) >= until).then_some(()));
    };
    thread::scope(|scope| {
        // Stops the clients also when an assertion below fails: else the scope would wait for them for ever.
        let _stop = StopOnDrop(&stop);
        let clients = [newcomers, newcomers, regular, regular].map(|client| {
            let (stop, served) = (&stop, &served);
            scope.spawn(move || client(address, stop, served))
        });
        let mut old = start();
        for _ in 0..3 {
            some_more();
            // The next one begins before the old one ends: both accept.
            let next = start();
            some_more();
            old.signal("TERM");
            some_more();
            assert_eq!(old.wait().code(), Some(0));
            old = next;
        }
        for _ in 0..3 {
            some_more();
            // Nobody serves for a while: those who come wait in the queue of the socket, which we hold.
            old.signal("TERM");
            assert_eq!(old.wait().code(), Some(0));
            let waiting: Vec<TcpStream> = (0..20).map(|_| send(address, "GET", "/").expect("it is not refused")).collect();
            old = start();
            for client in waiting {
                assert_eq!(receive(client).expect("it is served by the next one").status, 200);
            }
        }
        some_more();
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("no client was refused");
        }
        // Only now: the clients need somebody who answers until they have seen that they may stop.
        drop(old);
    });
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn nobody_is_refused_with_one_loop() {
    clients_see_nothing_of_restarts(&["--loops", "1", "--shutdown-grace", "60s"]);
}

#[test]
fn nobody_is_refused_with_several_loops_however_they_share_the_socket() {
    for sharing in ["reuse-port", "hand-off"] {
        clients_see_nothing_of_restarts(&["--loops", "3", "--listener-sharing", sharing, "--shutdown-grace", "60s"]);
    }
}

#[test]
fn both_ports_are_inherited_by_name_or_by_place() {
    for (names, http_first) in [(None, true), (Some("http:admin"), true), (Some("admin:http"), false)] {
        let ((first, first_address), (second, second_address)) = (socket(), socket());
        let server = Server::spawn_as_it_is(&mut inheriting(vec![duplicate(&first), duplicate(&second)], names, &[]));
        let expected = if http_first { (first_address, second_address) } else { (second_address, first_address) };
        assert_eq!((server.http, server.admin), expected, "{names:?}");
        assert_eq!(get(server.http, "/").body, "Hello, World!");
        assert_eq!(get(server.admin, "/readyz").status, 200);
    }
}

#[test]
fn check_shows_what_is_inherited() {
    let (held, address) = socket();
    let output = inheriting(vec![duplicate(&held)], None, &["--check", "--loops", "2"]).output().expect("it runs");
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{report}");
    for needle in [format!("{address}  system    an inherited socket"), "exclusive  default   how the loops share".to_owned()] {
        assert!(report.contains(&needle), "{needle} is not in {report}");
    }
}

#[test]
fn a_descriptor_that_is_no_listening_socket_is_named_and_ends_it_with_2() {
    let (held, address) = socket();
    let connected = TcpStream::connect(address).expect("it listens");
    let file = std::fs::File::open("/dev/null").expect("it is there");
    for (descriptor, needle) in [(OwnedFd::from(connected), "does not listen"), (file.into(), "no socket")] {
        let output = inheriting(vec![descriptor], None, &[]).stderr(Stdio::piped()).output().expect("it runs");
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
        assert!(complaint.contains("descriptor 3") && complaint.contains("LISTEN_FDS") && complaint.contains(needle), "{complaint}");
    }
    // Promised, and not there.
    let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" --listen 127.0.0.1:0 --admin 127.0.0.1:0";
    let output = run(Command::new("sh").args(["-c", script, env!("CARGO_BIN_EXE_server")]));
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("descriptor 3"));
    drop(held);
}

#[test]
fn who_starts_other_programs_does_not_pass_the_socket_on() {
    let (held, _) = socket();
    let server = Server::spawn_as_it_is(&mut inheriting(vec![duplicate(&held)], None, &[]));
    let flags = std::fs::read_to_string(format!("/proc/{}/fdinfo/3", server.pid())).expect("it has it");
    let flags = flags.lines().find_map(|line| line.strip_prefix("flags:")).expect("proc(5)");
    let flags = u32::from_str_radix(flags.trim(), 8).expect("octal");
    let (close_on_exec, non_blocking) = (0o2_000_000, 0o4000);
    assert_eq!(flags & (close_on_exec | non_blocking), close_on_exec | non_blocking, "{flags:o}");
}
