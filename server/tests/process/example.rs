//! An example of this crate as a process of its own, on a port that the kernel chose, ended with the test.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a test waits for what must happen. Only a hang reaches it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running example. Dropping it kills it.
pub struct Example {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// The first line that it printed.
    pub first_line: String,
}

impl Example {
    /// Starts one with these arguments and waits for its first line, which says where it listens.
    pub fn start(name: &str, args: &[&str]) -> Example {
        let mut command = Example::command(name);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the example starts");
        let mut first_line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut first_line).expect("it says where it listens");
        let word = first_line.split_whitespace().nth(1).unwrap_or_default();
        let address = word.trim_start_matches("http=").parse();
        let address = address.unwrap_or_else(|_| panic!("no address in {first_line:?}"));
        Example { child, address, first_line }
    }

    /// How one is started: without flags yet, and with none from the environment.
    pub fn command(name: &str) -> Command {
        let mut command = Command::new(program(name));
        for (variable, _) in std::env::vars_os().filter(|(variable, _)| variable.to_string_lossy().starts_with("SERVER_")) {
            command.env_remove(variable);
        }
        command
    }

    /// `VmRSS`: what of its memory is in RAM. proc(5).
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("proc(5)");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    /// Its open descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("it runs").count()
    }

    /// Sends a signal by its name: `TERM`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status().expect("there is a shell");
        assert!(status.success());
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(Instant::now() < until, "it does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where `cargo test` has put it. `cargo test --test NAME` builds no example, so cargo is asked to; it has nothing to do where there is one.
fn program(name: &str) -> PathBuf {
    let server = Path::new(env!("CARGO_BIN_EXE_server"));
    let directory = server.parent().expect("programs lie in a directory");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--offline", "--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
    cargo.args(["--example", name, "--target-dir"]).arg(directory.parent().expect("of a profile"));
    if directory.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "the example {name} does not build");
    directory.join("examples").join(name)
}
