//! `/files/` with Range, If-Range, If-None-Match and If-Modified-Since: by hand, and as curl uses them to resume a download and to keep a copy.
//!
//! Without curl its test says that it was skipped, unless `REQUIRE_TOOLS` is set.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use server::routes::Routes;
use support::{Response, Server, Setup, get};

const LENGTH: usize = 300_000;
const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn content() -> Vec<u8> {
    (0..LENGTH as u32).map(|at| (at * 31 % 251) as u8).collect()
}

struct Files {
    directory: tempfile::TempDir,
    server: Server,
}

impl Files {
    fn new() -> Files {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file.bin");
        fs::write(&file, content()).expect("write");
        let modified = UNIX_EPOCH + Duration::from_secs(784_111_777);
        fs::File::options().write(true).open(&file).and_then(|file| file.set_modified(modified)).expect("utimensat");
        fs::write(directory.path().join("empty"), "").expect("write");
        let server = Server::start(Routes::new(Some(directory.path().to_owned())), Setup::default());
        Files { directory, server }
    }

    fn ask(&self, method: &str, fields: &str) -> Response {
        let mut client = self.server.connect();
        client.send(format!("{method} /files/file.bin HTTP/1.1\r\nHost: test\r\n{fields}\r\n"));
        let response = match method {
            "HEAD" => client.response_to_head(),
            _ => client.response(),
        };
        // The framing was right: the connection serves another request.
        client.send(get("/"));
        assert_eq!(client.response().text(), "Hello, World!", "{fields}");
        response
    }

    fn tag(&self) -> String {
        self.ask("HEAD", "").header("ETag").expect("it is sent").to_owned()
    }
}

#[test]
fn a_range_is_answered_206_and_one_behind_the_end_416() {
    let files = Files::new();
    let content = content();
    let length = LENGTH;
    for (range, from, to) in [
        ("0-0", 0, 1),
        ("10-19", 10, 20),
        ("299999-", 299_999, length),
        ("-100", length - 100, length),
        ("100000-999999999", 100_000, length),
    ] {
        let response = files.ask("GET", &format!("Range: bytes={range}\r\n"));
        assert_eq!(response.status, 206, "{range}");
        assert_eq!(response.header("Content-Range"), Some(&*format!("bytes {from}-{}/{length}", to - 1)));
        assert_eq!(response.header("Content-Length"), Some(&*(to - from).to_string()));
        assert!(response.body == content[from..to], "{range}");
    }
    let behind = files.ask("GET", "Range: bytes=300000-\r\n");
    assert_eq!((behind.status, behind.header("Content-Range")), (416, Some("bytes */300000")));
    // Ignored: several ranges, malformed ones, and any for HEAD.
    for (method, fields) in [
        ("GET", "Range: bytes=0-0,5-6\r\n"),
        ("GET", "Range: bytes=0-0\r\nRange: bytes=5-6\r\n"),
        ("GET", "Range: bytes=9-1\r\n"),
        ("GET", "Range: lines=0-1\r\n"),
        ("HEAD", "Range: bytes=0-0\r\n"),
    ] {
        let whole = files.ask(method, fields);
        assert_eq!((whole.status, whole.header("Content-Range")), (200, None), "{fields}");
        assert_eq!(whole.header("Content-Length"), Some("300000"), "{fields}");
        assert_eq!(whole.header("Accept-Ranges"), Some("bytes"));
    }
    files.server.is_at_rest();
}

#[test]
fn a_copy_that_is_current_is_answered_304_and_an_old_one_200() {
    let files = Files::new();
    let tag = files.tag();
    assert_eq!(files.ask("HEAD", "").header("Last-Modified"), Some(MODIFIED));
    for method in ["GET", "HEAD"] {
        for (fields, status) in [
            (format!("If-None-Match: {tag}\r\n"), 304),
            (format!("If-None-Match: \"x\"\r\nIf-None-Match: W/{tag}\r\n"), 304),
            ("If-None-Match: *\r\n".to_owned(), 304),
            ("If-None-Match: \"x\"\r\n".to_owned(), 200),
            (format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {MODIFIED}\r\n"), 200),
            (format!("If-Modified-Since: {MODIFIED}\r\n"), 304),
            ("If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT\r\n".to_owned(), 304),
            ("If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n".to_owned(), 200),
            ("If-Modified-Since: yesterday\r\n".to_owned(), 200),
            (format!("If-None-Match: {tag}\r\nRange: bytes=0-0\r\n"), 304),
        ] {
            let response = files.ask(method, &fields);
            assert_eq!((response.status, response.header("ETag")), (status, Some(&*tag)), "{method} {fields}");
            assert_eq!(response.header("Content-Length").is_none(), status == 304, "{method} {fields}");
        }
    }
}

#[test]
fn a_part_of_a_file_that_has_changed_is_answered_412_if_the_client_says_so() {
    let files = Files::new();
    let tag = files.tag();
    let part = |field: &str| {
        let response = files.ask("GET", &format!("Range: bytes=5-\r\n{field}\r\n"));
        (response.status, response.header("ETag").is_some())
    };
    let (by_tag, by_date) = (format!("If-Match: {tag}"), format!("If-Unmodified-Since: {MODIFIED}"));
    assert_eq!((part(&by_tag), part(&by_date), part("If-Match: *")), ((206, true), (206, true), (206, true)));
    fs::write(files.directory.path().join("file.bin"), "another file").expect("write");
    assert_eq!((part(&by_tag), part(&by_date)), ((412, true), (412, true)));
}

#[test]
fn a_part_is_sent_for_if_range_only_while_the_file_is_the_same() {
    let files = Files::new();
    let tag = files.tag();
    let range = |if_range: &str| files.ask("GET", &format!("Range: bytes=5-\r\nIf-Range: {if_range}\r\n")).status;
    assert_eq!((range(&tag), range(MODIFIED), range("\"x\""), range(&format!("W/{tag}"))), (206, 206, 200, 200));
    let file = files.directory.path().join("file.bin");
    fs::write(&file, "another").expect("write");
    assert_eq!((range(&tag), range(MODIFIED)), (200, 200));
    // Written a moment ago: it may change again without a trace, so the tag is weak, and no part is sent for it.
    fs::File::options().write(true).open(&file).and_then(|file| file.set_modified(SystemTime::now())).expect("utimensat");
    let new = files.tag();
    assert!(new.starts_with("W/") && range(&new) == 200, "{new}");
}

#[test]
fn an_empty_file_has_no_part() {
    let files = Files::new();
    let mut client = files.server.connect();
    client.send("GET /files/empty HTTP/1.1\r\nHost: test\r\nRange: bytes=0-\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status, response.header("Content-Range")), (416, Some("bytes */0")));
}

fn curl(files: &Files, arguments: &[&str], to: &Path) -> (String, Vec<u8>) {
    let url = format!("http://{}/files/file.bin", files.server.address);
    let output =
        Command::new("curl").args(["-sS", "-w", "%{http_code} %{size_download}"]).args(arguments).arg("-o").arg(to).arg(url).output();
    let output = output.expect("curl was there a moment ago");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    (String::from_utf8_lossy(&output.stdout).into_owned(), fs::read(to).unwrap_or_default())
}

#[test]
fn curl_resumes_a_download_and_keeps_a_copy() {
    if Command::new("curl").arg("-V").stdout(Stdio::null()).status().is_err() {
        assert!(std::env::var_os("REQUIRE_TOOLS").is_none(), "curl is not installed");
        eprintln!("skipped: curl is not installed");
        return;
    }
    let files = Files::new();
    let content = content();
    let to = |name: &str| -> PathBuf { files.directory.path().join(name) };

    assert_eq!(curl(&files, &["-r", "100-199"], &to("part")), ("206 100".to_owned(), content[100..200].to_vec()));
    assert_eq!(curl(&files, &["-r", "-50"], &to("tail")), ("206 50".to_owned(), content[LENGTH - 50..].to_vec()));
    // Several ranges: the whole file.
    assert_eq!(curl(&files, &["-r", "0-1,5-6"], &to("several")).0, "200 300000");

    // A download that was cut off goes on where it ended.
    fs::write(to("resumed"), &content[..123_456]).expect("write");
    let (said, resumed) = curl(&files, &["-C", "-"], &to("resumed"));
    assert_eq!(said, format!("206 {}", LENGTH - 123_456));
    assert!(resumed == content, "the resumed download is the file");

    // -z: If-Modified-Since with the time of a file or a date.
    assert_eq!(curl(&files, &["-z", MODIFIED], &to("newer")).0, "304 0");
    assert_eq!(curl(&files, &["-z", "Sun, 06 Nov 1994 08:49:36 GMT"], &to("older")).0, "200 300000");

    // --etag-save, --etag-compare: If-None-Match.
    let etag = to("etag").display().to_string();
    assert_eq!(curl(&files, &["--etag-save", &etag], &to("copy")).0, "200 300000");
    assert_eq!(curl(&files, &["--etag-compare", &etag], &to("again")).0, "304 0");
    fs::write(to("file.bin"), "changed").expect("write");
    assert_eq!(curl(&files, &["--etag-compare", &etag], &to("again")), ("200 7".to_owned(), b"changed".to_vec()));
}
