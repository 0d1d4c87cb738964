//! The server under test: a process of its own, started fresh for every side, and never left behind.
//!
//! It is this program again, with the hidden subcommand `serve`, so that no second binary has to be built or found. Its first line on
//! standard output says that it listens, and where. Read next: `side.rs`.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::sys;

/// How long a server may take until it listens. It takes milliseconds; a machine under load may need seconds.
pub const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to exit after SIGTERM, before SIGKILL. At the end of a scenario all connections are closed, so that a correct
/// server exits at once.
pub const STOP_GRACE: Duration = Duration::from_secs(5);
/// Pause between two checks whether the child has exited.
const STOP_POLL: Duration = Duration::from_millis(10);
/// The last bytes of its standard error that are kept: they hold the reason of an unexpected exit.
const STDERR_BYTES_MAX: usize = 8 << 10;
/// How long the readers of its pipes may take after it has exited: a grandchild could hold the pipes open.
const PIPE_GRACE: Duration = Duration::from_millis(200);

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// Where it serves.
    pub http: SocketAddr,
    /// Its admin port.
    pub admin: SocketAddr,
    /// Its process.
    pub pid: u32,
    child: Child,
    stderr: Tail,
}

/// How a server exited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit status; `None` if the system did not say.
    pub status: Option<ExitStatus>,
    /// Whether it had to be killed.
    pub killed: bool,
}

/// The program that runs now (proc(5)), whatever its path names by then: a build may replace the file while scenarios run, and each later server
/// would not start, or would be another program than the one before. Test: `scenarios_continue_when_a_build_replaces_the_program`.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// This program, about to run the server with `args`.
pub fn this_program_as_server<'a>(args: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(THIS_PROGRAM);
    command.arg0("loadtest").arg("serve").args(args);
    // SERVER_… variables in the user's environment are not meant for the server under test.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"SERVER_")) {
        command.env_remove(name);
    }
    command
}

impl Server {
    /// Starts a server and waits until it listens.
    ///
    /// # Errors
    /// A sentence with the end of its standard error: it could not be started, printed something else, exited, or did not listen within
    /// `ready_timeout`.
    pub fn start(mut command: Command, ready_timeout: Duration) -> Result<Server, String> {
        // A process group of its own: Ctrl-C is meant for the generator, which then stops the server.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        sys::die_with_parent(&mut command);
        let mut child = command.spawn().map_err(|e| format!("cannot start the server: {e}"))?;
        let stderr = Tail::default();
        let pipes = child.stdout.take().zip(child.stderr.take());
        let Some((out, err)) = pipes else { unreachable!("both were asked for as pipes") };
        stderr.read(err);
        let first_line = first_line(out);
        let mut server = Server { http: ([0, 0, 0, 0], 0).into(), admin: ([0, 0, 0, 0], 0).into(), pid: child.id(), child, stderr };
        match first_line.recv_timeout(ready_timeout) {
            Ok(line) => match parse_listening(&line) {
                Some((http, admin)) => {
                    (server.http, server.admin) = (http, admin);
                    Ok(server)
                }
                None if line.is_empty() => {
                    // Its descriptors close before its status can be read.
                    server.outlives(PIPE_GRACE);
                    Err(server.failed("ended before it listened"))
                }
                None => Err(server.failed(&format!("said '{}' instead of where it listens", line.trim_end()))),
            },
            Err(_) => Err(server.failed(&format!("did not listen within {ready_timeout:?}"))),
        }
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The end of what it wrote to standard error.
    #[must_use]
    pub fn stderr_tail(&self) -> String {
        self.stderr.text()
    }

    /// Its exit status, if it exits by itself within `grace`.
    pub fn ended_within(&mut self, grace: Duration) -> Option<ExitStatus> {
        if self.outlives(grace) { None } else { self.child.wait().ok() }
    }

    /// Sends SIGTERM, and SIGKILL if it has not exited within `grace`.
    pub fn stop(mut self, grace: Duration) -> Ended {
        self.end(grace)
    }

    fn end(&mut self, grace: Duration) -> Ended {
        if self.is_alive() {
            let _ = sys::signal(self.pid, libc::SIGTERM); // It may end by itself in between.
            self.outlives(grace);
        }
        let killed = self.is_alive() && self.child.kill().is_ok();
        Ended { status: self.child.wait().ok(), killed }
    }

    /// Whether it still runs after `grace`; returns as soon as it does not.
    fn outlives(&mut self, grace: Duration) -> bool {
        let until = Instant::now() + grace;
        while self.is_alive() {
            if Instant::now() >= until {
                return true;
            }
            std::thread::sleep(STOP_POLL);
        }
        false
    }

    /// Stops a server that did not start as it should; returns the reason as a sentence.
    fn failed(&mut self, what: &str) -> String {
        let ended = self.end(Duration::ZERO);
        let status = match ended.status {
            Some(status) if !ended.killed => match (status.code(), status.signal()) {
                (Some(code), _) => format!(" (exit code {code})"),
                (None, Some(signal)) => format!(" (killed by signal {signal})"),
                (None, None) => String::new(),
            },
            _ => String::new(),
        };
        self.stderr.wait_for_end(PIPE_GRACE);
        let words = self.stderr_tail();
        let words = if words.is_empty() { String::new() } else { format!("; it wrote: {}", words.trim_end()) };
        format!("the server under test {what}{status}{words}")
    }
}

impl Drop for Server {
    /// The server does not outlive this value, whatever happens.
    fn drop(&mut self) {
        if self.is_alive() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait(); // Reaps it.
    }
}

/// `listening http=127.0.0.1:PORT admin=127.0.0.1:PORT pid=N`.
fn parse_listening(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let rest = line.strip_prefix("listening ")?;
    let field = |name: &str| rest.split_whitespace().find_map(|word| word.strip_prefix(name))?.parse().ok();
    Some((field("http=")?, field("admin=")?))
}

/// Sends the first line, then reads and discards the rest, so that the server does not block on a full pipe.
fn first_line(pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (line_in, line_out) = mpsc::channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = String::new();
        let _ = reader.by_ref().take(4096).read_line(&mut line); // An unreadable line is reported as what was read of it.
        let _ = line_in.send(line);
        let _ = std::io::copy(&mut reader, &mut std::io::sink());
    });
    line_out
}

/// The last bytes of a pipe.
#[derive(Clone, Debug, Default)]
struct Tail {
    bytes: Arc<Mutex<VecDeque<u8>>>,
    ended: Arc<Mutex<Option<mpsc::Receiver<()>>>>,
}

impl Tail {
    fn read(&self, mut pipe: impl Read + Send + 'static) {
        let bytes = Arc::clone(&self.bytes);
        let (end_in, end_out) = mpsc::channel();
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(end_out);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                let mut bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
                bytes.extend(&buffer[..n]);
                let excess = bytes.len().saturating_sub(STDERR_BYTES_MAX);
                bytes.drain(..excess);
            }
            let _ = end_in.send(()); // The receiver may have stopped waiting.
        });
    }

    fn wait_for_end(&self, grace: Duration) {
        if let Some(ended) = &*self.ended.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = ended.recv_timeout(grace);
        }
    }

    fn text(&self) -> String {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes.iter().copied().collect::<Vec<_>>()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn a_server_that_says_where_it_listens_is_ready_and_ends_when_asked() {
        let server = Server::start(shell("echo listening http=127.0.0.1:81 admin=127.0.0.1:82 pid=1; exec sleep 60"), LONG).unwrap();
        assert_eq!((server.http.port(), server.admin.port()), (81, 82));
        let ended = server.stop(LONG);
        assert!(!ended.killed && ended.status.and_then(|status| status.signal()) == Some(libc::SIGTERM), "{ended:?}");
    }

    #[test]
    fn a_server_that_ignores_sigterm_is_killed() {
        let script = "trap '' TERM; echo listening http=127.0.0.1:81 admin=127.0.0.1:82 pid=1; while :; do sleep 0.05; done";
        let ended = Server::start(shell(script), LONG).unwrap().stop(Duration::from_millis(50));
        assert!(ended.killed, "{ended:?}");
    }

    #[test]
    fn a_server_that_dies_is_reported_with_its_stderr_tail() {
        let error = Server::start(shell("echo 'address in use' >&2; exit 7"), LONG).unwrap_err();
        assert!(error.contains("ended before it listened") && error.contains("address in use") && error.contains("code 7"), "{error}");
        let error = Server::start(shell("echo hello; exec sleep 60"), LONG).unwrap_err();
        assert!(error.contains("said 'hello'"), "{error}");
        let error = Server::start(shell("exec sleep 60"), Duration::from_millis(50)).unwrap_err();
        assert!(error.contains("did not listen within 50ms"), "{error}");
    }

    #[test]
    fn a_server_that_is_dropped_is_gone() {
        let server = Server::start(shell("echo listening http=127.0.0.1:81 admin=127.0.0.1:82 pid=1; exec sleep 60"), LONG).unwrap();
        let proc = std::path::PathBuf::from(format!("/proc/{}", server.pid));
        assert!(proc.exists());
        drop(server);
        assert!(!proc.exists());
    }

    #[test]
    fn only_the_end_of_a_flood_on_standard_error_is_kept() {
        let script = "yes flood | head -c 100000 >&2; echo the end >&2; exit 1";
        let error = Server::start(shell(script), LONG).unwrap_err();
        assert!(error.ends_with("the end") && error.len() < STDERR_BYTES_MAX + 200, "{} bytes", error.len());
    }
}
