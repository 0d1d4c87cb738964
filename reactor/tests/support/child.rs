//! The server half of a test in a process of its own: its limits are not ours, and its descriptors are not in our count.
//!
//! The test binary runs itself again, with one test's name and [`ROLE`] set; that test then plays the server. The server's first line on
//! stdout is its address; it ends when its stdin does, so it cannot outlive the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

/// Set in the server's process.
const ROLE: &str = "REACTOR_TEST_SERVER";

/// Whether this process is the server.
pub fn is_server() -> bool {
    std::env::var_os(ROLE).is_some()
}

/// The server's process. Dropping it ends it.
pub struct Server {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Runs `test` of this binary as the server.
pub fn start_server(test: &str) -> Server {
    let mut child = Command::new(std::env::current_exe().expect("a test knows its file"))
        .args(["--exact", test, "--nocapture", "--test-threads=1", "--include-ignored"])
        .env(ROLE, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a test binary can be run again");
    let stdin = child.stdin.take();
    let mut stdout = BufReader::new(child.stdout.take().expect("its stdout is piped"));
    let address = word_after(&mut stdout, "listening").parse().expect("the server says where it listens");
    Server { child, stdin, stdout, address }
}

impl Server {
    /// The next thing that the server says, of the kind `what value`.
    pub fn hear(&mut self, what: &str) -> String {
        word_after(&mut self.stdout, what)
    }

    /// Gives the server an order: a line on its stdin.
    pub fn say(&mut self, order: &str) {
        writeln!(self.stdin.as_mut().expect("the server's stdin is open"), "{order}").expect("the server reads its stdin");
    }

    /// Tells the server to end; what it says then can still be heard.
    pub fn close_stdin(&mut self) {
        self.stdin.take();
    }

    /// The server's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the server has ended without being told to.
    pub fn ended_by_itself(mut self) -> ExitStatus {
        let mut status = None;
        super::until("the server's own end", || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        status.expect("it has ended")
    }

    /// Tells the server to end, and waits for it: `true` if nothing in it failed.
    pub fn end(mut self) -> bool {
        self.stdin.take();
        self.child.wait().is_ok_and(|status| status.success())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stdin.take();
        let _ = self.child.wait();
    }
}

/// In the server: waits until the test wants its end.
pub fn wait_for_the_end() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// The test harness writes to stdout too, sometimes on the same line: so we look for a word.
fn word_after(stdout: &mut BufReader<ChildStdout>, what: &str) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        assert!(stdout.read_line(&mut line).is_ok_and(|n| n > 0), "the server ended before it said {what:?}");
        let mut words = line.split_whitespace().skip_while(|word| *word != what);
        if let (Some(_), Some(value)) = (words.next(), words.next()) {
            return value.to_owned();
        }
    }
}
