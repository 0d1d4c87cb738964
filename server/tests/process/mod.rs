//! A real server in a process of its own, on ports that the kernel chose, ended with the test.
#![allow(dead_code)] // Each test file uses a part of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// How long a test waits for what must happen. Only a hang reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running server. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    /// Its service.
    pub(crate) http: SocketAddr,
    /// Its admin port.
    pub(crate) admin: SocketAddr,
    /// The first line that it printed.
    pub(crate) first_line: String,
    stdout: Option<BufReader<ChildStdout>>,
}

/// The server's command with ports that the kernel chooses, and without what the environment may say.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SERVER_")) {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG").args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    command
}

impl Server {
    /// Starts one with these flags and waits for its first line. What it logs goes nowhere.
    pub(crate) fn start(flags: &[&str]) -> Server {
        let mut command = command();
        command.args(flags).stderr(Stdio::null());
        Server::spawn(&mut command)
    }

    /// Starts this command and waits for its first line.
    pub(crate) fn spawn(command: &mut Command) -> Server {
        Server::spawn_as_it_is(command.stdin(Stdio::null()))
    }

    /// The same, with the standard input that it has.
    pub(crate) fn spawn_as_it_is(command: &mut Command) -> Server {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the server's program starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut first_line = String::new();
        stdout.read_line(&mut first_line).expect("the first line is text");
        while first_line.trim().is_empty() || first_line.starts_with("running ") {
            // A test program that was started again as a server speaks first.
            first_line.clear();
            assert!(stdout.read_line(&mut first_line).expect("it is text") > 0, "it ended without its line");
        }
        let address = |name: &str| {
            let value = first_line.split_whitespace().find_map(|word| word.strip_prefix(name));
            value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {first_line:?}"))
        };
        let (http, admin) = (address("http="), address("admin="));
        Server { child, http, admin, first_line, stdout: Some(stdout) }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The reading end of its stderr, if it is piped.
    pub(crate) fn stderr(&mut self) -> ChildStderr {
        self.child.stderr.take().expect("stderr is piped")
    }

    /// What it printed after the first line. Returns when it has ended.
    pub(crate) fn rest_of_stdout(&mut self) -> String {
        let mut rest = String::new();
        self.stdout.take().expect("asked once").read_to_string(&mut rest).expect("it is text");
        rest
    }

    /// Sends a signal by its name: `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.pid())]).status().expect("there is a shell");
        assert!(status.success(), "kill -{name}");
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is our child")
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait_for("the server's end", || self.child.try_wait().expect("it is our child"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again and again until there is an answer.
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Runs the server's program to its end: for what exits by itself.
pub(crate) fn run(command: &mut Command) -> Output {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the server's program starts");
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().expect("it is our child").is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("it should have ended by itself");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().expect("it has ended")
}

/// A response, read to the end of its connection.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// The head, with its status line.
    pub(crate) head: String,
    /// The body.
    pub(crate) body: String,
}

impl Answer {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// A connection on which a request has been sent.
pub(crate) fn send(to: SocketAddr, method: &str, target: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "{method} {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    Ok(stream)
}

/// Reads a response to the end of its connection.
pub(crate) fn receive(mut stream: TcpStream) -> std::io::Result<Answer> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(std::io::ErrorKind::InvalidData)?;
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
}

/// One request on a connection of its own.
pub(crate) fn ask(to: SocketAddr, method: &str, target: &str) -> Answer {
    receive(send(to, method, target).expect("it accepts")).expect("it answers")
}

/// One GET on a connection of its own.
pub(crate) fn get(to: SocketAddr, target: &str) -> Answer {
    ask(to, "GET", target)
}

/// The value of a sample on the metrics page, as it is written there: `name{label="value"}`.
pub(crate) fn sample(admin: SocketAddr, name: &str) -> f64 {
    let page = get(admin, "/metrics").body;
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no sample {name} in:\n{page}"))
}
