//! Clients that others wrote, against the real server: Python's http.client and urllib, h2load and wrk.
//!
//! Without the program each test says so and passes, unless `REQUIRE_TOOLS=1` asks for it, as CI does.

mod process;

use std::io::ErrorKind;
use std::process::{Command, Stdio};

use process::{Server, sample};

/// What it printed; `None` if it is not installed and need not be. It must succeed.
fn run(program: &str, args: &[&str]) -> Option<String> {
    let output = match Command::new(program).args(args).stdin(Stdio::null()).output() {
        Err(e) if e.kind() == ErrorKind::NotFound && std::env::var_os("REQUIRE_TOOLS").is_none_or(|value| value != "1") => {
            println!("skipped: {program} is not installed");
            return None;
        }
        output => output.unwrap_or_else(|e| panic!("{program}: {e}")),
    };
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program}: {}\n{said}\n{complained}", output.status);
    Some(said.into_owned())
}

/// Every way in which http.client frames, on connections that it keeps; it checks by assertions.
const PYTHON: &str = r#"
import http.client, sys, urllib.error, urllib.request

port = int(sys.argv[1])
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

def ask(method, path, body=None, headers={}, **more):
    connection.request(method, path, body, headers, **more)
    response = connection.getresponse()
    return response, response.read()

response, body = ask("GET", "/")
assert (response.status, response.version, body) == (200, 11, b"Hello, World!"), (response.status, body)
socket = connection.sock
assert socket is not None, "the connection persists"
response, body = ask("HEAD", "/bytes?n=100000")
assert (response.status, response.getheader("Content-Length"), body) == (200, "100000", b"")
response, body = ask("GET", "/bytes?n=1000000")
assert (response.status, len(body)) == (200, 1000000)
sent = bytes(range(256)) * 2000
response, body = ask("POST", "/echo", sent)
assert (response.status, body == sent) == (200, True)
response, body = ask("POST", "/echo", (sent[at:at + 1000] for at in range(0, len(sent), 1000)), encode_chunked=True)
assert (response.getheader("Transfer-Encoding"), body == sent) == ("chunked", True), response.getheaders()
response, body = ask("PUT", "/", b"x")
assert (response.status, response.getheader("Allow")) == (405, "GET, HEAD, OPTIONS")
assert ask("GET", "/nothing")[0].status == 404
assert ask("OPTIONS", "*")[0].status == 204
assert ask("GET", "/spin?ms=1")[0].status == 200
assert connection.sock is socket, "all of that on one connection"
response, body = ask("GET", "/", headers={"Connection": "close"})
assert (response.status, connection.sock) == (200, None)
# It writes the whole body before it looks for an answer.
response, body = ask("POST", "/echo", bytes(8 << 20))
assert response.status == 413, response.status
assert ask("GET", "/healthz")[1] == b"ok\n", "it connects anew"

url = "http://127.0.0.1:%d" % port
assert urllib.request.urlopen(url + "/healthz").read() == b"ok\n"
assert len(urllib.request.urlopen(url + "/digest?rounds=1", b"data").read()) > 0
try:
    urllib.request.urlopen(url + "/nothing")
    raise AssertionError("404 is an error")
except urllib.error.HTTPError as error:
    assert error.code == 404
print("content")
"#;

#[test]
fn http_client_and_urllib_of_python_are_content() {
    let server = Server::start(&["--loops", "1", "--body-bytes-max", "1MiB"]);
    if let Some(said) = run("python3", &["-c", PYTHON, &server.http.port().to_string()]) {
        assert_eq!(said.trim(), "content");
        assert_eq!(sample(server.admin, "http_requests_in_flight"), 0.0);
    }
}

#[test]
fn h2load_in_http_1_1_gets_every_answer() {
    let server = Server::start(&["--loops", "2"]);
    let base = format!("http://{}", server.http);
    for (path, requests) in [("/", "4000"), ("/bytes?n=20000", "400"), ("/spin?ms=0", "400")] {
        let url = format!("{base}{path}");
        let Some(said) = run("h2load", &["--h1", "-n", requests, "-c", "20", "-t", "1", &url]) else { return };
        let wanted = format!("{requests} done, {requests} succeeded, 0 failed, 0 errored, 0 timeout");
        assert!(said.contains(&wanted), "{said}");
        assert!(said.contains(&format!("{requests} 2xx, 0 3xx, 0 4xx, 0 5xx")), "{said}");
    }
}

#[test]
fn wrk_sees_neither_an_error_nor_a_wrong_status() {
    let server = Server::start(&["--loops", "1"]);
    for path in ["/", "/bytes?n=100000"] {
        let url = format!("http://{}{path}", server.http);
        let Some(said) = run("wrk", &["-t", "1", "-c", "20", "-d", "1s", &url]) else { return };
        assert!(said.contains("requests in"), "{said}");
        assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    }
}
