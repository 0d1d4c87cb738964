//! Every way in which a server can fail a request has its own row, and none is taken for an answer.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::net::TcpListener;

use common::{Scripted, loadtest, ok, run_json, stderr};

/// Ten requests, one connection at a time; the fifth is answered by `bytes`, or by a close. Returns phase and kind of the only error.
fn the_error(bytes: Option<&'static [u8]>) -> (String, String) {
    let server = Scripted::start(move |request| if request == 4 { bytes.map(<[u8]>::to_vec) } else { Some(ok()) });
    let args = ["-R", "100", "-n", "10", "-c", "1", "--max-connections", "1", "--warmup", "0", "--timeout", "20s"];
    let (_, document) = run_json(&server, &args);
    let totals = &document["totals"];
    assert_eq!((totals["scheduled"].as_u64(), totals["unfinished"].as_u64()), (Some(10), Some(0)), "{document:#}");
    let errors = document["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0]["count"].as_u64(), Some(1));
    let text = |name: &str| errors[0][name].as_str().unwrap().to_owned();
    (text("phase"), text("kind"))
}

fn is(error: (String, String), phase: &str, kind: &str) {
    assert_eq!((error.0.as_str(), error.1.as_str()), (phase, kind));
}

#[test]
fn a_close_instead_of_an_answer() {
    is(the_error(None), "first byte", "closed");
}

#[test]
fn an_error_status() {
    is(the_error(Some(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")), "body", "status 503");
}

#[test]
fn bytes_that_are_no_http() {
    is(the_error(Some(b"SSH-2.0-nonsense\r\n\r\n")), "first byte", "not HTTP");
}

#[test]
fn bytes_after_the_answer() {
    is(the_error(Some(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n")), "idle", "not HTTP");
}

#[test]
fn a_server_that_closes_after_each_answer_is_no_failure() {
    let server = Scripted::start(|_| Some(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok".to_vec()));
    let (_, document) = run_json(&server, &["-R", "100", "-n", "10", "-c", "1", "--max-connections", "1", "--warmup", "0"]);
    assert_eq!((document["totals"]["ok"].as_u64(), document["errors"].as_array().map(Vec::len)), (Some(10), Some(0)), "{document:#}");
}

#[test]
fn a_short_body() {
    let url = format!("http://{}/", short_body_server());
    let output = loadtest(&["run", &url, "-R", "100", "-n", "5", "-c", "1", "--warmup", "0", "--no-progress", "--allow-saturated"]);
    let text = common::stdout(&output);
    assert!(text.contains("errors   5  body short body"), "{text}");
}

/// Answers every request with three bytes of ten and closes.
fn short_body_server() -> std::net::SocketAddr {
    use std::io::{Read, Write};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 1024];
            if matches!(stream.read(&mut request), Ok(1..)) {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n012");
            }
        }
    });
    address
}

#[test]
fn an_unreachable_target_is_one_clear_line_and_exit_code_1() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port(); // Closed again at once.
    let output = loadtest(&["run", &format!("http://127.0.0.1:{port}/"), "-d", "1s"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains(&format!("127.0.0.1:{port}")) && text.contains("refused"), "{text}");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_server_that_goes_away_during_the_run_fails_requests_and_not_the_run() {
    let server = Scripted::start(|_| None);
    let (output, document) = run_json(&server, &["-R", "100", "-n", "20", "-c", "2", "--max-connections", "2", "--warmup", "0"]);
    assert_eq!(output.status.code(), Some(1), "not one succeeded: {}", stderr(&output));
    assert_eq!(document["totals"]["errors"].as_u64(), Some(20), "{document:#}");
    let response = &document["latency"]["response"];
    assert_eq!((response["count"].as_u64(), response["never"].as_u64()), (Some(20), Some(20)), "a broken connection is not a quick answer");
    assert!(response["p50"].is_null(), "{response}");
}
