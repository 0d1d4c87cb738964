//! A scripted server on plain threads, and the program run as its users run it.
#![allow(dead_code, reason = "each test file uses what it needs")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The program under test.
pub(crate) fn loadtest(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"LOADTEST_")) {
        command.env_remove(name);
    }
    command.args(args).output().expect("the program runs")
}

/// What it wrote, as text.
pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What it complained of, as text.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a scripted server does with a request.
pub(crate) enum Answer {
    /// Sends these bytes.
    Bytes(Vec<u8>),
    /// Sends these pieces, each with a write(2) of its own, with Nagle's algorithm on.
    Pieces(Vec<Vec<u8>>),
    /// Closes the connection.
    Close,
    /// Resets the connection (SO_LINGER of zero, socket(7)).
    Reset,
}

/// A server in this process: for each request, in the order of arrival, `script` gives the bytes to send; `None` closes.
pub(crate) struct Scripted {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Requests seen.
    pub(crate) requests: Arc<AtomicU64>,
}

impl Scripted {
    /// Starts it, with a thread for each connection. It ends with the test's process.
    pub(crate) fn start(script: impl Fn(u64) -> Option<Vec<u8>> + Send + Sync + 'static) -> Scripted {
        Scripted::answering(move |request| script(request).map_or(Answer::Close, Answer::Bytes))
    }

    /// The same, with everything that a server can do.
    pub(crate) fn answering(script: impl Fn(u64) -> Answer + Send + Sync + 'static) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let requests = Arc::new(AtomicU64::new(0));
        let (script, seen) = (Arc::new(script), Arc::clone(&requests));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
                std::thread::spawn(move || serve(stream, &*script, &seen));
            }
        });
        Scripted { address, requests }
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

fn serve(mut stream: TcpStream, script: &dyn Fn(u64) -> Answer, seen: &AtomicU64) {
    let _ = stream.set_nodelay(true);
    let (mut held, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        held.extend_from_slice(&buffer[..n]);
        while let Some(end) = held.windows(4).position(|window| window == b"\r\n\r\n") {
            held.drain(..end + 4);
            match script(seen.fetch_add(1, Ordering::SeqCst)) {
                Answer::Bytes(bytes) if stream.write_all(&bytes).is_ok() => {}
                Answer::Pieces(pieces) => {
                    let _ = stream.set_nodelay(false);
                    if pieces.iter().any(|piece| stream.write_all(piece).is_err()) {
                        return;
                    }
                }
                Answer::Reset => {
                    let _ = socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO));
                    return;
                }
                _ => return,
            }
        }
    }
}

/// A complete good answer.
pub(crate) fn ok() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHello, World!".to_vec()
}

/// Runs against a scripted server and returns the JSON document.
pub(crate) fn run_json(server: &Scripted, args: &[&str]) -> (Output, serde_json::Value) {
    let url = server.url();
    let args: Vec<&str> =
        ["run", &url, "--json", "-", "--no-progress", "--allow-saturated"].into_iter().chain(args.iter().copied()).collect();
    let output = loadtest(&args);
    let document = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {} {}", stdout(&output), stderr(&output)));
    (output, document)
}

/// One scenario at a time: each is about what a server does with the machine.
static ONE: Mutex<()> = Mutex::new(());

/// Runs a scenario as a user does. It judges itself: it finds its contrast, or says that this machine is too busy to judge, and why.
#[track_caller]
pub(crate) fn is_shown(slug: &str, file: &str) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("sides.json");
    let path = path.to_str().expect("a path in UTF-8");
    let output = loadtest(&["scenario", "run", slug, "--no-progress", "--json", path]);
    let text = stdout(&output);
    match output.status.code() {
        Some(0) => assert!(text.contains("result   shown"), "{text}"),
        Some(4) => {
            for needle in ["OPEN", "attempt 1 was open: ", "attempt 2 was open: ", "control thread"] {
                assert!(text.contains(needle), "no '{needle}' in {text}");
            }
            eprintln!("not judged, since this machine is too busy: {text}");
        }
        code => panic!("exit {code:?}: {text}{}", stderr(&output)),
    }
    for needle in [format!("{slug}: "), format!("{file}:"), format!("docs/failures/{slug}.md")] {
        assert!(text.contains(&needle), "no '{needle}' in {text}");
    }
    let sides = std::fs::read(path).expect("the file that was asked for");
    let sides: serde_json::Value = serde_json::from_slice(&sides).expect("JSON");
    let sides: Vec<_> = sides.as_array().into_iter().flatten().map(|side| side["scenario"]["side"].as_str()).collect();
    assert_eq!(sides, [Some("broken"), Some("correct")]);
}
