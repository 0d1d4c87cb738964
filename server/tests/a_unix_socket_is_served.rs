//! `--listen unix:PATH`: clients of a Unix socket are served by several loops, and the path that an ended server left is used again.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A server that is killed at the end of the test.
struct Server(Child);

impl Server {
    fn start(path: &Path, flags: &[&str]) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
        let listen = format!("unix:{}", path.display());
        command.args(["--listen", &listen, "--admin", "127.0.0.1:0"]).args(flags).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the server's program starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).expect("the first line is text");
        assert!(line.contains(&format!("http={listen} ")), "{line:?}");
        Server(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn get(path: &Path) -> String {
    let mut client = UnixStream::connect(path).expect("the server listens");
    client.write_all(b"GET / HTTP/1.1\r\nHost: unix\r\nConnection: close\r\n\r\n").expect("the server reads");
    let mut response = String::new();
    client.read_to_string(&mut response).expect("the server answers");
    response
}

#[test]
fn clients_of_a_unix_socket_are_served_and_the_path_of_an_ended_server_is_used_again() {
    let directory = tempfile::tempdir().expect("there is a directory for temporary files");
    let path = directory.path().join("http.sock");
    // The default (`reuse-port`), which a Unix socket does not have, and the loops' other ways to share one socket.
    for flags in [&["--loops", "2"][..], &["--loops", "2", "--listener-sharing", "hand-off"], &["--connections-per-source-max", "1"]] {
        let server = Server::start(&path, flags);
        for _ in 0..4 {
            let response = get(&path);
            assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        }
        let taken = Command::new(env!("CARGO_BIN_EXE_server"))
            .args(["--listen", &format!("unix:{}", path.display()), "--admin", "127.0.0.1:0"])
            .output()
            .expect("it runs");
        let complaint = String::from_utf8_lossy(&taken.stderr);
        assert_eq!(taken.status.code(), Some(1), "{complaint}");
        assert!(complaint.contains("http.sock") && complaint.contains("another server listens"), "{complaint}");
        drop(server); // Killed: it could not have removed the path.
        assert!(path.exists());
    }
}
